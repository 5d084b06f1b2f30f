"""The source of a process that is a member of its group, to the engine: one part for each worker, always listed.

Which partitions a worker reads changes while the engine runs, and the engine lists its parts once.
"""

from __future__ import annotations

from datetime import datetime

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from loom.streaming.bytewax.source import batch_of
from loom.streaming.runtime.group_workers import GroupWorkers
from loom.streaming.runtime.member_worker import MemberWorker
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.stages.stage_io import SourceBatch
from loom.streaming.runtime.wall_clock import ALWAYS_DUE

__all__ = ["GroupSource"]


class GroupSource(FixedPartitionedSource[SourceBatch, None]):
    """A part for each worker of the process, whatever it has to read."""

    def __init__(self, workers: GroupWorkers, state: RunState) -> None:
        self._workers = workers
        self._state = state

    def list_parts(self) -> list[str]:
        return [f"worker-{index:03d}" for index in range(self._state.workers)]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _Part:
        index = int(for_part.rpartition("-")[2])
        return _Part(self._workers.open_share(index, self._state.workers))


class _Part(StatefulSourcePartition[SourceBatch, None]):
    """One worker, to the engine."""

    def __init__(self, worker: MemberWorker) -> None:
        self._worker = worker

    def next_batch(self) -> list[SourceBatch]:
        return batch_of(self._worker)

    def next_awake(self) -> datetime | None:
        return ALWAYS_DUE

    def snapshot(self) -> None:
        self._worker.feed.snapshot()

    def close(self) -> None:
        self._worker.close()
