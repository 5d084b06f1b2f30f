"""`CollectBatch`, `ForEach`, `Drain`: batches close when they are full or have waited long enough, and hold positions.

The clock is the test's own; the first section drives a stage by hand.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    CollectBatch,
    Drain,
    ErrorKind,
    ForEach,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    StreamFlow,
    StreamShape,
    compile_flow,
)
from loom.streaming.kafka import KafkaRecord, TopicPartition
from loom.streaming.kafka.record_accessor import RECORDS
from loom.streaming.metrics import Counts
from loom.streaming.runtime.output_table import output_table_of
from loom.streaming.runtime.stages.fuse import build_stage
from loom.streaming.runtime.stages.stage_io import EndMark, GoneLogs, SourceBatch, StageResults
from tests.support.running import config_for, in_memory, into_topics, numbers, records


class Number(LoomFrozenStruct):
    n: int


P0, P1 = TopicPartition("numbers", 0), TopicPartition("numbers", 1)


def noting(sizes: list[list[int]]) -> type[BatchStep[Number, Number]]:
    """A batch step that writes down what it is handed."""

    class Noting(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Number]:
            sizes.append([message.payload.n for message in messages])
            return [message.payload for message in messages]

    return Noting


def flow(*nodes: Any, output: Any = IntoTopic("out")) -> StreamFlow[Any, Any]:  # noqa: B008
    return StreamFlow("collecting", FromTopic("numbers", Number), Process(*nodes), output, IntoTopic("errors"))


class Driven:
    """A stage and a clock in hundredths of a second."""

    def __init__(self, declared: StreamFlow[Any, Any], delivery: str | None = "at_least_once") -> None:
        consumer = {"delivery": delivery} if delivery is not None else {}
        plan = compile_flow(declared, config=config_for(consumer=consumer))
        self.counts = Counts()
        slots = output_table_of(plan, sink=None, terminal_sinks=None, error_sinks=None).slots
        self.stage = build_stage(plan, slots, RECORDS, self.counts, lambda envelope: None)

    def run(self, items: list[KafkaRecord], at: float, end: EndMark | None = None) -> StageResults:
        moved = {TopicPartition(i.topic, i.partition or 0): (i.offset or 0) + 1 for i in items}
        return self.stage.run(SourceBatch(self.stage, items, moved, at, end))

    def lose(self, *partitions: TopicPartition) -> StageResults:
        """Their topic was deleted, or recreated."""
        return self.stage.run(SourceBatch(self.stage, (), {}, 0.0, gone=GoneLogs(partitions)))

    def hand_over(self, *partitions: TopicPartition) -> StageResults:
        """Another process has them now."""
        batch = SourceBatch(self.stage, (), {}, 0.0)
        batch.discarded = frozenset(partitions)
        return self.stage.run(batch)


def of(n: int, partition: int = 0, offset: int | None = None) -> KafkaRecord:
    return KafkaRecord("numbers", None, b'{"n":%d}' % n, {}, partition, n if offset is None else offset)


# ---- by hand


def test_a_batch_closes_when_it_is_full_and_never_holds_more() -> None:
    sizes: list[list[int]] = []
    driven = Driven(flow(CollectBatch(3, timeout_ms=60_000), noting(sizes), ForEach()))
    driven.run([of(n) for n in range(7)], 0.0)
    assert sizes == [[0, 1, 2], [3, 4, 5]]
    assert driven.run([of(7), of(8)], 0.0).safe == {P0: 9}
    assert sizes[-1] == [6, 7, 8]


def test_a_batch_closes_when_its_first_record_has_waited_long_enough_and_not_a_moment_before() -> None:
    sizes: list[list[int]] = []
    driven = Driven(flow(CollectBatch(9, timeout_ms=50), noting(sizes), ForEach()))
    driven.run([of(0)], 1.0)
    assert driven.stage.room.due() == pytest.approx(1.05)
    driven.run([of(1)], 1.04)
    driven.run([], 1.049)
    assert sizes == []
    # What arrives with the tick is still taken along.
    driven.run([of(2)], 1.05)
    assert sizes == [[0, 1, 2]]
    assert driven.stage.room.due() is None


def test_the_clock_of_the_next_batch_starts_with_its_own_first_record() -> None:
    sizes: list[list[int]] = []
    driven = Driven(flow(CollectBatch(2, timeout_ms=50), noting(sizes), ForEach()))
    driven.run([of(0), of(1)], 1.0)
    driven.run([of(2)], 1.03)
    driven.run([], 1.06)
    assert sizes == [[0, 1]]
    driven.run([], 1.08)
    assert sizes == [[0, 1], [2]]


@given(
    most=st.integers(1, 4),
    timeout_ms=st.sampled_from([10, 50]),
    batches=st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0, 3, 10, 49, 50, 90])), max_size=10),
)
def test_no_batch_is_too_large_and_no_record_waits_longer_than_it_may(
    most: int, timeout_ms: int, batches: list[tuple[int, int]]
) -> None:
    sizes: list[list[int]] = []
    driven = Driven(flow(CollectBatch(most, timeout_ms=timeout_ms), noting(sizes), ForEach()))
    came: dict[int, int] = {}
    now_ms, number = 0, 0
    for size, later_ms in batches:
        now_ms += later_ms
        items = [of(n) for n in range(number, number + size)]
        came |= dict.fromkeys(range(number, number + size), now_ms)
        number += size
        driven.run(items, now_ms / 1000)
        done = sum(map(len, sizes))
        assert all(len(batch) <= most for batch in sizes)
        # Whatever still waits has come no longer than the time-out ago (which rounding may add to).
        assert all(now_ms - came[n] <= timeout_ms for n in range(done, number))
    assert [n for batch in sizes for n in batch] == list(range(sum(map(len, sizes))))


def test_a_record_that_waits_holds_the_position_of_its_partition_and_of_no_other() -> None:
    driven = Driven(flow(CollectBatch(3, timeout_ms=60_000), ForEach()))
    came = driven.run([of(0), of(0, 1), of(1, 1), of(1), of(2, 1), of(3, 1)], 0.0)
    assert len(came.results) == 6
    assert came.safe == {P0: 2, P1: 4}
    came = driven.run([of(4, 1), of(2)], 0.0)
    assert (came.results, came.safe) == ([], {P0: 2, P1: 4})
    came = driven.run([of(5, 1)], 0.0)
    assert (len(came.results), came.safe) == (3, {P0: 3, P1: 6})


def test_a_position_moves_only_to_the_oldest_record_that_waits_anywhere() -> None:
    """Two collecting nodes in a row: what has left the first may wait in the second."""
    one, two = CollectBatch(1, timeout_ms=60_000, name="one"), CollectBatch(3, timeout_ms=60_000, name="two")
    driven = Driven(flow(one, ForEach(), two, ForEach()))
    assert driven.run([of(0), of(1)], 0.0).safe == {P0: 0}
    assert driven.run([of(2)], 0.0).safe == {P0: 3}


def test_a_record_of_a_log_that_is_gone_is_worked_on_and_holds_no_position() -> None:
    driven = Driven(flow(CollectBatch(5, timeout_ms=60_000), ForEach()))
    assert driven.run([of(500), of(7, 1)], 0.0).safe == {P0: 500, P1: 7}
    came = driven.lose(P0)
    assert (came.results, came.safe) == ([], {})
    assert came.batch.gone is not None
    # The partition begins anew in another log.
    assert driven.run([of(0)], 0.0).safe == {P0: 0}
    came = driven.run([of(1), of(8, 1)], 0.0)
    assert [result[1] for result in came.results] == [b'{"n":%d}' % n for n in (500, 7, 0, 1, 8)]
    assert came.safe == {P0: 2, P1: 9}


def test_a_record_discarded_from_a_log_that_is_gone_holds_no_position_in_the_next_one() -> None:
    driven = Driven(flow(CollectBatch(5, timeout_ms=60_000), ForEach()))
    driven.run([of(5), of(6, 1)], 0.0, EndMark.STOP)
    driven.lose(P0)
    assert driven.run([of(9, 1)], 0.0).safe == {P1: 6}


def test_results_behind_a_record_of_a_log_that_is_gone_still_leave_in_the_order_in_which_they_came() -> None:
    two = (CollectBatch(2, timeout_ms=60_000), ForEach(), CollectBatch(4, timeout_ms=60_000, name="two"), ForEach())
    driven = Driven(flow(*two))
    driven.run([of(100), of(101), of(102)], 0.0)
    driven.lose(P0)
    came = driven.run([of(0)], 0.0)
    assert [result[1] for result in came.results] == [b'{"n":%d}' % n for n in (100, 101, 102, 0)]
    assert came.safe == {P0: 1}


def test_what_is_kept_of_a_partition_that_another_process_has_is_dropped_and_holds_no_position() -> None:
    driven = Driven(flow(CollectBatch(4, timeout_ms=60_000), ForEach()))
    assert driven.run([of(5), of(7, 1), of(6)], 0.0).safe == {P0: 5, P1: 7}
    came = driven.hand_over(P0)
    assert (came.results, came.safe) == ([], {})
    # It comes back, and begins where the other process has left it.
    came = driven.run([of(9), of(8, 1), of(9, 1)], 0.0)
    assert [result[1] for result in came.results] == [b'{"n":%d}' % n for n in (7, 9, 8, 9)]
    assert came.safe == {P0: 10, P1: 10}


def test_results_held_back_of_a_partition_that_another_process_has_never_leave() -> None:
    two = (CollectBatch(2, timeout_ms=60_000), ForEach(), CollectBatch(4, timeout_ms=60_000, name="two"), ForEach())
    driven = Driven(flow(*two))
    driven.run([of(100), of(101), of(102)], 0.0)
    assert driven.hand_over(P0).results == []
    came = driven.run([of(3, 1), of(4, 1), of(5, 1), of(6, 1)], 0.0)
    assert [result[1] for result in came.results] == [b'{"n":%d}' % n for n in (3, 4, 5, 6)]
    assert came.safe == {P1: 7}


def test_the_end_of_input_emits_what_waits() -> None:
    driven = Driven(flow(CollectBatch(9, timeout_ms=60_000), ForEach()))
    driven.run([of(0)], 0.0)
    came = driven.run([], 0.0, EndMark.INPUT)
    assert (len(came.results), came.safe, driven.stage.ended) == (1, {P0: 1}, True)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_stop_discards_what_waits_and_leaves_it_unconfirmed_where_positions_count(delivery: str) -> None:
    driven = Driven(flow(CollectBatch(2, timeout_ms=60_000), ForEach()), delivery)
    assert driven.run([of(0), of(1), of(2)], 0.0).safe == {P0: 2}
    came = driven.run([], 0.0, EndMark.STOP)
    assert (came.results, came.safe, driven.stage.ended) == ([], {}, True)
    assert driven.counts.inputs_written == 2


@pytest.mark.parametrize("delivery", ["at_most_once", None])
def test_a_stop_emits_what_waits_where_its_position_is_confirmed_already(delivery: str | None) -> None:
    driven = Driven(flow(CollectBatch(2, timeout_ms=60_000), ForEach()), delivery)
    driven.run([of(0), of(1), of(2)], 0.0)
    came = driven.run([], 0.0, EndMark.STOP)
    assert (len(came.results), came.safe) == (1, {P0: 3})


def odd(number: Number) -> bool:
    return number.n % 2 == 1


def waiting_branch(topic: str) -> Any:
    from loom.streaming import Fork

    collected = Process(CollectBatch(2, timeout_ms=60_000), ForEach(), IntoTopic(topic))
    return Fork.by(odd, {True: collected}, default=Process(IntoTopic("out")))


def test_under_exactly_once_what_leaves_is_the_prefix_before_the_position() -> None:
    driven = Driven(flow(waiting_branch("odd"), output=None), "exactly_once")
    came = driven.run([of(0), of(1), of(2)], 0.0)
    assert ([r[1] for r in came.results], came.safe) == ([b'{"n":0}'], {P0: 1})
    came = driven.run([of(3), of(4)], 0.0)
    assert [r[1] for r in came.results] == [b'{"n":%d}' % n for n in (1, 2, 3, 4)]
    assert came.safe == {P0: 5}


def test_otherwise_an_output_that_nobody_waits_for_is_not_held_up() -> None:
    driven = Driven(flow(waiting_branch("odd"), output=None))
    came = driven.run([of(0), of(1), of(2)], 0.0)
    assert ([r[1] for r in came.results], came.safe) == ([b'{"n":0}', b'{"n":2}'], {P0: 1})


def test_an_output_that_records_reach_on_several_ways_keeps_the_order_of_the_source() -> None:
    driven = Driven(flow(waiting_branch("out"), output=None))
    came = driven.run([of(0), of(1), of(2)], 0.0)
    assert [r[1] for r in came.results] == [b'{"n":0}']
    came = driven.run([of(3)], 0.0)
    assert [r[1] for r in came.results] == [b'{"n":1}', b'{"n":2}', b'{"n":3}']


def test_a_record_that_does_not_decode_does_not_overtake_the_errors_of_those_that_wait() -> None:
    class Refuses(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Any]:
            raise ValueError("no")

    driven = Driven(flow(CollectBatch(2, timeout_ms=60_000), Refuses, ForEach()))
    broken = KafkaRecord("numbers", None, b"{", {}, 0, 1)
    assert driven.run([of(0), broken], 0.0).results == []
    kinds = [dict(result[4])["x-error-offset"] for result in driven.run([of(2)], 0.0).results]
    assert kinds == [b"0", b"1", b"2"]


# ---- on the engine


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_an_epoch_or_a_batch_of_the_engine_never_cuts_a_batch(size: int) -> None:
    sizes: list[list[int]] = []
    line = flow(CollectBatch(3, timeout_ms=60_000), noting(sizes), ForEach())
    ran = in_memory(line, numbers(*range(8)), config=config_for(consumer={"batch_size": size}))
    assert sizes == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert [p.n for p in ran.payloads()] == list(range(8))


def test_a_batch_may_mix_partitions_and_each_keeps_its_order() -> None:
    sizes: list[list[int]] = []
    line = flow(CollectBatch(4, timeout_ms=60_000), noting(sizes), ForEach())
    items = [of(n, n % 2, n // 2) for n in range(6)]
    ran = in_memory(line, items)
    assert sizes == [[0, 1, 2, 3], [4, 5]]
    assert [p.n for p in ran.payloads()] == list(range(6))


def test_two_places_collect_each_for_itself() -> None:
    from loom.streaming import Router

    ones: list[list[int]] = []
    twos: list[list[int]] = []
    router = Router.by(
        odd,
        {True: Process(CollectBatch(2, 60_000), noting(ones), ForEach())},
        default=Process(CollectBatch(3, 60_000), noting(twos), ForEach()),
    )
    ran = in_memory(flow(router), numbers(*range(7)))
    assert (ones, twos) == ([[1, 3], [5]], [[0, 2, 4], [6]])
    assert sorted(p.n for p in ran.payloads()) == list(range(7))


def test_tombstones_wait_with_the_others_and_batch_steps_are_not_asked_about_them() -> None:
    sizes: list[list[int]] = []
    line = flow(CollectBatch(3, timeout_ms=60_000), noting(sizes), ForEach())
    topics, _ = into_topics(line, records(b'{"n":1}', None, b'{"n":2}', None))
    assert sizes == [[1, 2]]
    assert [record.value for record in topics["out"]] == [b'{"n":1}', None, b'{"n":2}', None]


def test_metadata_survives_the_wait() -> None:
    items = [KafkaRecord("numbers", b"k", b'{"n":1}', {"a": b"1"}, 0, 0, 7_000)]
    topics, _ = into_topics(flow(CollectBatch(3, timeout_ms=60_000), ForEach()), items)
    (record,) = topics["out"]
    assert (record.key, record.headers, record.timestamp_ms) == (b"k", (("a", b"1"),), 7_000)


def test_a_failing_batch_gives_every_record_an_envelope_of_its_own() -> None:
    class Refuses(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Any]:
            raise ValueError("no")

    ran = in_memory(flow(CollectBatch(2, timeout_ms=60_000), Refuses, ForEach()), numbers(1, 2, 3))
    assert [e.source.offset for e in ran.errors[ErrorKind.TASK] if e.source] == [0, 1, 2]
    assert {e.path for e in ran.errors[ErrorKind.TASK]} == {(1,)}


def test_a_batch_may_end_in_a_topic_that_takes_batches_one_record_per_message() -> None:
    line = flow(CollectBatch(2, timeout_ms=60_000), output=IntoTopic("out", shape=StreamShape.BATCH))
    topics, counts = into_topics(line, numbers(1, 2, 3))
    assert [record.value for record in topics["out"]] == [b'{"n":1}', b'{"n":2}', b'{"n":3}']
    assert counts.written == 3


def test_one_object_yielded_again_while_it_waits_is_another_record() -> None:
    again = numbers(1) * 5
    line = flow(CollectBatch(4, timeout_ms=60_000), ForEach())
    ran = in_memory(line, again, config=config_for(consumer={"batch_size": 1}))
    assert len(ran.payloads()) == 5
    assert (ran.counts.read, ran.counts.written, ran.counts.accounted) == (5, 5, 5)


@pytest.mark.parametrize("nodes", [(), (CollectBatch(2, 60_000),)], ids=["records", "batches"])
def test_a_drain_counts_what_ends_there_and_its_inputs_are_dropped(nodes: Any) -> None:
    ran = in_memory(flow(*nodes, Drain(), output=None), [*numbers(1, 2), *records(None)])
    assert ran.counts.drops == {"collecting.drain": 3}
    assert (ran.counts.dropped, ran.counts.accounted) == (3, 3)


@pytest.mark.parametrize(("most", "timeout"), [(0, 10), (-1, 10), (1, 0)])
def test_a_batch_needs_room_and_time(most: int, timeout: int) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        CollectBatch(most, timeout)
