"""Ends of a flow that need neither broker nor engine: a list of items to read, and a list that keeps what is written."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from datetime import timedelta
from typing import Any, NamedTuple

from loom.streaming.record import TopicPartition
from loom.streaming.runtime.assembly import MakeStage
from loom.streaming.runtime.commit import CommitTracker, TrackerCommitter
from loom.streaming.runtime.offsets import WorkerOffsets
from loom.streaming.runtime.override_view import place_of
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.source_loop import SourceLoop
from loom.streaming.runtime.stages.stage_io import SourceBatch
from loom.streaming.runtime.wall_clock import rested
from loom.streaming.runtime.worker_source import OpenWorker

__all__ = ["ListSink", "Pause", "open_items"]


class Pause(NamedTuple):
    """Nothing is read for so long."""

    time: timedelta


def open_items(
    items: Iterable[Any], batch_size: int, tracker: CommitTracker | None = None
) -> Callable[[RunState, MakeStage], OpenWorker]:
    """The `source` of a `Transport` whose one worker reads these records, messages and pauses."""

    def source(state: RunState, make_stage: MakeStage) -> OpenWorker:
        return lambda _index, _count: _Worker(items, batch_size, state, make_stage, tracker)

    return source


class _Worker:
    def __init__(
        self,
        items: Iterable[Any],
        batch_size: int,
        state: RunState,
        make_stage: MakeStage,
        tracker: CommitTracker | None,
    ) -> None:
        offsets = state.offsets.worker() if tracker is not None else None
        commits = TrackerCommitter(offsets, tracker) if tracker is not None and offsets is not None else None
        stage = make_stage()
        self._feed = SourceLoop(_Reader(items, offsets), stage, state, commits, batch_size=batch_size)
        self._state = state
        state.opened(self, "source", stage.close)

    def next_batch(self) -> list[SourceBatch]:
        began = time.monotonic()
        batches = self._feed.next_batch()
        if not batches:
            rested(began)
        return batches

    def close(self) -> None:
        self._state.closed(self)


class _Reader:
    def __init__(self, items: Iterable[Any], offsets: WorkerOffsets | None) -> None:
        # A broker hands over objects of their own; tests like to repeat one.
        self._items = deque(item if isinstance(item, Pause) else copy(item) for item in items)
        self._offsets = offsets
        self._paused_until = 0.0

    def read(self, most: int) -> tuple[Sequence[Any], dict[TopicPartition, int], bool]:
        items, found = self._items, []
        if time.monotonic() < self._paused_until:
            return (), {}, False
        while items and len(found) < most:
            item = items.popleft()
            if isinstance(item, Pause):
                self._paused_until = time.monotonic() + item.time.total_seconds()
                return found, self._positions(found), False
            found.append(item)
        return found, self._positions(found), not items

    def _positions(self, found: list[Any]) -> dict[TopicPartition, int]:
        positions: dict[TopicPartition, int] = {}
        if self._offsets is None:
            return positions
        for item in found:
            topic, partition, offset = place_of(item)
            if topic is not None and partition is not None and offset is not None:
                place = TopicPartition(topic, partition)
                self._offsets.adopt(place, offset)
                positions[place] = offset + 1
        self._offsets.advance(positions)
        return positions


class ListSink:
    """An `IntoSink` that adds what it is handed to a list."""

    def __init__(self, kept: list[Any]) -> None:
        self._kept = kept

    def build_partition(
        self, config: Any, worker_index: int, worker_count: int, bridge: Any = None, session_manager: Any = None
    ) -> ListSink:
        return self

    def write_batch(self, items: list[Any]) -> None:
        self._kept += items

    def flush(self) -> None: ...

    def close(self) -> None: ...
