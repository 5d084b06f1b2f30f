"""A Bytewax source in place of Kafka: whatever it is and yields, the flow works on it as it would on a topic."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bytewax.inputs import (
    DynamicSource,
    FixedPartitionedSource,
    StatefulSourcePartition,
    StatelessSourcePartition,
)
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from bytewax.testing import TestingSink, TestingSource, run_main

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    CollectBatch,
    ErrorKind,
    ExpandStep,
    ForEach,
    FromTopic,
    IntoTopic,
    Message,
    MessageMeta,
    Process,
    RecordStep,
    StreamFlow,
    Tombstone,
    compile_flow,
    step,
)
from loom.streaming.bytewax import build_dataflow, build_dataflow_with_shutdown
from loom.streaming.kafka import KafkaRecord
from tests.support.running import config_for, in_memory, numbers, records
from tests.support.waiting import LONG_S


class Number(LoomFrozenStruct):
    n: int


@step
def double(number: Number) -> Number:
    return Number(number.n * 2)


class Sizes(BatchStep[Number, Number]):
    """Turns each record into the size of the batch that it came in."""

    def execute(self, messages: list[Message[Number]]) -> list[Number]:
        return [Number(len(messages))] * len(messages)


class Unchanged(RecordStep[Number, Number]):
    def execute(self, message: Message[Number]) -> Message[Number]:
        return message


class Passing(RecordStep[Any, Any]):
    def execute(self, message: Message[Any]) -> Message[Any]:
        return message


def flow(*nodes: Any) -> StreamFlow[Any, Any]:
    return StreamFlow("doubling", FromTopic("numbers", Number), Process(*(nodes or (double,))), IntoTopic("doubled"))


@pytest.mark.both_engines
def test_records_are_decoded_and_carry_their_place() -> None:
    ran = in_memory(flow(), [KafkaRecord("numbers", b"k", b'{"n":4}', {"a": b"1"}, 2, 17, 5_000)])
    (message,) = ran.output
    assert message.payload == Number(8)
    assert message.meta == MessageMeta(
        "numbers:2:17",
        produced_at_ms=5_000,
        topic="numbers",
        partition=2,
        offset=17,
        key=b"k",
        headers={"a": b"1"},
    )


def test_messages_are_taken_as_they_are() -> None:
    meta = MessageMeta("mine", correlation_id="c", key="k", headers={"a": b"1"})
    ran = in_memory(flow(), [Message(Number(4), meta)])
    assert ran.output == [Message(Number(8), meta)]


def test_records_and_messages_may_be_mixed() -> None:
    mixed = [*numbers(1), Message(Number(2), MessageMeta("b")), *numbers(3), Message(Number(4), MessageMeta("d"))]
    ran = in_memory(flow(), mixed)
    assert ran.payloads() == [Number(2), Number(4), Number(6), Number(8)]
    assert [message.meta.message_id for message in ran.output] == ["numbers:0:0", "b", "numbers:0:0", "d"]


def test_a_record_without_a_value_is_a_tombstone_and_so_is_a_message_that_says_so() -> None:
    ran = in_memory(flow(), [*records(None, key=b"gone"), Message(Tombstone(), MessageMeta("b", key=b"too"))])
    assert ran.payloads() == [Tombstone(), Tombstone()]
    assert [message.meta.key for message in ran.output] == [b"gone", b"too"]


@pytest.mark.parametrize(
    "value",
    [b"", b"{", b'{"n":"x"}', b"{}", b"\xff\xfe", b"[" * 100_000, b"\x82", b'{"n":1} '[:-2] + b"\x00", b"null"],
    ids=["empty", "cut", "type", "missing", "no-utf-8", "deep", "envelope-head", "nul", "null"],
)
def test_bytes_that_do_not_decode_are_an_error_of_that_record_alone(value: bytes) -> None:
    ran = in_memory(flow(), records(b'{"n":1}', value, b'{"n":3}'))
    assert ran.payloads() == [Number(2), Number(6)]
    (envelope,) = ran.errors[ErrorKind.WIRE]
    assert envelope.source is not None
    assert (envelope.source.value, envelope.source.offset) == (value, 1)


def test_one_object_yielded_twice_is_two_records() -> None:
    same = numbers(1)[0]
    ran = in_memory(flow(Sizes), [same, same, same])
    assert ran.payloads() == [Number(3)] * 3
    assert (ran.counts.read, ran.counts.written) == (3, 3)


def test_one_object_yielded_twice_is_counted_and_fails_twice() -> None:
    class Halves(ExpandStep[Number, Number]):
        def execute(self, message: Message[Number]) -> list[Number]:
            if message.payload.n % 2:
                raise ValueError("odd")
            return [Number(message.payload.n // 2)] * 2

    even, odd = numbers(2, 3)
    ran = in_memory(flow(Halves), [even, odd, even, odd])
    assert (ran.counts.read, ran.counts.written, ran.counts.failed) == (4, 2, {ErrorKind.TASK: 2})
    assert ran.payloads() == [Number(1)] * 4


@pytest.mark.both_engines
def test_batches_have_the_size_they_have_in_production_however_small_the_source_makes_them() -> None:
    config = config_for(consumer={"batch_size": 4})
    ran = in_memory(flow(Sizes), TestingSource(numbers(*range(10)), batch_size=1), config=config)
    assert ran.payloads() == [Number(4)] * 8 + [Number(2)] * 2


@pytest.mark.both_engines
def test_an_empty_source_makes_an_empty_run() -> None:
    ran = in_memory(flow(), [])
    assert (ran.output, ran.counts.read) == ([], 0)


class Numbered(StatefulSourcePartition[Any, int]):
    """Some records of one part, then the end; what was asked of it is written down."""

    def __init__(self, items: list[Any], log: list[str], name: str) -> None:
        self._items, self._log, self._name = items, log, name

    def next_batch(self) -> list[Any]:
        if not self._items:
            raise StopIteration
        taken, self._items = self._items[:2], self._items[2:]
        return taken

    def snapshot(self) -> int:
        return len(self._items)

    def close(self) -> None:
        self._log.append(f"{self._name} closed")


class Parts(FixedPartitionedSource[Any, int]):
    def __init__(self, parts: dict[str, list[Any]]) -> None:
        self.parts = parts
        self.log: list[str] = []

    def list_parts(self) -> list[str]:
        return list(self.parts)

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> Numbered:
        return Numbered(list(self.parts[for_part]), self.log, for_part)


@pytest.mark.both_engines
def test_a_source_may_have_several_parts_each_in_its_own_order() -> None:
    source = Parts({"a": numbers(*range(7)), "b": numbers(*range(100, 105)), "c": []})
    ran = in_memory(flow(), source)
    found = [payload.n // 2 for payload in ran.payloads()]
    assert [n for n in found if n < 100] == list(range(7))
    assert [n for n in found if n >= 100] == list(range(100, 105))
    assert ran.counts.read == 12


@pytest.mark.both_engines
def test_every_part_of_a_source_is_closed() -> None:
    source = Parts({"a": numbers(1), "b": numbers(2)})
    in_memory(flow(), source)
    assert sorted(source.log) == ["a closed", "b closed"]


class CountDown(StatelessSourcePartition[Any]):
    def __init__(self, owner: Dynamic) -> None:
        self._owner = owner
        self._left = 3

    def next_batch(self) -> list[Any]:
        if self._left == 0:
            raise StopIteration
        self._left -= 1
        return [] if self._left == 1 else numbers(self._left)

    def close(self) -> None:
        self._owner.closed += 1


class Dynamic(DynamicSource[Any]):
    closed = 0

    def build(self, step_id: str, worker_index: int, worker_count: int) -> CountDown:
        assert (worker_index, worker_count) == (0, 1)
        return CountDown(self)


@pytest.mark.both_engines
def test_a_dynamic_source_works_too() -> None:
    source = Dynamic()
    ran = in_memory(flow(), source)
    assert ran.payloads() == [Number(4), Number(0)]
    assert source.closed == 1


class Fault(Exception):
    pass


class Failing(Parts):
    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> Numbered:
        return FailingPart(list(self.parts[for_part]), self.log, for_part)


class FailingPart(Numbered):
    def next_batch(self) -> list[Any]:
        try:
            return super().next_batch()
        except StopIteration:
            raise Fault("the source broke") from None


def test_a_source_that_fails_ends_the_run_with_what_it_raised_after_what_it_had_read() -> None:
    taken: list[Any] = []
    from bytewax.testing import TestingSink

    plan = compile_flow(flow(), config=config_for())
    built = build_dataflow_with_shutdown(plan, source=Failing({"a": numbers(1, 2, 3)}), sink=TestingSink(taken))
    with pytest.raises(Exception) as caught:
        run_main(built.dataflow)
    built.shutdown()
    assert isinstance(caught.value.__cause__, Fault) or isinstance(caught.value, Fault)
    assert [message.payload.n for message in taken] == [2, 4, 6]


@pytest.mark.bytewax
def test_an_aborting_source_aborts_the_run_as_the_engine_means_it() -> None:
    ran = in_memory(flow(), [*numbers(1, 2), TestingSource.ABORT(), *numbers(3)])
    assert ran.payloads() in ([], [Number(2)], [Number(2), Number(4)])


@pytest.mark.both_engines
def test_a_source_that_pauses_is_asked_again_when_it_wants() -> None:
    pause = timedelta(milliseconds=60)
    began = time.monotonic()
    ran = in_memory(flow(Sizes), [*numbers(1, 2), TestingSource.PAUSE(pause), *numbers(3)])
    assert time.monotonic() - began >= pause.total_seconds()
    assert ran.payloads() == [Number(2), Number(2), Number(1)]


class Forever(StatefulSourcePartition[Any, None]):
    """Never ends, and wants to be asked rarely."""

    def __init__(self, asked: threading.Event) -> None:
        self._asked = asked

    def next_batch(self) -> list[Any]:
        self._asked.set()
        return []

    def next_awake(self) -> datetime | None:
        return datetime.now(UTC) + timedelta(hours=1) if self._asked.is_set() else None

    def snapshot(self) -> None:
        return None


class Sleepy(FixedPartitionedSource[Any, None]):
    def __init__(self) -> None:
        self.asked = threading.Event()

    def list_parts(self) -> list[str]:
        return ["only"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> Forever:
        return Forever(self.asked)


def test_a_run_is_stopped_at_once_even_while_its_source_sleeps() -> None:
    source = Sleepy()
    built = build_dataflow_with_shutdown(compile_flow(flow(), config=config_for()), source=source, sink=_nowhere())

    def stop() -> None:
        source.asked.wait(LONG_S)
        built.shutdown()

    stopper = threading.Thread(target=stop)
    stopper.start()
    run_main(built.dataflow)
    stopper.join()


def test_a_message_that_cannot_be_encoded_is_an_error_like_any_other() -> None:
    @step
    def refuse(number: object) -> Number:
        raise ValueError("refused")

    ran = in_memory(flow(refuse), [Message(object(), MessageMeta("odd")), Message(Number(1), MessageMeta("good"))])
    assert ran.reasons(ErrorKind.TASK) == ["refused", "refused"]
    odd, good = ran.errors[ErrorKind.TASK]
    assert odd.original_message is not None
    assert odd.original_message.meta.message_id == "odd"
    assert good.source is not None
    assert good.source.value == b'{"n":1}'


def test_an_unencodable_message_that_no_step_refuses_goes_its_way() -> None:
    odd = Message(object(), MessageMeta("odd"))
    assert in_memory(flow(Passing), [odd]).output == [odd]


def test_a_source_that_yields_something_else_is_named_in_the_error() -> None:
    plan = compile_flow(flow(), config=config_for())
    with pytest.raises(Exception) as caught:
        run_main(build_dataflow(plan, source=TestingSource([Number(1)]), sink=_nowhere()))
    told = "".join(str(error) for error in _chain(caught.value))
    assert "KafkaRecord" in told


def _nowhere() -> Any:
    from bytewax.testing import TestingSink

    return TestingSink([])


def _chain(error: BaseException | None) -> list[BaseException]:
    from tests.support.running import causes

    return causes(error)


class Counting(FixedPartitionedSource[Any, int]):
    """Numbers from its state on, some at a time, until it is told to fail."""

    def __init__(self, end: int, *, fails: bool) -> None:
        self.end, self.fails = end, fails
        self.resumed: list[int | None] = []

    def list_parts(self) -> list[str]:
        return ["only"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> StatefulSourcePartition[Any, int]:
        self.resumed.append(resume_state)
        return CountingPart(self, resume_state or 0)


class CountingPart(StatefulSourcePartition[Any, int]):
    def __init__(self, source: Counting, at: int) -> None:
        self._source, self._at = source, at

    def next_batch(self) -> list[Any]:
        if self._at >= self._source.end:
            if self._source.fails:
                raise RuntimeError("the end of this process")
            raise StopIteration
        self._at += 2
        return [Message(Number(n), MessageMeta(message_id=str(n))) for n in (self._at - 2, self._at - 1)]

    def snapshot(self) -> int:
        return self._at


def test_records_that_a_node_kept_when_a_run_failed_are_read_again_from_a_recovery_store(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    flow = StreamFlow(
        "kept",
        FromTopic("numbers", Number),
        Process(CollectBatch(5, timeout_ms=60_000), ForEach(), double),
        IntoTopic("out"),
    )
    written: list[Any] = []

    def run(source: Counting) -> None:
        plan = compile_flow(flow, config=config_for(consumer={"batch_size": 4}))
        built = build_dataflow_with_shutdown(plan, source=source, sink=TestingSink(written))
        try:
            cli_main(built.dataflow, recovery_config=RecoveryConfig(tmp_path), epoch_interval=timedelta(0))
        finally:
            built.shutdown()

    with pytest.raises(RuntimeError):
        run(Counting(24, fails=True))
    # Twenty have left in fours of five; four are kept, and a state behind them would lose them.
    assert {message.payload.n // 2 for message in written} == set(range(20))
    again = Counting(26, fails=False)
    run(again)
    assert again.resumed[0] is not None
    assert again.resumed[0] <= 20
    assert {message.payload.n // 2 for message in written} == set(range(26))
