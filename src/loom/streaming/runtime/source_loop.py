"""The life of one source client: reading, ending, confirming. Between the engine's calls and a reader of records.

Hot path: `next_batch`. The engine calls `snapshot` at the end of each epoch, and `next_batch` again only when every sink in
the cluster has finished that epoch (the barrier), so what is frozen then may be confirmed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Protocol

from loom.streaming.failpoints import Failpoint, failpoint
from loom.streaming.runtime.pace import Pace
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.stages.stage import Stage
from loom.streaming.runtime.stages.stage_io import EndMark, GoneLogs, Positions, SourceBatch

__all__ = ["Committer", "RecordReader", "SourceLoop"]


class RecordReader(Protocol):
    """Where a feed gets its records from."""

    def read(self, most: int) -> tuple[Sequence[Any], Positions, bool]:
        """At most `most` records, the positions moved on to, and whether the input is over."""


class Committer(Protocol):
    """What becomes of frozen positions."""

    def confirm(self) -> None:
        """The barrier is behind an epoch: confirm what is frozen; need not wait."""

    def finish(self) -> bool:
        """Confirm the last positions; `False` while that is still on its way."""


class _Phase(Enum):
    """Where a feed stands. It only ever moves down this list."""

    READING = "reading"
    ENDING = "ending"  # the end mark is out; the stage empties itself
    CLOSING = "closing"  # the stage is empty; one more snapshot and barrier are needed
    CONFIRMING = "confirming"  # that barrier is behind us; the last positions are being confirmed
    ENDED = "ended"


class SourceLoop:
    """Hands batches to one stage until the input ends or the flow is stopped, then ends in order."""

    def __init__(
        self,
        reader: RecordReader,
        stage: Stage,
        delivery: RunState,
        confirming: Committer | None,
        *,
        batch_size: int,
        has_epochs: bool = True,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = reader
        self._stage = stage
        self._delivery = delivery
        self._confirming = confirming
        self._batch_size = batch_size
        self._pace = pace
        #: monotonic seconds, by which nodes that wait are woken
        self._clock = clock
        #: whether the engine tells us of epochs; it does not for a dynamic source
        self._has_epochs = has_epochs
        self._phase = _Phase.READING
        self._snapshotted = False
        self._input_over = False

    @property
    def ended(self) -> bool:
        """Whether everything is done, so that the engine parts that share this feed end too."""
        return self._phase is _Phase.ENDED

    def next_batch(self) -> list[SourceBatch]:
        """What the engine asks for. Raises `StopIteration` once everything that can be confirmed is."""
        if self._snapshotted:
            self._snapshotted = False
            if self._phase is _Phase.CLOSING:
                self._phase = _Phase.CONFIRMING
            elif self._confirming is not None:
                failpoint(Failpoint.CONFIRMING)
                self._confirming.confirm()
        if self._phase is not _Phase.READING:
            return self._end()
        if self._delivery.stop.requested:
            failpoint(Failpoint.STOPPING)
            return self._mark(EndMark.STOP)
        if self._input_over:
            return self._mark(EndMark.INPUT)
        most = self._batch_size
        if self._pace is not None:
            most = self._pace.limit(most, self._clock())
        room = self._stage.room.credit(most)
        if room <= 0:
            return self._tick({})
        records, positions, self._input_over = self._reader.read(room)
        if records:
            now = self._clock()
            if self._pace is not None:
                self._pace.sent(len(records), now)
            return [SourceBatch(self._stage, records, positions, now)]
        return self._tick(positions)

    def left(self, logs: GoneLogs) -> SourceBatch:
        """Tells stage and sink, in the order of the batches, of logs that are gone."""
        return SourceBatch(self._stage, (), {}, self._clock(), gone=logs)

    def snapshot(self) -> None:
        """The engine ends an epoch."""
        self._snapshotted = True

    def _tick(self, positions: Positions) -> list[SourceBatch]:
        """An empty batch, when there is something to say: positions moved on, or a node wants to act."""
        now = self._clock()
        due = self._stage.room.due()
        if positions or (due is not None and due <= now):
            return [SourceBatch(self._stage, (), positions, now)]
        return []

    def _mark(self, mark: EndMark) -> list[SourceBatch]:
        self._phase = _Phase.ENDING
        return [SourceBatch(self._stage, (), {}, self._clock(), mark)]

    def _end(self) -> list[SourceBatch]:
        stop = self._delivery.stop
        if self._phase is _Phase.ENDING:
            if not self._stage.ended:
                stop.check_deadline("records that a node of the flow still keeps")
                return [SourceBatch(self._stage, (), {}, self._clock())] if self._stage.room.kept() else []
            if self._confirming is None or not self._has_epochs:
                self._phase = _Phase.ENDED
            else:
                # The snapshot that ends the epoch at hand comes after everything that has left the stage.
                self._phase = _Phase.CLOSING
                return []
        if self._phase is _Phase.CLOSING:
            stop.check_deadline("the end of the epoch")
            return []
        if self._phase is _Phase.CONFIRMING:
            failpoint(Failpoint.FINISHING)
            if self._confirming is not None and not self._confirming.finish():
                stop.check_deadline("the broker's answer to the last commit")
                return []
            self._phase = _Phase.ENDED
        raise StopIteration
