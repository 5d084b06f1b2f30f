"""The table of offsets: what is committed was durable, what is given up is never committed, from one thread and from many."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Mapping

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from loom.core.observability import ObservabilityRuntime
from loom.streaming import compile_flow
from loom.streaming.kafka import TopicPartition
from loom.streaming.runtime.offsets import IllegalMoveError, OffsetTable
from loom.streaming.runtime.output_table import output_table_of
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.telemetry.flow_metrics import FlowMetricsSource
from tests.streaming.runtime.stages.doubling import flow, function
from tests.support.running import config_for

A, B, C = (TopicPartition("numbers", number) for number in range(3))


def test_an_offset_is_committable_once_it_was_completed_and_an_epoch_has_ended() -> None:
    table = OffsetTable()
    worker = table.worker()
    worker.take_up({A: 5}, committed=True)
    worker.advance({A: 9})
    assert worker.uncommitted() == {}
    table.complete({A: 8}, table.generation)
    assert (table.pending(), worker.uncommitted()) == ({A: 8}, {})
    table.publish()
    assert (table.pending(), worker.uncommitted()) == ({}, {A: 8})
    worker.committed({A: 8})
    assert worker.uncommitted() == {}
    assert (worker.restarts(), worker.reads()) == ({A: 8}, {A: 9})


def test_what_comes_late_for_a_row_that_was_given_up_is_ignored_and_counted() -> None:
    table = OffsetTable()
    worker = table.worker()
    worker.take_up({A: 500, B: 0}, committed=True)
    before = table.generation
    worker.give_up([A])
    worker.take_up({A: 0}, committed=True)
    table.complete({A: 600, B: 3}, before)
    table.publish()
    assert worker.uncommitted() == {B: 3}
    assert table.late == 1
    table.complete({A: 2}, table.generation)
    table.publish()
    assert worker.uncommitted() == {A: 2, B: 3}


def test_what_comes_late_is_a_metric() -> None:
    plan = compile_flow(flow(function), config=config_for())
    state = RunState(ObservabilityRuntime())
    outputs = output_table_of(plan, sink=None, terminal_sinks=None, error_sinks=None)
    metrics = FlowMetricsSource(plan, outputs, state, None, reads_kafka=False)

    def told() -> list[float]:
        return [
            value
            for samples in metrics.metrics()
            if samples.metric.name == "loom_late_batches_total"
            for value in samples.values.values()
        ]

    state.offsets.worker().take_up({A: 0, B: 0}, committed=True)
    before = state.offsets.generation
    assert told() == [0]
    state.offsets.revoke([A])
    state.offsets.complete({A: 3, B: 3}, before)
    assert told() == [1]


def test_an_epoch_that_holds_a_row_that_is_gone_is_not_current() -> None:
    table = OffsetTable()
    worker = table.worker()
    worker.take_up({A: 0, B: 0}, committed=False)
    table.complete({A: 4, B: 4}, table.generation)
    assert table.is_current
    table.revoke([A])
    worker.take_up({C: 0}, committed=False)
    assert not table.is_current
    table.publish()
    assert table.is_current
    # What comes late was written with the rest.
    table.complete({A: 5}, 1)
    assert not table.is_current
    table.abandon()
    assert (table.is_current, table.pending(), table.row(B)) == (True, {}, None)


def test_a_member_says_the_positions_of_what_it_was_given_in_its_own_name() -> None:
    table = OffsetTable()
    worker = table.worker()
    worker.take_up({A: 5, B: 7}, committed=True)
    worker.hold({A: 1, B: 2})
    assert worker.tenures([A, B, C]) == {A: 1, B: 2}
    assert worker.uncommitted(3600) == {A: 5, B: 7}
    worker.committed({A: 5, B: 7})
    assert worker.uncommitted(3600) == {}
    worker.advance({A: 6})
    assert worker.uncommitted(as_read=True) == {A: 6}


def test_what_was_completed_before_a_row_was_given_up_is_not_sent_with_the_next_epoch() -> None:
    table = OffsetTable()
    worker = table.worker()
    worker.take_up({A: 0, B: 0}, committed=False)
    table.complete({A: 4, B: 4}, table.generation)
    worker.give_up([A])
    assert table.pending() == {B: 4}


def test_a_partition_has_one_row() -> None:
    table = OffsetTable()
    one, other = table.worker(), table.worker()
    one.take_up({A: 0}, committed=True)
    with pytest.raises(IllegalMoveError, match="taken up already"):
        other.take_up({A: 0}, committed=True)
    one.give_up([A])
    other.take_up({A: 3}, committed=True)
    assert other.restarts() == {A: 3}


def test_a_commit_of_what_was_never_taken_up_is_a_fault() -> None:
    worker = OffsetTable().worker()
    worker.expect(A)
    with pytest.raises(IllegalMoveError, match="never taken up"):
        worker.committed({A: 3})


def test_what_a_recovery_store_holds_counts_until_something_is_durable() -> None:
    table = OffsetTable()
    worker = table.worker()
    worker.expect(A, 7)
    worker.expect(B)
    assert worker.expected() == {A: 7, B: None}
    worker.take_up({A: 7, B: 0}, committed=False)
    assert worker.expected() == {}
    row = table.row(A)
    assert row is not None
    assert (row.resume, row.start, row.restart) == (7, 7, 7)


def test_the_views_are_live_and_hold_what_is_known() -> None:
    table = OffsetTable()
    worker = table.worker()
    read, durable = worker.read(), worker.durable()
    worker.expect(A)
    assert (dict(read), dict(durable), len(read)) == ({}, {}, 0)
    worker.take_up({A: 2}, committed=False)
    table.complete({A: 3}, table.generation)
    table.publish()
    assert (dict(read), dict(durable), durable.get(B, -1)) == ({A: 2}, {A: 3}, -1)


class Moves(RuleBasedStateMachine):
    """Two workers, a sink part and the batches between them, held against plain dictionaries.

    A batch is (partition, offset, life): the life of a partition is new each time it is taken up.
    """

    partitions = st.sampled_from([A, B, C])

    @initialize()
    def begin(self) -> None:
        self.table = OffsetTable()
        self.workers = [self.table.worker(), self.table.worker()]
        self.owner: dict[TopicPartition, int] = {}
        self.life: dict[TopicPartition, int] = {}
        self.start: dict[TopicPartition, int] = {}
        self.read: dict[TopicPartition, int] = {}
        self.on_the_way: list[deque[tuple[TopicPartition, int, int, int]]] = [deque(), deque()]
        self.completed: dict[TopicPartition, int] = {}
        self.durable: dict[TopicPartition, int] = {}
        self.committed: dict[TopicPartition, int] = {}

    @rule(partition=partitions, worker=st.integers(0, 1), start=st.integers(0, 5))
    def take_up(self, partition: TopicPartition, worker: int, start: int) -> None:
        if partition in self.owner:
            if self.owner[partition] != worker:
                with pytest.raises(IllegalMoveError):
                    self.workers[worker].take_up({partition: start}, committed=True)
            return
        self.workers[worker].take_up({partition: start}, committed=True)
        self.owner[partition] = worker
        self.life[partition] = self.life.get(partition, 0) + 1
        self.start[partition] = self.read[partition] = self.committed[partition] = start

    @rule(partition=partitions, records=st.integers(1, 9))
    def hand_on(self, partition: TopicPartition, records: int) -> None:
        if partition not in self.owner:
            return
        worker = self.owner[partition]
        self.read[partition] += records
        self.workers[worker].advance({partition: self.read[partition]})
        self.on_the_way[worker].append((partition, self.read[partition], self.life[partition], self.table.generation))

    @rule(worker=st.integers(0, 1))
    def arrive(self, worker: int) -> None:
        if not self.on_the_way[worker]:
            return
        partition, offset, life, generation = self.on_the_way[worker].popleft()
        self.table.complete({partition: offset}, generation)
        if partition in self.owner and self.life[partition] == life:
            self.completed[partition] = offset

    @rule()
    def end_epoch(self) -> None:
        assert self.table.pending() == self.completed
        self.table.publish()
        self.durable.update(self.completed)
        self.completed.clear()

    @rule(worker=st.integers(0, 1))
    def commit(self, worker: int) -> None:
        found = self.workers[worker].uncommitted()
        assert found == {
            p: offset
            for p, offset in self.durable.items()
            if self.owner.get(p) == worker and offset != self.committed[p]
        }
        self.workers[worker].committed(found)
        self.committed.update(found)

    @rule(partition=partitions)
    def revoke(self, partition: TopicPartition) -> None:
        if partition not in self.owner:
            return
        self.workers[self.owner.pop(partition)].give_up([partition])
        for column in (self.start, self.read, self.completed, self.durable, self.committed):
            column.pop(partition, None)

    @rule()
    def begin_again(self) -> None:
        self.table.abandon()
        self.completed.clear()
        begun: dict[TopicPartition, int] = {}
        for worker in self.workers:
            begun |= worker.go_back()
        self.start = {p: self.durable.get(p, self.start[p]) for p in self.owner}
        assert begun == self.start
        self.read.update(begun)
        for partition in begun:
            self.life[partition] += 1

    @precondition(lambda self: self.owner)
    @invariant()
    def readers_see_what_is(self) -> None:
        seen: dict[TopicPartition, int] = {}
        reads: dict[TopicPartition, int] = {}
        for worker in self.workers:
            seen |= worker.restarts()
            reads |= worker.reads()
        assert seen == {p: self.committed[p] for p in self.owner}
        assert reads == {p: self.read[p] for p in self.owner}


TestMoves = Moves.TestCase
TestMoves.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_from_real_threads_nothing_of_a_generation_that_was_given_up_is_ever_committed() -> None:
    """Each life of a partition has offsets of its own range, so a commit shows which life it is of."""
    table = OffsetTable()
    partitions = [TopicPartition("numbers", number) for number in range(8)]
    sent: deque[tuple[Mapping[TopicPartition, int], int]] = deque()
    over, wrong = threading.Event(), list[str]()

    def work(own: list[TopicPartition], seed: int) -> None:
        choose = random.Random(seed)
        worker = table.worker()
        life = dict.fromkeys(own, 0)
        at: dict[TopicPartition, int] = {}
        for _ in range(4_000):
            partition = choose.choice(own)
            if partition not in at:
                life[partition] += 1
                at[partition] = life[partition] * 1_000_000
                worker.take_up({partition: at[partition]}, committed=True)
            elif choose.random() < 0.1:
                worker.give_up([partition])
                del at[partition]
            else:
                at[partition] += 1
                worker.advance({partition: at[partition]})
                sent.append(({partition: at[partition]}, table.generation))
            for found, offset in worker.uncommitted().items():
                if offset // 1_000_000 != life[found] or offset > at[found]:
                    wrong.append(f"{found} of life {life[found]} at {offset}")
                worker.committed({found: offset})

    def sink() -> None:
        while not over.is_set() or sent:
            while sent:
                table.complete(*sent.popleft())
            table.publish()

    sinking = threading.Thread(target=sink)
    workers = [threading.Thread(target=work, args=(partitions[n::2], n)) for n in range(2)]
    for thread in (sinking, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    over.set()
    sinking.join()
    assert wrong == []
