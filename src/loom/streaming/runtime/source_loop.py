"""The life of one source client: reading, draining, committing. Between the engine's calls and a reader of records.

Hot path: `next_batch`. An epoch ends with a mark in a batch; when the sink part has answered one, what it has published may
be committed. Where offsets are committable at the engine's snapshots only (`Epochs.by_snapshots`), the engine calls `snapshot`
at the end of its epoch, and `next_batch` again only when every sink in the cluster has finished that epoch (the barrier).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any, Protocol

from loom.core.observability import Scope
from loom.streaming.failpoints import Failpoint, failpoint
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.epochs import InFlight, Mark
from loom.streaming.runtime.pace import Pace
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.stages.stage import Stage
from loom.streaming.runtime.stages.stage_io import EndMark, GoneLogs, Positions, SourceBatch
from loom.streaming.runtime.wall_clock import REST_S, rested

__all__ = ["Committer", "RecordReader", "SourceLoop"]

#: What a worker may have in flight to a sink part on another thread: nothing else holds it back while that is busy. On one
#: thread the sink part takes each batch before the next one is read.
_MOST_BATCHES = 8
_MOST_BYTES = 64 * 1024 * 1024


#: Seconds that a worker waits for the end of a call, or for a stop, while it reads nothing: each time that it is woken costs
#: as much as several calls.
_LONGEST_REST = 0.250
#: the same where something else may need the worker
_LONGEST_WATCHFUL_REST = 0.050
#: the shortest such wait, where something is due before
_SHORTEST_REST = 0.001


class RecordReader(Protocol):
    """Where a source loop gets its records from."""

    def read(self, most: int) -> tuple[Sequence[Any], Positions, bool]:
        """At most `most` records, the positions moved on to, and whether the input is over."""


class Committer(Protocol):
    """Commits committable offsets."""

    def confirm(self) -> None:
        """An epoch has been answered, or it is time to try again: commit what is committable; need not wait."""

    def finish(self) -> bool:
        """Commit the last offsets; `False` while that is in flight."""


class _Phase(Enum):
    """Where a source loop is. It only ever moves down this list."""

    READING = "reading"
    DRAINING = "draining"  # the end mark is out; the stage empties itself
    AWAITING_MARK = "awaiting mark"  # the stage is empty; what has left it is not durable yet
    COMMITTING = "committing"  # everything is durable; the last offsets are being committed
    ENDED = "ended"


class SourceLoop:
    """Hands batches to one stage until the input ends or the flow is stopped, then ends in order."""

    def __init__(
        self,
        reader: RecordReader,
        stage: Stage,
        state: RunState,
        confirming: Committer | None,
        *,
        batch_size: int,
        snapshots: bool = True,
        pace: Pace | None = None,
        size: Callable[[Sequence[Any]], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
        meter: Callable[[SourceBatch], None] | None = None,
        watchful: bool = False,
    ) -> None:
        self._reader = reader
        #: told of each batch with records, where metrics are on
        self._meter = meter
        self._read = self._read_observed if state.observability.listens(Scope.READ) else reader.read
        self._stage = stage
        self._state = state
        self._epochs = state.epochs
        self._attempt = state.attempt
        self._confirming = confirming
        self._batch_size = batch_size
        self._pace = pace
        #: the bytes of some records
        self._size = size
        #: monotonic seconds, by which epochs end and nodes that wait are woken
        self._clock = clock
        stage.room.clock = clock
        state.stop.wakes(stage.room.wake)
        #: something else than the end of a call or a stop may need a worker that reads nothing
        self._watchful = watchful or state.epochs.by_snapshots
        #: whether the engine calls `snapshot`; it does not for a dynamic source
        self._snapshots = snapshots
        self._thread = threading.get_ident()
        self._in_flight = InFlight()
        #: how many batches were passed on when this worker last made a mark
        self._marked = 0
        self._last_mark: Mark | None = None
        #: this worker's epoch is to end whether or not that of the process is due
        self._ends_epoch = False
        self._answered = self._epochs.answered
        #: when to try again what an answered epoch has not brought to an end
        self._commit_at = clock() + self._epochs.interval_s
        self._phase = _Phase.READING
        self._snapshotted = False
        self._input_over = False

    @property
    def ended(self) -> bool:
        """Whether everything is done, so that the engine parts that share this loop end too."""
        return self._phase is _Phase.ENDED

    @property
    def is_draining(self) -> bool:
        """Whether the end mark is out, and the stage keeps records behind it."""
        return self._phase is _Phase.DRAINING

    @property
    def is_unsettled(self) -> bool:
        """Whether something was passed on whose results are not durable yet. Read from any thread."""
        return self._in_flight.sent != self._in_flight.settled

    @property
    def in_flight(self) -> int:
        """How many records are on their way to the sink part. Read from any thread."""
        return self._in_flight.records

    def next_batch(self) -> list[SourceBatch]:
        """What the engine asks for. Raises `StopIteration` once everything that can be committed is."""
        now = self._clock()
        self._commit(now)
        if self._phase is not _Phase.READING:
            return self._end(now)
        if self._state.stop.requested:
            failpoint(Failpoint.STOPPING)
            return self._drain(EndMark.STOP, now)
        if self._input_over:
            return self._drain(EndMark.INPUT, now)
        if (self._ends_epoch or self._epochs.due(now)) and self._has_news():
            return self._mark(now)
        most = self._batch_size
        if self._pace is not None:
            most = self._pace.limit(most, now)
        most = self._stage.room.credit(most)
        if most <= 0 or self._is_full():
            return self._tick({})
        records, positions, self._input_over = self._read(most)
        if not records:
            return self._tick(positions)
        now = self._clock()
        if self._pace is not None:
            self._pace.sent(len(records), now)
        batch = SourceBatch(self._stage, records, positions, now)
        if self._meter is not None:
            self._meter(batch)
        return [self._sent(batch)]

    def left(self, logs: GoneLogs) -> SourceBatch:
        """Tells stage and sink, in the order of the batches, of logs that are gone."""
        return self._sent(SourceBatch(self._stage, (), {}, self._clock(), gone=logs))

    @property
    def is_reading(self) -> bool:
        """Whether neither a stop nor the end of the input has been seen yet."""
        return self._phase is _Phase.READING

    @property
    def sent(self) -> int:
        """How many batches have been passed on, ticks included."""
        return self._in_flight.sent

    @property
    def taken(self) -> int:
        """How many of them have left the stage."""
        return self._in_flight.taken

    @property
    def settled(self) -> int:
        """How many of them are durable, results and all."""
        return self._in_flight.settled

    @property
    def has_stage(self) -> bool:
        """Whether the stage may still keep records, so that it takes batches."""
        return self._phase is _Phase.READING or (self._phase is _Phase.DRAINING and not self._stage.ended)

    def leave(self, partitions: Iterable[TopicPartition]) -> SourceBatch:
        """Tells the stage that partitions are to be another's: their calls in progress are awaited, and no others."""
        batch = SourceBatch(self._stage, (), {}, self._clock())
        batch.leaving = frozenset(partitions)
        return self._sent(batch)

    def discard(self, partitions: Iterable[TopicPartition]) -> SourceBatch:
        """Tells the stage to drop what it keeps of partitions that are another's now, and ends the epoch behind it."""
        self._ends_epoch = True
        batch = SourceBatch(self._stage, (), {}, self._clock())
        batch.discarded = frozenset(partitions)
        return self._sent(batch)

    def end_epoch(self) -> None:
        """End the epoch at the next call, whether or not that of the process is due."""
        self._ends_epoch = True

    def snapshot(self) -> None:
        """The engine ends an epoch of its own."""
        self._snapshotted = True

    def _read_observed(self, most: int) -> tuple[Sequence[Any], Positions, bool]:
        """Read, and tell observers of each batch: when it is there, so that a wait for records is no event."""
        state, began = self._state, time.perf_counter()
        observability = state.observability
        try:
            found = self._reader.read(most)
        except Exception as error:
            if span := observability.begin(Scope.READ, state.source_name):
                span.end(error, duration_ms=(time.perf_counter() - began) * 1000)
            raise
        if found[0] and (span := observability.begin(Scope.READ, state.source_name, meta={"records": len(found[0])})):
            span.end(duration_ms=(time.perf_counter() - began) * 1000)
        return found

    def rest(self, began: float, rest_s: float = REST_S) -> None:
        """Rest after a call that began at this monotonic time and returned nothing. The end of a call elsewhere ends it."""
        room = self._stage.room
        if not room.elsewhere:
            rested(began, rest_s)
        elif self._phase is not _Phase.READING or room.credit(1) <= 0:
            # Nothing can be read, so nothing else can happen here. A busy worker may need the sink part that is on this thread.
            room.wait(self._until_due() if len(self._state.last_busy) <= 1 else REST_S)
        elif time.monotonic() - began < rest_s:
            room.wait(rest_s)

    def _until_due(self) -> float:
        """Seconds until a node or the end of the epoch needs the worker, as far as that is known."""
        now, due = self._clock(), self._stage.room.due()
        # A stop has a limit, which has to be looked after.
        is_watchful = self._watchful or self._state.stop.requested
        longest = _LONGEST_WATCHFUL_REST if is_watchful else _LONGEST_REST
        rest = longest if due is None else min(longest, due - now)
        # An epoch that is over stays so until there is something to mark the end of, which is looked for while reading.
        if self._phase is _Phase.READING and self._has_news():
            rest = min(rest, self._epochs.left(now))
        return max(rest, _SHORTEST_REST)

    def _commit(self, now: float) -> None:
        if self._phase in (_Phase.COMMITTING, _Phase.ENDED):
            return
        if self._epochs.by_snapshots:
            if self._snapshotted:
                self._snapshotted = False
                if self._phase is _Phase.AWAITING_MARK:
                    self._phase = _Phase.COMMITTING
                    return
                self._confirm()
        elif self._answered != self._epochs.answered or (self._answered and now >= self._commit_at):
            self._answered = self._epochs.answered
            self._commit_at = now + self._epochs.interval_s
            self._confirm()

    def _confirm(self) -> None:
        if self._confirming is not None:
            failpoint(Failpoint.CONFIRMING)
            self._confirming.confirm()

    def _has_news(self) -> bool:
        """Whether something was passed on that is not durable yet and that no mark of ours follows."""
        in_flight = self._in_flight
        return in_flight.sent not in (in_flight.settled, self._marked) and not self._epochs.by_snapshots

    def _mark(self, now: float) -> list[SourceBatch]:
        failpoint(Failpoint.MARKED)
        batch = SourceBatch(self._stage, (), {}, now)
        batch.mark = self._last_mark = self._epochs.end(now)
        self._sent(batch)
        self._ends_epoch = False
        self._marked = self._in_flight.sent
        return [batch]

    def _sent(self, batch: SourceBatch) -> SourceBatch:
        in_flight = self._in_flight
        batch.in_flight = in_flight
        batch.attempt = self._attempt
        batch.generation = self._state.offsets.generation
        in_flight.sent += 1
        in_flight.sent_records += len(batch.origins)
        if self._size is not None and in_flight.taken_thread not in (self._thread, None):
            batch.bytes = self._size(batch.origins)
            in_flight.sent_bytes += batch.bytes
        return batch

    def _is_full(self) -> bool:
        """Whether so much is in flight to a sink part on another thread that it must be taken first."""
        in_flight = self._in_flight
        return in_flight.records >= _MOST_BATCHES * self._batch_size or in_flight.bytes >= _MOST_BYTES

    def _tick(self, positions: Positions) -> list[SourceBatch]:
        """An empty batch, when there is something to say: positions moved on, or a node wants to act."""
        now = self._clock()
        due = self._stage.room.due()
        if positions or (due is not None and due <= now):
            return [self._sent(SourceBatch(self._stage, (), positions, now))]
        return []

    def _wake(self, now: float) -> list[SourceBatch]:
        """An empty batch if a node that keeps records wants one; what does not say when is looked after at once."""
        room = self._stage.room
        due = room.due()
        if not room.kept() or (due > now if due is not None else room.elsewhere):
            return []
        return [self._sent(SourceBatch(self._stage, (), {}, now))]

    def _drain(self, mark: EndMark, now: float) -> list[SourceBatch]:
        self._phase = _Phase.DRAINING
        return [self._sent(SourceBatch(self._stage, (), {}, now, mark))]

    def _end(self, now: float) -> list[SourceBatch]:
        stop = self._state.stop
        if self._phase is _Phase.DRAINING:
            if not self._stage.ended:
                stop.check_deadline(self._stage.room.waiting_for)
                return self._mark(now) if self._ends_epoch and self._has_news() else self._wake(now)
            self._phase = _Phase.AWAITING_MARK
            if not self._epochs.by_snapshots:
                return self._mark(now)
            if self._confirming is not None and self._snapshots:
                return []
            self._phase = _Phase.ENDED
        if self._phase is _Phase.AWAITING_MARK:
            if self._last_mark is None or not self._last_mark.answered:
                stop.check_deadline("the end of the epoch")
                return []
            self._phase = _Phase.COMMITTING
        if self._phase is _Phase.COMMITTING:
            failpoint(Failpoint.FINISHING)
            if self._confirming is not None and not self._confirming.finish():
                stop.check_deadline("the broker's answer to the last commit")
                return []
            self._phase = _Phase.ENDED
        raise StopIteration
