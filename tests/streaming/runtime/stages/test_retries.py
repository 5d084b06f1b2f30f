"""Steps with a retry policy: a record that fails waits outside the step, in order, and ends in exactly one place.

The clock is the test's own; the first section drives a stage by hand.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loom.core.errors import NotFound
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchExpandStep,
    BatchStep,
    CollectBatch,
    ErrorKind,
    ErrorRoute,
    ExpandStep,
    ForEach,
    Fork,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RecordStep,
    Retry,
    RetryAfter,
    StreamFlow,
    Tombstone,
    With,
    compile_flow,
    step,
)
from loom.streaming.compiler import Code, CompilationError
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.kafka import KafkaRecord, TopicPartition
from loom.streaming.kafka.record_accessor import RECORDS
from loom.streaming.metrics import Counts
from loom.streaming.runtime.output_table import output_table_of
from loom.streaming.runtime.run_errors import RunEndedError
from loom.streaming.runtime.stages import retrying
from loom.streaming.runtime.stages.codegen import generated
from loom.streaming.runtime.stages.fuse import build_stage
from loom.streaming.runtime.stages.stage_io import EndMark, GoneLogs, SourceBatch, StageResults
from loom.streaming.testing import StreamingTestRunner
from tests.support.running import config_for, in_memory, numbers

P0, P1 = TopicPartition("numbers", 0), TopicPartition("numbers", 1)
#: waits of 100, 200, 400 ms, without chance
EVEN = Retry(4, wait_jitter_ms=0)


class Number(LoomFrozenStruct):
    n: int


def of(n: int, partition: int = 0, offset: int | None = None) -> KafkaRecord:
    return KafkaRecord("numbers", None, b'{"n":%d}' % n, {}, partition, n if offset is None else offset)


def value_of(result: Any) -> int:
    return int(str(result[1]).strip("b'{}\\n").partition(":")[2])


class Service:
    """What a step calls: fails as often as it was told for each number, and notes the calls."""

    def __init__(self, failures: dict[int, int] | None = None, error: Callable[[], BaseException] = OSError) -> None:
        self._failures = failures or {}
        self._error = error
        self.calls: list[int] = []

    def ask(self, n: int) -> None:
        self.calls.append(n)
        if self.calls.count(n) <= self._failures.get(n, 0):
            raise self._error()

    def function(self, policy: Retry | None = EVEN, name: str = "ask") -> Any:
        @step(name=name, retry=policy)
        def ask(number: Number) -> Number:
            self.ask(number.n)
            return number

        return ask


def flow(*nodes: Any, output: Any = IntoTopic("out"), errors: Any = IntoTopic("errors")) -> StreamFlow[Any, Any]:  # noqa: B008
    return StreamFlow("retrying", FromTopic("numbers", Number), Process(*nodes), output, errors)


def plan_of(declared: StreamFlow[Any, Any], delivery: str | None = "at_least_once", **consumer: Any) -> CompiledPlan:
    told = {"delivery": delivery, **consumer} if delivery is not None else consumer
    return compile_flow(declared, config=config_for(consumer=told))


class Driven:
    """A stage and its clock, in seconds."""

    def __init__(self, declared: StreamFlow[Any, Any], delivery: str | None = "at_least_once") -> None:
        plan = plan_of(declared, delivery)
        self.counts = Counts()
        self.table = output_table_of(plan, sink=None, terminal_sinks=None, error_sinks=None)
        self.stage = build_stage(plan, self.table.slots, RECORDS, self.counts, lambda envelope: None)
        self.out: dict[str, list[int]] = defaultdict(list)
        self.headers: list[dict[str, bytes]] = []
        self.safe: dict[TopicPartition, int] = {}

    def run(self, items: Iterable[KafkaRecord], at: float, end: EndMark | None = None) -> StageResults:
        items = list(items)
        moved = {TopicPartition(i.topic, i.partition or 0): (i.offset or 0) + 1 for i in items}
        done = self.stage.run(SourceBatch(self.stage, items, moved, at, end))
        for result in done.results:
            self.out[self.table.slots.names[result[0]]].append(value_of(result))
            self.headers.append(dict(result[4] or ()))
        self.safe.update(done.safe)
        return done

    def run_out(self, at: float, end: EndMark = EndMark.INPUT) -> float:
        """End the input, and let time pass until nothing waits."""
        self.run([], at, end)
        while not self.stage.ended:
            due = self.stage.room.due()
            assert due is not None
            at = max(at, due)
            self.run([], at)
        return at


# ---- by hand: waiting and order


def test_a_record_that_fails_waits_while_its_neighbours_go_on_and_leaves_in_its_place() -> None:
    service = Service({1: 2})
    driven = Driven(flow(service.function()))
    driven.run([of(0), of(1), of(2), of(3)], 10.0)
    # Its neighbours were called and their results wait for it; what is before it has left.
    assert service.calls == [0, 1, 2, 3]
    assert (driven.out["out"], driven.safe) == ([0], {P0: 1})
    assert driven.stage.room.due() == pytest.approx(10.1)
    driven.run([of(4)], 10.09)
    assert service.calls == [0, 1, 2, 3, 4]
    driven.run([], 10.1)
    assert service.calls.count(1) == 2
    assert driven.stage.room.due() == pytest.approx(10.3)
    driven.run([], 10.3)
    assert (driven.out["out"], driven.safe) == ([0, 1, 2, 3, 4], {P0: 5})
    assert driven.stage.room.due() is None
    assert (driven.counts.read, driven.counts.inputs_written, driven.counts.retries) == (5, 5, {"retrying.ask": 2})
    assert not driven.counts.errors


def test_other_partitions_are_not_held_up() -> None:
    driven = Driven(flow(Service({0: 1}).function()))
    driven.run([of(0), of(10, 1, 0), of(1), of(11, 1, 1)], 1.0)
    assert (driven.out["out"], driven.safe) == ([10, 11], {P0: 0, P1: 2})
    driven.run([], 1.1)
    assert driven.out["out"] == [10, 11, 0, 1]


def test_when_no_attempt_is_left_the_record_is_an_error_of_its_kind_that_tells_how_many_there_were() -> None:
    service = Service({1: 99})
    driven = Driven(flow(service.function()))
    driven.run([of(0), of(1), of(2)], 0.0)
    for at in (0.1, 0.3, 0.7):
        driven.run([], at)
    assert service.calls.count(1) == 4
    assert (driven.out["out"], driven.out["errors"], driven.safe) == ([0, 2], [1], {P0: 3})
    (letter,) = [told for told in driven.headers if told]
    assert letter["x-error-kind"] == b"task"
    assert letter["x-error-type"] == b"builtins.OSError"
    assert letter["x-error-attempts"] == b"4"
    assert driven.counts.errors == {(ErrorKind.TASK, "retrying.ask"): 1}
    assert driven.counts.inputs_failed == {ErrorKind.TASK: 1}


def test_what_the_policy_gives_up_on_is_an_error_at_once() -> None:
    service = Service({1: 99}, lambda: NotFound("no such customer"))
    driven = Driven(flow(service.function()))
    driven.run([of(0), of(1), of(2)], 0.0)
    assert service.calls == [0, 1, 2]
    assert (driven.out["errors"], driven.safe) == ([1], {P0: 3})
    told = next(told for told in driven.headers if told)
    assert (told["x-error-kind"], told["x-error-attempts"]) == (b"business", b"1")


def test_a_step_sets_its_next_wait_by_retry_after() -> None:
    service = Service({1: 1}, lambda: RetryAfter(3))
    driven = Driven(flow(service.function(Retry(wait_max_ms=60_000))))
    driven.run([of(1)], 5.0)
    assert driven.stage.room.due() == pytest.approx(8.0)
    driven.run([], 7.999)
    assert service.calls == [1]
    driven.run([], 8.0)
    assert driven.out["out"] == [1]


def test_no_attempt_begins_after_the_timeout() -> None:
    service = Service({1: 99})
    driven = Driven(flow(service.function(Retry(99, wait_jitter_ms=0, timeout_ms=350))))
    driven.run([of(1)], 0.0)
    assert driven.run_out(0.0) == pytest.approx(0.3)
    assert (service.calls, driven.out["errors"]) == ([1, 1, 1], [1])


def test_waits_are_measured_from_the_moment_of_the_failure_not_from_the_begin_of_its_batch() -> None:
    driven = Driven(flow(Service({1: 1}).function()))
    driven.stage.room.clock = lambda: 7.5
    driven.run([of(1)], 5.0)
    assert driven.stage.room.due() == pytest.approx(7.6)


def test_the_errors_of_a_topic_keep_their_order_too() -> None:
    class Second(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Number:
            raise ValueError("always")

    driven = Driven(flow(Service({0: 1, 1: 99}).function(), Second))
    driven.run([of(0), of(1), of(2)], 0.0)
    assert driven.out["errors"] == []
    driven.run_out(0.0)
    assert driven.out["errors"] == [0, 1, 2]


def test_what_reaches_no_output_behind_the_step_is_not_held_back() -> None:
    by_parity = {1: Process(Service({1: 1}).function(), IntoTopic("odd")), 0: Process(IntoTopic("even"))}
    driven = Driven(flow(Fork.by(lambda number: number.n % 2, by_parity), output=None))
    driven.run([of(1), of(2), of(3), of(4)], 0.0)
    assert (driven.out["even"], driven.out["odd"]) == ([2, 4], [])
    driven.run([], 0.1)
    assert driven.out["odd"] == [1, 3]


def test_under_exactly_once_what_has_left_is_a_prefix_of_the_partition_over_all_outputs() -> None:
    by_parity = {1: Process(Service({1: 1}).function(), IntoTopic("odd")), 0: Process(IntoTopic("even"))}
    driven = Driven(flow(Fork.by(lambda number: number.n % 2, by_parity), output=None), "exactly_once")
    driven.run([of(0), of(1), of(2), of(3)], 0.0)
    assert (driven.out["even"], driven.out["odd"], driven.safe) == ([0], [], {P0: 1})
    driven.run([], 0.1)
    assert (driven.out["even"], driven.out["odd"], driven.safe) == ([0, 2], [1, 3], {P0: 4})


def test_two_steps_with_policies_each_keep_their_own() -> None:
    first, second = Service({0: 1}), Service({0: 2, 1: 1})
    driven = Driven(flow(first.function(), second.function(name="then")))
    driven.run([of(0), of(1)], 0.0)
    driven.run_out(0.0)
    assert driven.out["out"] == [0, 1]
    assert (first.calls.count(0), second.calls.count(0), second.calls.count(1)) == (2, 3, 2)
    assert driven.counts.retries == {"retrying.ask": 1, "retrying.then": 3}


# ---- by hand: every kind of step


def test_an_expansion_that_fails_waits_whole_and_its_children_keep_their_place() -> None:
    service = Service({1: 1})

    class Twice(ExpandStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Any:
            yield Number(message.payload.n * 10)
            service.ask(message.payload.n)
            yield Number(message.payload.n * 10 + 1)

    driven = Driven(flow(Twice.with_retry(EVEN)))
    driven.run([of(1), of(2)], 0.0)
    assert driven.out["out"] == []
    driven.run([], 0.1)
    assert driven.out["out"] == [10, 11, 20, 21]
    assert driven.counts.inputs_written == 2


def test_one_child_of_an_expansion_waits_and_keeps_its_place_among_the_others() -> None:
    class Thrice(ExpandStep[Number, Number]):
        def execute(self, message: Message[Number]) -> list[Number]:
            return [Number(message.payload.n * 10 + i) for i in range(3)]

    service = Service({11: 1, 12: 99})
    driven = Driven(flow(Thrice, service.function()))
    driven.run([of(1), of(2)], 0.0)
    driven.run_out(0.0)
    assert driven.out["out"] == [10, 11, 20, 21, 22]
    assert driven.out["errors"] == [1]
    told = next(told for told in driven.headers if told)
    assert (told["x-error-index"], told["x-error-attempts"]) == (b"2", b"4")
    assert (driven.counts.inputs_written, driven.counts.inputs_failed) == (1, {ErrorKind.TASK: 1})


class Batches:
    """A batch step over a service, and the batches that it was given."""

    def __init__(self, service: Service, *, whole: bool) -> None:
        self.given: list[list[int]] = []
        given = self.given

        class Ask(BatchStep[Number, Number]):
            def execute(self, messages: list[Message[Number]]) -> list[Any]:
                given.append([message.payload.n for message in messages])
                entries: list[Any] = []
                for message in messages:
                    try:
                        service.ask(message.payload.n)
                    except Exception as error:
                        if whole:
                            raise
                        entries.append(error)
                    else:
                        entries.append(message.payload)
                return entries

        self.step = Ask


def test_the_failed_items_of_a_batch_step_are_called_again_together_without_the_others() -> None:
    batches = Batches(Service({1: 1, 3: 1}), whole=False)
    driven = Driven(flow(batches.step.with_retry(Retry(3))))
    driven.run([of(n) for n in range(4)], 0.0)
    assert driven.out["out"] == [0]
    due = driven.stage.room.due()
    assert due is not None
    driven.run([], due)
    assert batches.given == [[0, 1, 2, 3], [1, 3]]
    assert driven.out["out"] == [0, 1, 2, 3]


def test_a_collected_batch_that_fails_as_a_whole_is_called_again_as_a_whole() -> None:
    batches = Batches(Service({0: 1}), whole=True)
    driven = Driven(flow(CollectBatch(3, timeout_ms=50), batches.step.with_retry(Retry(3)), ForEach()))
    driven.run([of(n) for n in range(3)], 0.0)
    due = driven.stage.room.due()
    assert due is not None
    driven.run([], due)
    assert batches.given == [[0, 1, 2], [0, 1, 2]]
    assert (driven.out["out"], driven.safe) == ([0, 1, 2], {P0: 3})


def test_an_entry_of_a_batch_expansion_that_raises_is_asked_for_again() -> None:
    service = Service({1: 1})

    class Twice(BatchExpandStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Any]:
            return [self._of(message.payload.n) for message in messages]

        def _of(self, n: int) -> Any:
            yield Number(n * 10)
            service.ask(n)
            yield Number(n * 10 + 1)

    driven = Driven(flow(CollectBatch(2, timeout_ms=50), Twice.with_retry(EVEN), ForEach()))
    driven.run([of(1), of(2)], 0.0)
    driven.run_out(0.0)
    assert driven.out["out"] == [10, 11, 20, 21]


def test_a_batch_behind_the_step_is_held_back_for_the_record_that_it_overtook() -> None:
    sizes: list[list[int]] = []

    class Noting(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Number]:
            sizes.append([message.payload.n for message in messages])
            return [message.payload for message in messages]

    driven = Driven(flow(Service({0: 1}).function(), CollectBatch(2, timeout_ms=50), Noting, ForEach()))
    driven.run([of(0), of(1), of(2)], 0.0)
    assert (sizes, driven.out["out"]) == ([[1, 2]], [])
    driven.run([], 0.1)
    assert driven.safe == {P0: 0}
    driven.run([], 0.151)
    assert (sizes, driven.out["out"], driven.safe) == ([[1, 2], [0]], [0, 1, 2], {P0: 3})


def test_a_step_that_takes_tombstones_may_fail_on_one() -> None:
    tries: list[object] = []

    @step(retry=EVEN)
    def keep(number: Number | Tombstone) -> Number | Tombstone:
        tries.append(number)
        if len(tries) == 1:
            raise OSError
        return number

    driven = Driven(flow(keep))
    gone = KafkaRecord("numbers", b"k", None, {}, 0, 0)
    driven.stage.run(SourceBatch(driven.stage, [gone], {P0: 1}, 0.0))
    done = driven.stage.run(SourceBatch(driven.stage, [], {}, 0.1))
    assert [result[1] for result in done.results] == [None]
    assert tries == [Tombstone(), Tombstone()]


def test_a_step_with_a_policy_may_drop_records() -> None:
    service = Service({1: 1})

    @step(retry=EVEN)
    def ask(number: Number) -> Number | None:
        service.ask(number.n)
        return None

    driven = Driven(flow(ask))
    driven.run([of(1)], 0.0)
    driven.run([], 0.1)
    assert (driven.counts.drops, driven.counts.inputs_dropped, driven.safe) == ({"retrying.ask": 1}, 1, {P0: 2})


def test_a_step_inside_with_is_called_again_with_its_resources() -> None:
    seen: list[tuple[int, str]] = []

    @step(retry=EVEN)
    def ask(number: Number, client: str) -> Number:
        seen.append((number.n, client))
        if seen.count((1, client)) == 1 and number.n == 1:
            raise OSError
        return number

    driven = Driven(flow(With(process=Process(ask), client="connected")))
    driven.run([of(0), of(1), of(2)], 0.0)
    assert driven.out["out"] == [0]
    driven.run([], 0.1)
    assert driven.out["out"] == [0, 1, 2]
    assert seen == [(0, "connected"), (1, "connected"), (2, "connected"), (1, "connected")]


# ---- by hand: what is not tried again


@pytest.mark.parametrize("wrong", [None, "text"])
def test_a_result_that_is_not_declared_is_not_asked_for_again(wrong: Any) -> None:
    service = Service({1: 1})

    @step(retry=EVEN)
    def ask(number: Number) -> Number:
        service.ask(number.n)
        return wrong  # type: ignore[no-any-return]

    driven = Driven(flow(ask))
    driven.run([of(1)], 0.0)
    driven.run_out(0.0)
    assert service.calls == [1, 1]
    assert next(told for told in driven.headers if told)["x-error-attempts"] == b"2"


def test_a_wrong_number_of_entries_is_not_asked_for_again() -> None:
    calls = []

    class Short(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Number]:
            calls.append(len(messages))
            return []

    driven = Driven(flow(Short.with_retry(EVEN)))
    driven.run([of(0), of(1)], 0.0)
    assert (calls, driven.out["errors"]) == ([2], [0, 1])


@pytest.mark.parametrize("attempts", [1, 5])
def test_what_ends_a_program_ends_the_run_at_any_attempt(attempts: int) -> None:
    raised = iter([*[OSError()] * (attempts - 1), SystemExit(3)])

    @step(retry=Retry(9, wait_jitter_ms=0))
    def ask(number: Number) -> Number:
        raise next(raised)

    driven = Driven(flow(ask))

    def run() -> None:
        driven.run([of(1)], 0.0)
        driven.run_out(0.0)

    with pytest.raises(RunEndedError):
        run()


# ---- by hand: the end, lost logs, limits


def test_at_the_end_of_input_the_waits_go_on_to_the_last_attempt() -> None:
    service = Service({0: 2, 1: 99})
    driven = Driven(flow(service.function()))
    driven.run([of(0), of(1)], 0.0, EndMark.INPUT)
    assert not driven.stage.ended
    assert driven.run_out(0.0) == pytest.approx(0.7)
    assert (driven.out["out"], driven.out["errors"]) == ([0], [1])


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_stop_discards_what_waits_and_leaves_its_offset_where_it_is(delivery: str) -> None:
    service = Service({1: 99})
    driven = Driven(flow(service.function()), delivery)
    driven.run([of(0), of(1), of(2)], 0.0)
    driven.run([], 0.05, EndMark.STOP)
    assert driven.stage.ended
    assert (driven.out["out"], driven.out["errors"], driven.safe) == ([0], [], {P0: 1})
    assert service.calls.count(1) == 1


@pytest.mark.parametrize("delivery", ["at_most_once", None])
def test_where_offsets_are_committed_already_a_stop_makes_one_last_attempt(delivery: str | None) -> None:
    service = Service({1: 99, 2: 1})
    driven = Driven(flow(service.function()), delivery)
    driven.run([of(0), of(1), of(2)], 0.0)
    driven.run([], 0.05, EndMark.STOP)
    assert driven.stage.ended
    assert (driven.out["out"], driven.out["errors"]) == ([0, 2], [1])
    assert [told["x-error-attempts"] for told in driven.headers if told] == [b"2"]


def test_records_of_a_log_that_is_gone_are_still_tried_and_hold_up_no_position() -> None:
    service = Service({0: 2, 10: 1})
    driven = Driven(flow(service.function()))
    driven.run([of(0), of(10, 1, 0), of(11, 1, 1)], 0.0)
    driven.stage.run(SourceBatch(driven.stage, (), {}, 0.01, gone=GoneLogs([P0])))
    assert P0 not in driven.stage.room.safe({})
    driven.run_out(0.02)
    assert sorted(driven.out["out"]) == [0, 10, 11]
    assert driven.counts.inputs_written == 3
    assert P0 not in driven.stage.room.safe({})


def test_records_of_a_partition_that_is_anothers_now_are_not_called_again() -> None:
    service = Service({0: 1, 10: 1})
    driven = Driven(flow(service.function()))
    driven.run([of(0), of(1), of(10, 1, 0)], 0.0)
    given_up = SourceBatch(driven.stage, (), {}, 0.05)
    given_up.discarded = frozenset([P0])
    driven.stage.run(given_up)
    driven.run([], 0.1)
    assert service.calls == [0, 1, 10, 10]
    assert (driven.out["out"], driven.stage.room.kept()) == ([10], 0)
    assert driven.safe == {P0: 0, P1: 1}
    assert driven.stage.room.safe({}) == {}


def test_a_full_place_takes_the_credit_away_and_gives_it_back() -> None:
    calls: Counter[int] = Counter()

    @step(retry=Retry(2, wait_jitter_ms=0))
    def ask(number: Number) -> Number:
        calls[number.n] += 1
        if calls[number.n] == 1:
            raise OSError
        return number

    driven = Driven(flow(ask))
    driven.run([of(n) for n in range(9_999)], 0.0)
    assert driven.stage.room.credit(500) == 1
    driven.run([of(9_999)], 0.0)
    assert driven.stage.room.credit(500) == 0
    driven.run([], 0.1)
    assert driven.stage.room.credit(600) == 500
    # No tick takes arbitrarily long: what is left is still due.
    due = driven.stage.room.due()
    assert due is not None
    assert due <= 0.1
    driven.run_out(0.1)
    assert driven.out["out"] == list(range(10_000))


# ---- the loop


def loop_of(policy: Retry | None) -> str:
    found = generated(Driven(flow(Service().function(policy), Service().function(None, "then"))).stage.head)
    assert found is not None
    return found.source


def test_a_policy_does_not_change_the_loop() -> None:
    assert loop_of(EVEN) == loop_of(None)


# ---- compiling


def test_the_plan_tells_of_the_policy_and_plans_are_equal_by_it() -> None:
    class Ask(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Number:
            return message.payload

    plan = plan_of(flow(Ask.with_retry(Retry(7))))
    assert "up to 7 attempts" in plan.explain()
    assert plan == plan_of(flow(Ask.with_retry(Retry(7))))
    assert plan != plan_of(flow(Ask.with_retry(Retry(6))))
    assert plan != plan_of(flow(Ask))


def test_a_wrong_step_with_a_policy_is_reported_by_its_own_name() -> None:
    class Wrong(RecordStep[int, int]):
        def execute(self, message: Message[int]) -> int:
            return message.payload

    with pytest.raises(CompilationError, match="wrong does not take what arrives"):
        plan_of(flow(Wrong.with_retry(Retry())))


@pytest.mark.parametrize(
    ("policy", "fits"),
    [
        (Retry(), True),
        (Retry(8, wait_max_ms=30_000, wait_jitter_ms=0), True),
        (Retry(9, wait_initial_ms=200, wait_max_ms=30_000), False),
        (Retry(9, wait_initial_ms=200, wait_max_ms=30_000, timeout_ms=30_000), True),
        (Retry(2, wait_initial_ms=31_000, wait_max_ms=31_000), False),
    ],
)
def test_under_exactly_once_no_record_may_wait_longer_than_half_a_transaction(policy: Retry, fits: bool) -> None:
    declared = flow(Service().function(policy))
    plan_of(declared, "at_least_once")
    if fits:
        plan_of(declared, "exactly_once")
        return
    with pytest.raises(CompilationError) as refused:
        plan_of(declared, "exactly_once")
    (issue,) = refused.value.errors
    assert (issue.code, issue.path) == (Code.DELIVERY_UNKEPT, (0,))
    assert issue.expected == "waits of at most 30000 ms together, half of transaction.timeout.ms"


def test_under_exactly_once_waits_that_a_step_asks_for_end_in_time_too() -> None:
    service = Service({0: 99}, lambda: RetryAfter(20))
    driven = Driven(flow(service.function(Retry(9, wait_max_ms=20_000, wait_initial_ms=1))), "exactly_once")
    driven.run([of(0)], 0.0)
    assert driven.run_out(0.0) == pytest.approx(20.0)
    assert driven.out["errors"] == [0]


# ---- in the test kit, and on the engine


def test_in_the_test_kit_time_moves_only_as_the_test_says_until_the_input_is_over() -> None:
    service = Service({0: 2})
    runner = StreamingTestRunner.from_flow(flow(service.function()))
    runner.with_payloads([Number(0)]).advance(99).with_payloads([Number(1)]).advance(1).with_payloads([Number(2)]).run()
    assert service.calls == [0, 1, 0, 2, 0]
    assert [message.payload.n for message in runner.output] == [0, 1, 2]


def test_in_the_test_kit_a_record_that_fails_to_the_end_is_an_envelope_with_its_attempts() -> None:
    runner = StreamingTestRunner.from_flow(flow(Service({0: 99}).function(Retry(3)), errors=None))
    runner.with_payloads([Number(0), Number(1)]).capture_errors().run()
    (envelope,) = runner.errors[ErrorKind.TASK]
    assert (envelope.attempts, envelope.error_type, envelope.step_id) == (3, "builtins.OSError", "retrying.ask")
    assert [message.payload.n for message in runner.output] == [1]
    assert runner.counts.retries == {"retrying.ask": 2}


def test_the_test_kit_draws_the_same_jitter_in_each_run() -> None:
    def times() -> list[float]:
        found: list[float] = []
        runner = StreamingTestRunner.from_flow(flow(step(lambda_step(found, lambda: runner._clock.now), retry=Retry())))
        runner.with_payloads([Number(n) for n in range(5)]).run()
        return found

    assert times() == times()


def lambda_step(found: list[float], now: Callable[[], float]) -> Any:
    def ask(number: Number) -> Number:
        found.append(now())
        if len(found) < 12:
            raise OSError
        return number

    return ask


def test_the_test_kit_gets_past_a_stage_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[int] = Counter()

    @step(retry=Retry(2))
    def ask(number: Number) -> Number:
        calls[number.n] += 1
        if calls[number.n] == 1:
            raise OSError
        return number

    monkeypatch.setattr(retrying, "_MOST_KEPT", 30)
    runner = StreamingTestRunner.from_flow(flow(ask)).with_payloads(Number(n) for n in range(100)).run()
    assert [message.payload.n for message in runner.output] == list(range(100))


def test_on_the_engine_the_waits_pass_by_themselves() -> None:
    service = Service({1: 2, 2: 99})
    quick = Retry(3, wait_initial_ms=5, wait_jitter_ms=5, wait_max_ms=20)
    ran = in_memory(flow(service.function(quick), errors=None), numbers(0, 1, 2, 3))
    assert [payload.n for payload in ran.payloads()] == [0, 1, 3]
    assert [envelope.attempts for envelope in ran.errors[ErrorKind.TASK]] == [3]
    assert service.calls.count(2) == 3


# ---- any schedule


class Plan(LoomFrozenStruct):
    """What happens to one record, and what arrives with it."""

    partition: int
    failures: int
    #: milliseconds that pass before it arrives
    pause: int
    gives_up: bool


plans = st.lists(
    st.builds(
        Plan,
        st.integers(0, 2),
        st.sampled_from([0, 0, 0, 1, 2, 3, 99]),
        st.sampled_from([0, 0, 1, 40, 150, 900]),
        st.booleans(),
    ),
    min_size=1,
    max_size=25,
)


@given(
    planned=plans,
    delivery=st.sampled_from(["at_least_once", "exactly_once"]),
    stops_at=st.none() | st.integers(0, 25),
    two_ways=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_whatever_fails_whenever_order_positions_and_books_are_kept(
    planned: list[Plan], delivery: str, stops_at: int | None, two_ways: bool
) -> None:
    calls: Counter[int] = Counter()

    @step(retry=Retry(3, wait_jitter_ms=50))
    def ask(number: Number) -> Number:
        calls[number.n] += 1
        plan = planned[number.n]
        if calls[number.n] <= plan.failures:
            raise NotFound("no") if plan.gives_up and calls[number.n] == 2 else OSError("down")
        return number

    nodes: tuple[Any, ...] = (ask,)
    if two_ways:
        ways = {0: Process(ask, IntoTopic("out")), 1: Process(IntoTopic("out"))}
        nodes = (Fork.by(lambda number: number.n % 2, ways),)
    errors = [
        ErrorRoute(ErrorKind.TASK, IntoTopic("errors")),
        ErrorRoute(ErrorKind.BUSINESS, IntoTopic("errors.business")),
    ]
    driven = Driven(flow(*nodes, output=None if two_ways else IntoTopic("out"), errors=errors), delivery)
    offsets: Counter[int] = Counter()
    place: dict[int, tuple[int, int]] = {}
    at, read = 0.0, 0
    for n, plan in enumerate(planned):
        if n == stops_at:
            break
        at += plan.pause / 1000
        while (due := driven.stage.room.due()) is not None and due < at:
            driven.run([], due)
        place[n] = (plan.partition, offsets[plan.partition])
        offsets[plan.partition] += 1
        driven.run([of(n, *place[n])], at)
        read += 1
        # What has left is complete up to the position of its partition.
        left = {n for topic in driven.out.values() for n in topic}
        for seen, (partition, offset) in place.items():
            if offset < driven.safe.get(TopicPartition("numbers", partition), 0):
                assert seen in left
            elif delivery == "exactly_once":
                assert seen not in left
    stopped = stops_at is not None and stops_at < len(planned)
    driven.run_out(at, EndMark.STOP if stopped else EndMark.INPUT)

    for topic in driven.out.values():
        for partition in range(3):
            of_partition = [n for n in topic if place[n][0] == partition]
            assert of_partition == sorted(of_partition)
    left_all = [n for topic in driven.out.values() for n in topic]
    assert len(left_all) == len(set(left_all))
    for n, plan in enumerate(planned[:read]):
        retried = not two_ways or n % 2 == 0
        tries = calls[n]
        if retried:
            assert 1 <= tries <= 3
        if n not in left_all:
            assert stopped
            partition, offset = place[n]
            assert driven.safe[TopicPartition("numbers", partition)] <= offset
            continue
        if not retried:
            assert n in driven.out["out"]
        elif plan.failures >= 2 and plan.gives_up:
            assert (n in driven.out["errors.business"], tries) == (True, 2)
        elif plan.failures >= 3:
            assert (n in driven.out["errors"], tries) == (True, 3)
        else:
            assert (n in driven.out["out"], tries) == (True, plan.failures + 1)
    counts = driven.counts
    if not stopped:
        assert sorted(left_all) == list(range(len(planned)))
        assert counts.read == counts.inputs_written + counts.inputs_dropped + counts.inputs_failed.total()
        assert driven.safe == {TopicPartition("numbers", p): offset for p, offset in offsets.items()}
