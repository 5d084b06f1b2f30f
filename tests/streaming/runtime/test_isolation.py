"""One record at a time: which are handed on, when, and what the supervisor is told before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pytest

from loom.core.config import ConfigError
from loom.streaming import ErrorKind, FromTopic, IntoTopic, Process, StreamFlow, compile_flow, step
from loom.streaming.bytewax import BytewaxRuntimeConfig
from loom.streaming.kafka import KafkaRecord, TopicPartition
from loom.streaming.record import TopicPartitionOffset
from loom.streaming.runtime.isolation import IsolatingReader, check_poison_route, one_at_a_time
from loom.streaming.runtime.run_errors import ProcessKilledError
from loom.streaming.runtime.settings import SupervisionSettings
from loom.streaming.runtime.stages.buffering import BufferingNodes
from loom.streaming.runtime.stages.stage_io import EndMark, SourceBatch, StageResults
from loom.streaming.runtime.stop import StopSignal
from loom.streaming.runtime.supervised import Isolation
from tests.streaming.orders import Order
from tests.support.running import config_for

A, B = TopicPartition("a", 0), TopicPartition("a", 1)


class Log:
    """A log that is read one by one, the client that reads it, and the supervisor that is told."""

    def __init__(self, isolation: Isolation, **logs: int) -> None:
        self.isolation: Isolation | None = isolation
        self.left = [
            KafkaRecord("a", None, b"", partition=number, offset=offset)
            for name, size in logs.items()
            for number in [int(name.removeprefix("p"))]
            for offset in range(size)
        ]
        self.read_to = {TopicPartition("a", int(name.removeprefix("p"))): 0 for name in logs}
        self.durable: dict[TopicPartition, int] = {}
        self.held: set[TopicPartition] = set()
        self.served = 0
        self.told: list[tuple[int, int, bool]] = []
        self.nothing = 0
        self.over = False
        self.stop = StopSignal()
        self.now = 0.0
        self.kept = Keeping()
        self.reader = IsolatingReader(
            self,
            self,
            self,
            isolation,
            self.stop,
            BufferingNodes([self.kept]),
            read=self.read_to,
            durable=self.durable,
            place=lambda record: TopicPartitionOffset(record.topic, record.partition, record.offset),
            clock=lambda: self.now,
        )

    def next(self) -> list[int]:
        """The offsets of what the next read hands on."""
        records, _, over = self.reader.read(100)
        assert not over
        return [record.offset for record in records]

    def all_durable(self) -> None:
        self.durable.update(self.read_to)

    def read(self, most: int) -> tuple[Sequence[KafkaRecord], Mapping[TopicPartition, int], bool]:
        assert most == 1
        found = next((r for r in self.left if TopicPartition("a", r.partition or 0) not in self.held), None)
        if found is None:
            return [], {}, False
        self.left.remove(found)
        moved = {TopicPartition("a", found.partition or 0): (found.offset or 0) + 1}
        self.read_to.update(moved)
        return [found], moved, False

    def serve(self, wait_s: float) -> None:
        self.served += 1

    def hold(self, partitions: Iterable[TopicPartition]) -> None:
        self.held.update(partitions)

    def moved(self, positions: Mapping[TopicPartition, int]) -> None: ...

    def reads(self, positions: Mapping[TopicPartition, int]) -> None: ...

    def works_on(self, partition: TopicPartition, offset: int, *, alone: bool) -> None:
        self.told.append((partition.partition, offset, alone))

    def works_on_nothing(self) -> None:
        self.nothing += 1

    def isolation_over(self) -> None:
        self.over = True


class Keeping:
    """A node that keeps as many records as it is told."""

    records = 0

    def kept(self) -> int:
        return self.records

    def oldest(self) -> Iterable[tuple[TopicPartition, int]]:
        return ()

    def credit(self) -> int | None:
        return None

    def due(self) -> float | None:
        return None

    def tick(self, now: float) -> None: ...

    def end(self, mark: EndMark) -> None: ...


def test_a_record_is_handed_on_only_once_nothing_else_is_in_the_process() -> None:
    log = Log(Isolation({A: 3}), p0=3)
    assert log.next() == [0]
    assert log.told == [(0, 0, True)]
    assert [log.next(), log.next()] == [[], []]
    assert log.served == 2
    log.all_durable()
    log.kept.records = 1
    assert log.next() == []
    assert log.nothing == 0
    log.kept.records = 0
    assert log.next() == [1]
    assert log.told == [(0, 0, True), (0, 1, True)]
    assert log.nothing == 1


def test_of_many_records_only_those_that_were_in_a_process_that_died_are_alone() -> None:
    log = Log(Isolation({A: 2_000}, alone={A: 2}), p0=2_000)
    handed = []
    while len(handed) < 4:
        handed += log.next()
        log.all_durable()
    assert log.told == [(0, 0, True), (0, 1, True), (0, 2, False), (0, 3, False)]
    # Those that are not alone need not wait for anything.
    log.durable.clear()
    assert [log.next(), log.next()] == [[4], [5]]


def test_only_partitions_with_such_records_are_read_and_then_the_run_ends() -> None:
    log = Log(Isolation({A: 2}), p0=4, p1=9)
    assert log.next() == [0]
    assert log.held == {B}
    log.all_durable()
    assert log.next() == [1]
    assert log.held == {A, B}
    assert log.next() == []
    assert not log.over
    log.all_durable()
    assert log.next() == []
    assert log.over
    assert log.stop.requested


def test_records_that_are_no_longer_in_the_log_are_not_waited_for_for_ever() -> None:
    log = Log(Isolation({A: 9}), p0=0)
    assert log.next() == []
    assert not log.over
    log.now = 6.0
    assert log.next() == []
    assert log.over


def test_a_topic_that_was_deleted_is_not_suspected_any_more() -> None:
    log = Log(Isolation({A: 9}), p0=2)
    assert log.next() == [0]
    log.reader.forget("a")
    log.read_to.clear()
    log.all_durable()
    log.left.clear()
    assert log.next() == []
    assert log.over


class Nothing:
    """A stage that is not asked."""

    def run(self, batch: SourceBatch) -> StageResults:
        raise AssertionError("nobody runs it here")


def test_a_fatal_record_is_marked_so_that_no_step_is_given_it() -> None:
    log = Log(Isolation({A: 2}, fatal={TopicPartitionOffset("a", 0, 1): "killed by SIGABRT"}), p0=2)
    refused = []
    for _ in range(2):
        records, positions, _ = log.reader.read(1)
        batch = SourceBatch(Nothing(), records, positions, 0.0)
        log.reader.refuse([batch])
        refused.append(batch.refused)
        log.all_durable()
    assert refused[0] is None
    assert isinstance(refused[1], ProcessKilledError)
    assert "killed by SIGABRT" in str(refused[1])


def test_the_engine_runs_one_worker_with_short_epochs_meanwhile() -> None:
    runtime = one_at_a_time(BytewaxRuntimeConfig(workers_per_process=4, force_shutdown_timeout_ms=7))
    assert (runtime.workers_per_process, runtime.epoch_ms, runtime.force_shutdown_timeout_ms) == (1, 20, 7)
    assert one_at_a_time(BytewaxRuntimeConfig(epoch_interval_ms=5)).epoch_ms == 5


@step
def same(order: Order) -> Order:
    return order


DEAD_LETTER = SupervisionSettings(restarts=2, on_poison="dead_letter")


def test_a_record_that_would_have_nowhere_to_go_is_refused_beforehand() -> None:
    flow = StreamFlow("orders", FromTopic("raw", Order), Process(same), IntoTopic("out"))
    plan = compile_flow(flow, config=config_for())
    with pytest.raises(ConfigError, match="no route for task errors"):
        check_poison_route(plan, (), DEAD_LETTER)
    check_poison_route(plan, [ErrorKind.TASK], DEAD_LETTER)
    check_poison_route(plan, (), SupervisionSettings(restarts=2))


def test_dead_letters_need_the_restarts_that_find_them() -> None:
    with pytest.raises(ValueError, match="only where restarts is 2 or more"):
        SupervisionSettings(restarts=1, on_poison="dead_letter")
