"""A flow in memory: records from a script in place of Kafka, and an engine run until the script is over.

Called by the test runner. Records come in batches of the size that a consumer makes; time moves only when the script
moves it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from loom.core.model import LoomFrozenStruct
from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.assembly import BuiltDataflow, MakeStage
from loom.streaming.runtime.engine import Engine
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.offsets import WorkerOffsets
from loom.streaming.runtime.run_errors import raise_fault
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.settings import BytewaxRuntimeConfig
from loom.streaming.runtime.source_loop import SourceLoop
from loom.streaming.runtime.stages.buffering import BufferingNodes
from loom.streaming.runtime.stages.stage import Stage
from loom.streaming.runtime.stages.stage_io import Positions, SourceBatch
from loom.streaming.runtime.worker_source import WorkerSource

__all__ = ["Advance", "ManualClock", "open_script", "run_in_memory"]

#: seconds of one wait for the end of a call
_SLICE = 0.02


class Advance(LoomFrozenStruct):
    """A moment of the script at which time moves on, in milliseconds."""

    ms: int


class ManualClock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def open_script(
    script: Iterable[Any],
    view: RecordAccessor,
    clock: ManualClock,
    batch_size: int,
    state: RunState,
    make_stage: MakeStage,
) -> WorkerSource:
    """A worker that reads a script of records (objects that `view` can read) and moments."""
    stage = make_stage()
    # What is random in production is the same in each run of a test.
    stage.room.random = random.Random(0).random
    read = lambda: state.metrics.read().read  # noqa: E731
    reader = _ScriptReader(deque(script), view, clock, stage.room, read, state.offsets.worker())
    feed = SourceLoop(reader, stage, state, None, batch_size=batch_size, clock=clock)
    return _ScriptWorker(feed, state, stage, clock)


class _ScriptWorker:
    def __init__(self, feed: SourceLoop, state: RunState, stage: Stage, clock: ManualClock) -> None:
        self._feed = feed
        self._state = state
        self._stage = stage
        self._clock = clock
        state.opened(self, "source", stage.close)

    def next_batch(self) -> list[SourceBatch]:
        self._pass_time()
        batches = self._feed.next_batch()
        if not batches and self._stage.room.elsewhere:
            self._stage.room.wait(_SLICE)
        return batches

    def close(self) -> None:
        self._state.closed(self)

    def _pass_time(self) -> None:
        """Where nothing is read, the script moves no time: let the clock go to the next moment at which a node acts."""
        room = self._stage.room
        if room.elsewhere:
            return  # calls take their own time
        if (self._feed.is_draining and self._stage.ending) or room.credit(1) <= 0:
            due = room.due()
            if due is not None and due > self._clock.now:
                self._clock.now = due


class _ScriptReader:
    """Returns the records up to the next moment; moves the clock when the stage has processed all of them."""

    def __init__(
        self,
        script: deque[Any],
        view: RecordAccessor,
        clock: ManualClock,
        room: BufferingNodes,
        worked_on: Callable[[], int],
        offsets: WorkerOffsets,
    ) -> None:
        self._script = script
        self._view = view
        self._clock = clock
        self._room = room
        self._worked_on = worked_on
        self._offsets = offsets
        self._handed_out = 0
        #: the time of the clock after the current moment
        self._until: float | None = None

    def read(self, most: int) -> tuple[Sequence[Any], Positions, bool]:
        script = self._script
        if self._until is None and script and isinstance(script[0], Advance):
            self._until = round(self._clock.now + script.popleft().ms / 1000, 6)
        if self._until is not None:
            self._move_on(self._until)
            return (), {}, False
        records: list[Any] = []
        while script and len(records) < most and not isinstance(script[0], Advance):
            records.append(script.popleft())
        self._handed_out += len(records)
        return records, self._positions(records), not script

    def _move_on(self, until: float) -> None:
        """Let the clock go to the next time at which a node wants to act, as it would pass that in production too."""
        if self._room.elsewhere:
            self._room.settle()
        due = self._room.due()
        if self._worked_on() != self._handed_out or (due is not None and due <= self._clock.now):
            # The stage is not there yet; the feed asks again.
            return
        self._clock.now = until if due is None else min(due, until)
        if self._clock.now == until:
            self._until = None

    def _positions(self, records: Iterable[Any]) -> dict[TopicPartition, int]:
        positions = {}
        for record in records:
            topic, partition, offset = self._view.place(record)
            if topic is not None and partition is not None and offset is not None:
                place = TopicPartition(topic, partition)
                self._offsets.adopt(place, offset)
                positions[place] = offset + 1
        self._offsets.advance(positions)
        return positions


def run_in_memory(flow: str, built: BuiltDataflow, engine: Engine) -> None:
    """Run a dataflow whose input ends, in this thread. Raises what a runner would: the user's exception is the cause."""
    try:
        engine.run(built.dataflow, BytewaxRuntimeConfig(), Layout())
    except BaseException as surfaced:  # noqa: BLE001 - an engine's panics are no Exception
        raise_fault(flow, built.state.fault or surfaced.__cause__ or surfaced)
    finally:
        built.finish()
