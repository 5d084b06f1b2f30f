"""The source of one worker, whichever engine drives it: batches until everything is committed, then the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from loom.streaming.runtime.stages.stage_io import SourceBatch

__all__ = ["OpenWorker", "WorkerSource"]


class WorkerSource(Protocol):
    """What one worker reads. Opened, asked and closed on the worker's thread."""

    def next_batch(self) -> list[SourceBatch]:
        """The next batches; none while there is nothing to do, after a rest. Raises `StopIteration` at the end."""

    def close(self) -> None:
        """Release what it holds; never raises."""


#: opens the source of a worker: given its number and how many workers the process has
OpenWorker: TypeAlias = Callable[[int, int], WorkerSource]
