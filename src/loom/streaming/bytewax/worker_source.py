"""The source of a worker that is the runtime's, as a source of the engine."""

from __future__ import annotations

from datetime import datetime

from bytewax.inputs import AbortExecution, DynamicSource, StatelessSourcePartition

from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.stages.stage_io import SourceBatch
from loom.streaming.runtime.wall_clock import ALWAYS_DUE
from loom.streaming.runtime.worker_source import OpenWorker, WorkerSource

__all__ = ["DrivenSource"]


class DrivenSource(DynamicSource[SourceBatch]):
    """Each worker reads what it opens. Keeps nothing for a recovery store."""

    def __init__(self, open_worker: OpenWorker, state: RunState) -> None:
        self._open_worker = open_worker
        self._state = state

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Driven:
        return _Driven(self._open_worker(worker_index, worker_count), self._state)


class _Driven(StatelessSourcePartition[SourceBatch]):
    def __init__(self, source: WorkerSource, state: RunState) -> None:
        self._source = source
        self._state = state

    def next_batch(self) -> list[SourceBatch]:
        if self._state.aborting():
            raise AbortExecution
        try:
            return self._source.next_batch()
        except StopIteration:
            raise
        except BaseException as fault:
            self._state.failed(fault)
            raise

    def next_awake(self) -> datetime:
        # A worker that has nothing to hand over rests by itself, and knows better than the engine what ends that.
        return ALWAYS_DUE

    def close(self) -> None:
        self._source.close()
