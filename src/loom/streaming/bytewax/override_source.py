"""A Bytewax source of the caller in place of Kafka: wrapped, so that batches, ticks and the end work as in production.

It may yield `Message`s or `KafkaRecord`s, from several parts, or be dynamic.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from copy import copy, deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

from bytewax.inputs import (
    DynamicSource,
    FixedPartitionedSource,
    Source,
    StatefulSourcePartition,
    StatelessSourcePartition,
)

from loom.streaming.compiler.model import CompiledSource
from loom.streaming.message import Message
from loom.streaming.record import KafkaRecord, TopicPartition
from loom.streaming.runtime.commit import CommitTracker, TrackerCommitter
from loom.streaming.runtime.offsets import WorkerOffsets
from loom.streaming.runtime.override_view import place_of
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.source_loop import Committer, SourceLoop
from loom.streaming.runtime.stages.stage import Stage
from loom.streaming.runtime.stages.stage_io import Positions, SourceBatch
from loom.streaming.runtime.wall_clock import ALWAYS_DUE, WallClock
from loom.streaming.runtime.worker_source import OpenWorker, WorkerSource

__all__ = ["open_source", "wrap_source"]

#: how often a sleeping source is looked after
_AWAKE = timedelta(milliseconds=20)
#: how long the part that leads a worker rests while its own source sleeps, in seconds; the other parts wait for it
_ASLEEP = 0.005


def wrap_source(
    source: Any,
    plan_source: CompiledSource,
    state: RunState,
    make_stage: Callable[[], Stage],
    tracker: CommitTracker | None,
) -> Source[SourceBatch]:
    """A source of batches made of a source of records. Raises `TypeError` for what is no Bytewax source."""
    batch_size = plan_source.settings.batch_size
    if isinstance(source, FixedPartitionedSource):
        return _WrappedFixed(source, state, make_stage, tracker, batch_size)
    if isinstance(source, DynamicSource):
        return _WrappedDynamic(source, state, make_stage, batch_size)
    raise TypeError(f"source must be a Bytewax FixedPartitionedSource or DynamicSource, not {source!r}")


def open_source(
    source: Any,
    plan_source: CompiledSource,
    state: RunState,
    make_stage: Callable[[], Stage],
    tracker: CommitTracker | None,
) -> OpenWorker:
    """The same for an engine that is not Bytewax: each worker has its share of the parts, as Bytewax would deal them out.

    Raises `TypeError` for what is no Bytewax source.
    """
    wrapped = wrap_source(source, plan_source, state, make_stage, tracker)
    if isinstance(wrapped, DynamicSource):
        return lambda index, count: _Parts([wrapped.build("source", index, count)])
    assert isinstance(wrapped, FixedPartitionedSource)

    def open_worker(index: int, count: int) -> WorkerSource:
        names = sorted(wrapped.list_parts())[index::count]
        return _Parts([wrapped.build_part("source", name, None) for name in names])

    return open_worker


class _Parts:
    """The parts of one worker, asked in turn, each when it is due."""

    def __init__(self, parts: list[Any]) -> None:
        self._open = parts

    def next_batch(self) -> list[SourceBatch]:
        batches: list[SourceBatch] = []
        for part in list(self._open):
            due = part.next_awake()
            if due is not None and due > datetime.now(UTC):
                continue
            try:
                batches += part.next_batch()
            except StopIteration:
                self._open.remove(part)
                part.close()
        if not self._open and not batches:
            raise StopIteration
        return batches

    def close(self) -> None:
        for part in self._open:
            part.close()
        self._open = []


class _WrappedFixed(FixedPartitionedSource[SourceBatch, Any]):
    def __init__(
        self,
        inner: FixedPartitionedSource[Any, Any],
        state: RunState,
        make_stage: Callable[[], Stage],
        tracker: CommitTracker | None,
        batch_size: int,
    ) -> None:
        self._inner = inner
        self._state = state
        self._make_stage = make_stage
        self._tracker = tracker
        self._batch_size = batch_size
        #: the workers, by their thread, that have a part which leads
        self._led: set[int] = set()

    def list_parts(self) -> list[str]:
        return self._inner.list_parts()

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> _WrappedPart:
        part = self._inner.build_part(step_id, for_part, resume_state)
        # One part of each worker leads: it is called whatever the wall clock shows, and checks it.
        leads = threading.get_ident() not in self._led
        self._led.add(threading.get_ident())
        return _WrappedPart(part, self._state, self._make_stage(), self._tracker, self._batch_size, leads=leads)


class _WrappedDynamic(DynamicSource[SourceBatch]):
    def __init__(
        self, inner: DynamicSource[Any], state: RunState, make_stage: Callable[[], Stage], batch_size: int
    ) -> None:
        self._inner = inner
        self._state = state
        self._make_stage = make_stage
        self._batch_size = batch_size

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _WrappedStateless:
        part = self._inner.build(step_id, worker_index, worker_count)
        return _WrappedStateless(part, self._state, self._make_stage(), self._batch_size)


class _WrappedPart(StatefulSourcePartition[SourceBatch, Any]):
    def __init__(
        self,
        inner: StatefulSourcePartition[Any, Any],
        state: RunState,
        stage: Stage,
        tracker: CommitTracker | None,
        batch_size: int,
        *,
        leads: bool,
    ) -> None:
        self._inner = inner
        offsets = state.offsets.worker() if tracker is not None else None
        self._reader = _OverrideReader(inner, offsets, keeps=stage.gate is not None)
        if stage.gate is not None:
            self._reader.states = _States(inner.snapshot, stage.gate.oldest_unfinished)
        self._leader = _Leader(state, self._reader) if leads else None
        confirming: Committer | None = None
        if tracker is not None and offsets is not None:
            confirming = TrackerCommitter(offsets, tracker)
        self._feed = SourceLoop(self._reader, stage, state, confirming, batch_size=batch_size)
        state.opened(self, "source", _closing(stage, inner.close))
        self._state = state

    def next_batch(self) -> list[SourceBatch]:
        return _guarded(self._feed, self._state, self._leader)

    def next_awake(self) -> datetime | None:
        return self._reader.next_awake() if self._leader is None else ALWAYS_DUE

    def snapshot(self) -> Any:
        self._feed.snapshot()
        states = self._reader.states
        return states.resumable() if states is not None else self._inner.snapshot()

    def close(self) -> None:
        self._state.closed(self)


class _WrappedStateless(StatelessSourcePartition[SourceBatch]):
    def __init__(self, inner: StatelessSourcePartition[Any], state: RunState, stage: Stage, batch_size: int) -> None:
        self._reader = _OverrideReader(inner, None, keeps=stage.gate is not None)
        self._feed = SourceLoop(self._reader, stage, state, None, batch_size=batch_size, snapshots=False)
        self._state = state
        self._leader = _Leader(state, self._reader)
        state.opened(self, "source", _closing(stage, inner.close))

    def next_batch(self) -> list[SourceBatch]:
        return _guarded(self._feed, self._state, self._leader)

    def next_awake(self) -> datetime | None:
        return ALWAYS_DUE

    def close(self) -> None:
        self._state.closed(self)


def _closing(stage: Stage, close: Callable[[], None]) -> Callable[[], None]:
    """Close what the stage holds, then the part of the caller's."""

    def close_both() -> None:
        try:
            stage.close()
        finally:
            close()

    return close_both


class _Leader:
    """What the part of a worker that is always due does beside handing over batches."""

    def __init__(self, state: RunState, reader: _OverrideReader) -> None:
        self._state = state
        self._reader = reader
        self._clock = WallClock()

    def next_batch(self, feed: SourceLoop) -> list[SourceBatch]:
        began = time.monotonic()
        if self._state.epochs.by_snapshots:
            self._clock.check(self._state.engine_epoch_s)
        batches = feed.next_batch()
        if not batches and self._reader.next_awake() is None:
            feed.rest(began)
        elif not batches:
            feed.rest(began, _ASLEEP)
        return batches


def _guarded(feed: SourceLoop, state: RunState, leader: _Leader | None) -> list[SourceBatch]:
    try:
        return feed.next_batch() if leader is None else leader.next_batch(feed)
    except StopIteration:
        raise
    except BaseException as fault:
        state.failed(fault)
        raise


class _OverrideReader:
    """Gathers the inner part's batches, which may hold one item each, into batches of production size."""

    def __init__(
        self,
        inner: StatefulSourcePartition[Any, Any] | StatelessSourcePartition[Any],
        offsets: WorkerOffsets | None,
        *,
        keeps: bool,
    ) -> None:
        self._inner = inner
        #: where the offsets of what is read are kept, if they are to be committed
        self._offsets = offsets
        #: the stage keeps records, so that one that comes again may meet itself there
        self._keeps = keeps
        self._over = False
        self._awake_at: datetime | None = None
        self._scheduled = False
        self._fault: BaseException | None = None
        #: what to resume with, where records are kept beyond their batch and the inner part has a state
        self.states: _States | None = None

    def next_awake(self) -> datetime | None:
        """When the inner part wants to be asked again, but soon: a stop and the ticks of the stage do not wait for it."""
        wanted = None if self._over else self._due_at()
        return None if wanted is None else min(wanted, datetime.now(UTC) + _AWAKE)

    def read(self, most: int) -> tuple[Sequence[Any], Positions, bool]:
        if self._fault is not None:
            raise self._fault
        if self.states is not None:
            self.states.before_read()
        items: list[Any] = []
        while len(items) < most and self._due():
            try:
                self._scheduled = False
                batch = list(self._inner.next_batch())
            except StopIteration:
                self._over = True
                break
            except BaseException as fault:
                # What was read before the fault goes its way first.
                if not items:
                    raise
                self._fault = fault
                break
            if not batch:
                break
            for cls in set(map(type, batch)):
                if not issubclass(cls, KafkaRecord | Message):
                    raise TypeError(f"a source yields KafkaRecords or Messages, not {cls.__qualname__}")
            items += batch
        if self.states is not None:
            self.states.handed_on += len(items)
        return (
            _distinct(items, always=self._keeps),
            self._positions(items) if self._offsets is not None else {},
            self._over,
        )

    def _due_at(self) -> datetime | None:
        """When the inner part wants to be asked again. It is asked for that once after each batch, as the engine does:
        what it answers may count from the moment of the question.
        """
        if not self._scheduled:
            self._awake_at, self._scheduled = self._inner.next_awake(), True
        return self._awake_at

    def _due(self) -> bool:
        at = self._due_at()
        return at is None or at <= datetime.now(UTC)

    def _positions(self, items: Iterable[Any]) -> dict[TopicPartition, int]:
        positions = {}
        for item in items:
            topic, partition, offset = place_of(item)
            if topic is not None and partition is not None and offset is not None:
                place = TopicPartition(topic, partition)
                if self._offsets is not None:
                    self._offsets.adopt(place, offset)
                positions[place] = offset + 1
        if self._offsets is not None:
            self._offsets.advance(positions)
        return positions


class _States:
    """The states of an inner part that records still in the stage may have to be read again with.

    A snapshot that held a later state would lose the records that a node of the flow keeps.
    """

    def __init__(self, snapshot: Callable[[], Any], oldest_unfinished: Callable[[], int]) -> None:
        self._snapshot = snapshot
        self._oldest_unfinished = oldest_unfinished
        #: how many records have been passed on
        self.handed_on = 0
        #: the state before each batch that has not left the stage as a whole, with the number of its first record
        self._before: deque[tuple[int, Any]] = deque()

    def before_read(self) -> None:
        """A batch is about to be read."""
        self._forget_finished()
        if not self._before or self._before[-1][0] <= self.handed_on:
            self._before.append((self.handed_on + 1, deepcopy(self._snapshot())))

    def resumable(self) -> Any:
        """The state from before the oldest record that has not left the stage."""
        self._forget_finished()
        return self._before[0][1] if self._before and self._before[0][0] <= self.handed_on else self._snapshot()

    def _forget_finished(self) -> None:
        oldest = self._oldest_unfinished()
        while self._before and (self._before[1][0] if len(self._before) > 1 else self.handed_on + 1) <= oldest:
            self._before.popleft()


def _distinct(items: list[Any], *, always: bool) -> list[Any]:
    """Every record is an object of its own, as it is when a broker hands it over; tests like to repeat one."""
    if not always and len(set(map(id, items))) == len(items):
        return items
    return [copy(item) for item in items]
