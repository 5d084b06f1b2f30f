"""The source client of one worker: reads all its partitions, and commits what has become durable."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from loom.core.logger import get_logger
from loom.streaming.compiler.model import CompiledSource
from loom.streaming.failpoints import Failpoint, failpoint
from loom.streaming.kafka.client_records import CLIENT_RECORDS
from loom.streaming.kafka.consumer import ConsumerClient
from loom.streaming.kafka.offset_metadata import RunMetadata
from loom.streaming.kafka.start_offsets import StartPositions
from loom.streaming.kafka.topic_monitor import Change, TopicChange
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.commit import (
    AutoCommitter,
    CommittedElsewhere,
    CommitTracker,
    GroupCommitter,
    TrackerCommitter,
    WatchedCommitter,
)
from loom.streaming.runtime.isolation import IsolatingReader, isolation_of
from loom.streaming.runtime.kafka_poller import Claim, KafkaPoller
from loom.streaming.runtime.losses import report_losses
from loom.streaming.runtime.pace import Pace
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.source_loop import Committer, RecordReader, SourceLoop
from loom.streaming.runtime.stages.stage import Stage
from loom.streaming.runtime.stages.stage_io import GoneLogs, Positions, SourceBatch
from loom.streaming.runtime.standing import Standing
from loom.streaming.runtime.stop import StartGivenUp
from loom.streaming.runtime.telemetry.source_meter import SourceMeter
from loom.streaming.runtime.topic_changes import TopicChanges
from loom.streaming.runtime.wall_clock import WallClock

__all__ = ["SourceWorker"]

_log = get_logger(__name__)


class SourceWorker:
    """One worker's client, feed and parts."""

    def __init__(
        self,
        source: CompiledSource,
        state: RunState,
        make_stage: Callable[[], Stage],
        tracker: CommitTracker | None,
        metadata: RunMetadata,
        topics: Mapping[str, tuple[int, ...]],
        keep_alive_s: float,
        pace: Pace | None,
        changes: TopicChanges,
        inbox: deque[TopicChange],
    ) -> None:
        self.state = state
        self._changes = changes
        self._inbox = inbox
        self._records = ConsumerClient(source.settings, changes.suspect, metadata, state.clusters)
        self._metadata = metadata
        #: all partitions of the source's topics, of all workers
        self._all = [TopicPartition(topic, number) for topic, numbers in topics.items() for number in numbers]
        self._offsets = state.offsets.worker()
        #: what this run had committed when it last began again after an aborted transaction
        self._left_at: dict[TopicPartition, int] = {}
        #: partitions wait to be taken up
        self._joins = False
        #: how many parts the engine has open
        self._parts = 0
        #: every part has been closed, and the client with them
        self.left_by_all = False
        self._wall_clock = WallClock()
        self._source = source
        self._make_stage = make_stage
        self._pace = pace
        self._topics = topics
        self._keep_alive_s = keep_alive_s
        mode = source.mode
        self._mode = mode
        self._timings = timings = state.metrics.part().timings if state.observability.measures is not None else None
        took = timings.commit_s.observe if timings is not None else None
        committer = self._make_committer(tracker, keep_alive_s, took)
        # Under exactly-once the start positions are committed in a transaction before any part is built.
        self._owns_group = tracker is None and not mode.transaction
        self._may_lose = tracker is None and mode.may_lose
        # Where the group's position is not ours to keep, what is durable is the best that is known of it.
        self._commits = self._owns_group and (not mode.commits_by_client or source.settings.shares_group)
        supervisor = state.supervisor
        told = (supervisor.moved, supervisor.reads) if supervisor is not None else (None, None)
        self.standing = Standing(self._offsets, *told)
        state.standings.append(self.standing)
        self._confirming = WatchedCommitter(committer, self.standing)
        self._build()
        self.standing.is_unsettled = lambda: self.feed.is_unsettled
        self.standing.in_flight = lambda: self.feed.in_flight
        self.standing.buffered = self._kept
        self.standing.buffered_by = self._kept_by
        state.opened(self, "consumer", self._close)

    def _build(self) -> None:
        """The stage of the current attempt, and what feeds it."""
        state, source = self.state, self._source
        self._attempt = state.attempt
        self._stage = stage = self._make_stage()
        self._room = stage.room
        supervisor = state.supervisor
        reader: RecordReader = KafkaPoller(
            self._records, stage.room, state, source, self.standing, self._keep_alive_s, self._claim()
        )
        self._isolating: IsolatingReader | None = None
        isolation = isolation_of(supervisor, source)
        if supervisor is not None and isolation is not None:
            reader = self._isolating = IsolatingReader(
                reader,
                self._records,
                supervisor,
                isolation,
                state.stop,
                stage.room,
                read=self._offsets.read(),
                durable=self._offsets.durable(),
                place=CLIENT_RECORDS.place,
            )
        self.feed = SourceLoop(
            reader,
            stage,
            state,
            self._confirming,
            batch_size=source.settings.batch_size,
            pace=self._pace,
            size=CLIENT_RECORDS.size,
            meter=None
            if self._timings is None
            else SourceMeter(self._timings, CLIENT_RECORDS, self._topics, self._offsets).took,
            watchful=source.settings.shares_group,
        )

    def _kept(self) -> int:
        return self._room.kept()

    def _kept_by(self) -> Mapping[str, int]:
        return self._room.kept_by()

    def _take_up_again(self) -> None:
        """The epoch was given up: begin again with a stage and steps that have seen nothing."""
        # Calls in progress are cancelled and resources closed: what comes of them belongs to an epoch that never was.
        self._stage.close()
        self._leave_unfinished()
        if self._mode.transaction:
            # Where it was aborted the broker alone knows what is committed.
            partitions = list(self._records.positions)
            self._left_at |= self._offsets.durable()
            self._records.give_up(partitions)
            self._offsets.close()
            self._build()
            self._rejoin(partitions)
        else:
            starts = self._offsets.go_back()
            self._records.begin_again(starts)
            self._build()
            self.standing.joined(starts)

    def _where_older(self, told: Positions) -> dict[TopicPartition, int]:
        """Where the broker has told an offset from before what this run has committed itself, that of this run.

        One that has just taken the group over, or has lost it and does not know, may answer so.
        """
        left_at = self._left_at
        ours = {partition: left_at[partition] for partition in told if told[partition] < left_at.get(partition, 0)}
        if ours:
            why = "the broker told older offsets than this run has committed; it begins at its own"
            _log.warning("positions_behind", partitions=len(ours), first=str(min(ours)), note=why)
        return ours

    def _leave_unfinished(self) -> None:
        """Give up what was being given up, as it is."""

    def _rejoin(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self._offsets.expect(partition)
        self._joins = True

    def _make_committer(
        self, tracker: CommitTracker | None, keep_alive_s: float, took: Callable[[float], None] | None
    ) -> Committer:
        """`took` is told how long each commit took, in seconds."""
        if tracker is not None:
            return TrackerCommitter(self._offsets, tracker)
        if self._mode.commits_behind_mark:
            return GroupCommitter(self._offsets, self._records.group, keep_alive_s, took)
        if self._mode.commits_by_client:
            return AutoCommitter(self._records.group)
        return CommittedElsewhere()

    def _claim(self) -> Claim | None:
        """Commits before a batch is processed, where the client that reads does not do so."""
        return None

    def join(self, partition: TopicPartition, resume_state: int | None) -> bool:
        """Read one more partition. True for the first one, whose part leads: it asks for the batches of all."""
        self._offsets.expect(partition, resume_state)
        self._joins = True
        self._parts += 1
        return self._parts == 1

    def next_batch(self) -> list[SourceBatch]:
        """The leader's batch."""
        if self._attempt != self.state.attempt:
            self._take_up_again()
        if self._joins:
            try:
                self._join()
            except StartGivenUp:
                # Nothing has been read; the feed sees the stop and ends in order.
                pass
        left: list[SourceBatch] = []
        while self._inbox:
            left.append(self.feed.left(self._take(self._inbox.popleft())))
        began = self.standing.called_at = time.monotonic()
        if self.state.epochs.by_snapshots:
            self._wall_clock.check(self.state.engine_epoch_s)
        if self._room.keeps:
            full = self._room.credit(1) <= 0
            self.standing.keeps(self._room.kept_until(), self._room.due() if full else None)
        try:
            batches = [*left, *self.feed.next_batch()]
        except StopIteration:
            reason = self._changes.ended(self._inbox)
            if reason is not None:
                # Everything is committed; what is left is to say why the run is over.
                raise reason from None
            raise
        if not batches:
            self.feed.rest(began)
        elif self._isolating is not None:
            self._isolating.refuse(batches)
        return batches

    def position(self, partition: TopicPartition) -> int | None:
        """What a recovery snapshot may hold: the last committable offset, never the one to be read next."""
        row = self.state.offsets.row(partition)
        if row is not None and row.committable is not None:
            return row.committable
        return row.resume if row is not None else self._offsets.expected().get(partition)

    def leave(self) -> None:
        """A part has been closed; the last one closes the client."""
        self._parts -= 1
        if not self._parts:
            self.left_by_all = True
            self.state.standings.remove(self.standing)
            self.state.closed(self)

    def _join(self) -> None:
        joining, self._joins = self._offsets.expected(), False
        fallback = {partition: offset for partition, offset in joining.items() if offset is not None}
        self._records.waiting = self.state.stop.check_start
        try:
            by_snapshots = self.state.epochs.by_snapshots
            found = self._records.start(joining, fallback, self._all, fallback_first=by_snapshots)
            if ours := self._where_older(found.offsets):
                self._records.begin_again(ours)
            failpoint(Failpoint.POSITIONED)
            if self._owns_group:
                found = self._take_over(found)
        finally:
            self._records.waiting = self.state.stop.check_deadline
        self._begin(joining)

    def _begin(self, partitions: Iterable[TopicPartition]) -> None:
        starts = {partition: self._records.positions[partition] for partition in partitions}
        self._offsets.take_up(starts, committed=self._commits)
        self.standing.joined(starts)

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
        """A topic was deleted, or recreated: no offset in its old log may be committed any more."""
        gone = {row.partition for row in self._offsets.rows if row.partition.topic == change.topic}
        self._left_at = {p: offset for p, offset in self._left_at.items() if p.topic != change.topic}
        self._offsets.give_up(gone)
        if self._isolating is not None:
            self._isolating.forget(change.topic)
        if change.what is Change.DELETED or self._changes.stops:
            self._records.leave(change.topic)
            return GoneLogs(gone)
        self._records.restart_topic(change.topic)
        again = [partition for partition in self._records.positions if partition.topic == change.topic]
        self._begin(again)
        return GoneLogs(gone.union(again))

    def _close(self) -> None:
        self._stage.close()
        if self._may_lose and not self.feed.ended:
            counts = self.state.metrics.part()
            report_losses(self._offsets, counts)
        if self.feed.ended:
            # Otherwise a call of the client may be in progress, which blocks every other call of it.
            self.state.lag[id(self._records)] = self._records.lag()
        self._offsets.close()
        self._records.close()
        self._changes.close(self._inbox)
