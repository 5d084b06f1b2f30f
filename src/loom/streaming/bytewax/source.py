"""Kafka as an engine source: one part per partition (the engine's epoch and recovery handles), one client per worker.

Whichever part of a worker leads hands over the whole batch of its client, partitions mixed. That is safe because all
parts emit in one epoch at a time and the positions travel in the batch.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from loom.streaming.bytewax.confirming import (
    AlreadyConfirmed,
    ClientConfirms,
    GroupConfirms,
    TrackerConfirms,
    WatchedConfirming,
)
from loom.streaming.bytewax.delivery import CommitTracker, Delivery, StartGivenUp
from loom.streaming.bytewax.exactly_once import ExactlyOnce
from loom.streaming.bytewax.feed import Confirming, Feed, Reader
from loom.streaming.bytewax.isolation import IsolatingReader
from loom.streaming.bytewax.kafka_poller import KafkaPoller
from loom.streaming.bytewax.losses import report_losses
from loom.streaming.bytewax.pace import Pace
from loom.streaming.bytewax.stages.outcome import GoneLogs, SourceBatch
from loom.streaming.bytewax.stages.stage import Stage
from loom.streaming.bytewax.standing import Standing
from loom.streaming.bytewax.topic_changes import TopicChanges
from loom.streaming.bytewax.wall_clock import ALWAYS_DUE, WallClock, rested
from loom.streaming.compiler.plan import CompiledSource
from loom.streaming.kafka.client_records import CLIENT_RECORDS
from loom.streaming.kafka.consumer import PartitionReader
from loom.streaming.kafka.group_look import GroupLook
from loom.streaming.kafka.offset_metadata import RunMetadata
from loom.streaming.kafka.record import TopicPartition
from loom.streaming.kafka.settings import Delivery as Guarantee
from loom.streaming.kafka.start import StartPositions
from loom.streaming.kafka.watch import Change, TopicChange
from loom.streaming.points import Point, reached

__all__ = ["KafkaSource"]

#: how often a part that does not lead is asked whether it has ended
_FOLLOWER_AWAKE = timedelta(milliseconds=50)


class KafkaSource(FixedPartitionedSource[SourceBatch, int | None]):
    """All partitions of the source's topics. `look_up` tells their numbers, `look_at_group` what is known of the group.

    Both are asked before anything is read.
    """

    def __init__(
        self,
        source: CompiledSource,
        delivery: Delivery,
        look_up: Callable[[], Mapping[str, tuple[int, ...]]],
        look_at_group: Callable[[], GroupLook],
        make_stage: Callable[[], Stage],
        tracker: CommitTracker | None,
        metadata: RunMetadata,
        exactly_once: ExactlyOnce | None = None,
    ) -> None:
        self._source = source
        self._metadata = metadata
        self._delivery = delivery
        self._look_up = look_up
        self._look_at_group = look_at_group
        self._make_stage = make_stage
        self._tracker = tracker
        self._exactly_once = exactly_once
        self._changes = TopicChanges(source.settings, delivery.stop)
        if exactly_once is not None:
            exactly_once.suspect = self._changes.suspect
        self._lock = threading.Lock()
        self._workers: dict[int, _Worker] = {}

    def list_parts(self) -> list[str]:
        """A part per Kafka partition. Numbers are padded, since the engine deals parts out in sorted order."""
        return sorted(f"{topic}/{number:06d}" for topic, numbers in self._look_up().items() for number in numbers)

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Part:
        """A part, sharing the client of the worker on whose thread this is called."""
        if self._exactly_once is not None:
            # Before any position is read: what a predecessor left open must not be committed behind our back.
            self._exactly_once.open()
        topic, _, number = for_part.rpartition("/")
        partition = TopicPartition(topic, int(number))
        thread = threading.get_ident()
        with self._lock:
            worker = self._workers.get(thread)
            if worker is None or worker.left_by_all:
                # None yet on this thread, or that of an earlier run of the same dataflow.
                pace = self._exactly_once.pace() if self._exactly_once is not None else None
                worker = _Worker(
                    self._source,
                    self._delivery,
                    self._make_stage(),
                    self._tracker,
                    self._metadata,
                    self._look_up(),
                    self._look_at_group().keep_alive_s,
                    pace,
                    self._changes,
                    self._changes.open(self._look_up()),
                )
                self._workers[thread] = worker
        return worker.part(partition, resume_state)


class _Worker:
    """One worker's client, feed and parts."""

    def __init__(
        self,
        source: CompiledSource,
        delivery: Delivery,
        stage: Stage,
        tracker: CommitTracker | None,
        metadata: RunMetadata,
        topics: Mapping[str, tuple[int, ...]],
        keep_alive_s: float,
        pace: Pace | None,
        changes: TopicChanges,
        inbox: deque[TopicChange],
    ) -> None:
        self.delivery = delivery
        self._guarantee = source.delivery
        self._changes = changes
        self._inbox = inbox
        self._records = PartitionReader(source.settings, changes.suspect, metadata, delivery.clusters)
        self._metadata = metadata
        #: all partitions of the source's topics, whoever reads them
        self._all = [TopicPartition(topic, number) for topic, numbers in topics.items() for number in numbers]
        self.joining: dict[TopicPartition, int | None] = {}
        self.resumed: dict[TopicPartition, int] = {}
        #: those whose positions are confirmed
        self.partitions: list[TopicPartition] = []
        #: those of topics that were deleted, or made anew
        self._left: list[TopicPartition] = []
        #: those that are read of a new log, and what must reach the sink before their positions may be confirmed
        self._anew: dict[TopicPartition, GoneLogs] = {}
        self._began: dict[TopicPartition, int] = {}
        self._parts: list[_Part] = []
        #: every part has been closed, and the client with them
        self.left_by_all = False
        self._wall_clock = WallClock()
        self._room = stage.room
        confirming: Confirming
        if tracker is not None:
            confirming = TrackerConfirms(self.partitions, delivery.frozen, tracker)
        elif source.delivery is Guarantee.AT_LEAST_ONCE:
            confirming = GroupConfirms(self.partitions, delivery.frozen, self._records.group, keep_alive_s)
        elif source.delivery is None:
            confirming = ClientConfirms(self._records.group)
        else:
            confirming = AlreadyConfirmed()
        # Under exactly-once the start positions are committed in a transaction before any part is built.
        self._owns_group = tracker is None and source.delivery is not Guarantee.EXACTLY_ONCE
        self._may_lose = tracker is None and source.delivery in (None, Guarantee.AT_MOST_ONCE)
        # Where the group's position is not ours to keep, what is frozen is the best that is known of it.
        commits = self._owns_group and source.delivery is not None
        held = (lambda: self._records.group.at) if commits else (lambda: delivery.frozen)
        supervisor = delivery.supervisor
        told = (supervisor.moved, supervisor.reads) if supervisor is not None else (None, None)
        self.standing = Standing(self.partitions, held, *told)
        delivery.standings.append(self.standing)
        confirming = WatchedConfirming(confirming, self.standing)
        reader: Reader = KafkaPoller(self._records, stage.room, delivery, source, self.standing, keep_alive_s)
        self._isolating: IsolatingReader | None = None
        if supervisor is not None and (isolation := supervisor.isolation) is not None:
            reader = self._isolating = IsolatingReader(
                reader,
                self._records,
                supervisor,
                isolation,
                delivery.stop,
                stage.room,
                read=self.standing.read,
                durable=delivery.frozen,
                place=CLIENT_RECORDS.place,
            )
        self.feed = Feed(reader, stage, delivery, confirming, batch_size=source.settings.batch_size, pace=pace)
        delivery.opened(self, "consumer", self._close)

    def part(self, partition: TopicPartition, resume_state: int | None) -> _Part:
        """A part for one more partition; the first one leads."""
        self.joining[partition] = resume_state
        self.partitions.append(partition)
        if resume_state is not None:
            self.resumed[partition] = resume_state
        part = _Part(self, partition, leads=not self._parts)
        self._parts.append(part)
        return part

    def next_batch(self) -> list[SourceBatch]:
        """The leader's batch."""
        if self.joining:
            try:
                self._join()
            except StartGivenUp:
                # Nothing has been read; the feed sees the stop and ends in order.
                pass
        left: list[SourceBatch] = []
        while self._inbox:
            left.append(self.feed.left(self._take(self._inbox.popleft())))
        if self._anew:
            self._confirm_anew()
        began = time.monotonic()
        self._wall_clock.check(self.delivery.epoch_s)
        if self._room.keeps:
            full = self._room.credit(1) <= 0
            self.standing.keeps(self._room.kept_until(), self._room.due() if full else None)
        try:
            batches = [*left, *self.feed.next_batch()]
        except StopIteration:
            reason = self._changes.ended(self._inbox)
            if reason is not None:
                # Everything is confirmed; what is left is to say why the run is over.
                raise reason from None
            raise
        if not batches:
            rested(began)
        elif self._isolating is not None:
            self._isolating.refuse(batches)
        return batches

    def position(self, partition: TopicPartition) -> int | None:
        """What a recovery snapshot may hold: the last frozen position, never the read position."""
        return self.delivery.frozen.get(partition, self.resumed.get(partition))

    def left(self, part: _Part) -> None:
        """A part has been closed; the last one closes the client."""
        self._parts.remove(part)
        if not self._parts:
            self.left_by_all = True
            self.delivery.standings.remove(self.standing)
            self.delivery.closed(self)

    def _join(self) -> None:
        joining, self.joining = self.joining, {}
        fallback = {partition: offset for partition, offset in joining.items() if offset is not None}
        self._records.waiting = self.delivery.stop.check_start
        try:
            found = self._records.start(joining, fallback, self._all)
            reached(Point.POSITIONED)
            if self._owns_group:
                found = self._take_over(found)
            self._began.update(found.offsets)
        finally:
            self._records.waiting = self.delivery.stop.check_deadline
        self.standing.joined({partition: self._records.positions[partition] for partition in joining})

    def _take_over(self, found: StartPositions) -> StartPositions:
        """Keep the positions to begin at, in our name, before anything is read.

        "Latest" is a moment, not a place: unless it is kept as an offset, what arrives while the flow is down would be
        skipped. A topic's partition count is raised in a second commit, when all of them have a position.
        """
        # An older instance that still runs may have moved the group since; it ends when it finds our name there.
        found = self._records.follow(found)
        self._metadata.replaces(found.committed.values())
        self._metadata.found(found.committed)
        self._records.group.commit_now(found.offsets)
        if self._metadata.covered(found.offsets):
            self._records.group.commit_now(found.offsets)
        return found

    def _take(self, change: TopicChange) -> GoneLogs:
        """A topic was deleted, or made anew: no position in its old log may be confirmed any more."""
        gone = [partition for partition in self.partitions if partition.topic == change.topic]
        for partition in gone:
            self.partitions.remove(partition)
            self.delivery.frozen.pop(partition, None)
        self.standing.left(gone)
        if self._isolating is not None:
            self._isolating.forget(change.topic)
        self._left += gone
        mark = GoneLogs(partition for partition in self._left if partition.topic == change.topic)
        for partition in mark.partitions:
            self._anew.pop(partition, None)
            self._began.pop(partition, None)
            self.resumed.pop(partition, None)
        if change.what is Change.DELETED or self._changes.stops:
            self._records.leave(change.topic)
        else:
            self._records.begin_anew(change.topic)
            self._began.update({partition: self._records.positions[partition] for partition in mark.partitions})
            self._anew.update(dict.fromkeys(mark.partitions, mark))
        return mark

    def _confirm_anew(self) -> None:
        """Confirm positions in new logs again, once nothing of the old ones is on its way to the sink."""
        for partition, mark in list(self._anew.items()):
            if mark.reached_sink:
                del self._anew[partition]
                self._left.remove(partition)
                self.partitions.append(partition)

    def _close(self) -> None:
        if self._may_lose and not self.feed.ended:
            counts = self.delivery.metrics.part()
            report_losses(self._records.positions, self.delivery.frozen, self._began, counts)
        if self.feed.ended:
            # Else a call of the client may still be on its way, which holds up every other call of it.
            self.delivery.lag[id(self._records)] = self._records.lag()
        self._records.close()
        self._changes.close(self._inbox)


class _Part(StatefulSourcePartition[SourceBatch, int | None]):
    """One partition, to the engine."""

    def __init__(self, worker: _Worker, partition: TopicPartition, *, leads: bool) -> None:
        self._worker = worker
        self._partition = partition
        self._leads = leads

    def next_batch(self) -> list[SourceBatch]:
        try:
            if self._leads:
                return self._worker.next_batch()
        except StopIteration:
            raise
        except BaseException as fault:
            self._worker.delivery.failed(fault)
            raise
        if self._worker.feed.ended:
            raise StopIteration
        return []

    def next_awake(self) -> datetime | None:
        # Whichever clock the engine goes by, it asks the leader; what the others wait for is seen a little later.
        return ALWAYS_DUE if self._leads else datetime.now(UTC) + _FOLLOWER_AWAKE

    def snapshot(self) -> int | None:
        if self._leads:
            self._worker.feed.snapshot()
        return self._worker.position(self._partition)

    def close(self) -> None:
        self._worker.left(self)
