"""The partitions of a process in figures: who reads them, how far, how far behind. Read when somebody asks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from loom.core.model import LoomFrozenStruct
from loom.streaming.record import TopicPartition

if TYPE_CHECKING:
    from loom.streaming.runtime.offsets import PartitionOffsets
    from loom.streaming.runtime.run_state import RunState
    from loom.streaming.runtime.telemetry.broker_monitor import BrokerMonitor

__all__ = ["PartitionFigures", "offset_rows", "partition_figures"]


class PartitionFigures(LoomFrozenStruct):
    """One partition that this process reads. `None`: not known, or not yet."""

    topic: str
    partition: int
    #: the number of the worker that reads it
    worker: int
    #: the next offset to read, and the one at which the next run would begin
    read_offset: int | None
    committed_offset: int | None
    #: the end of the partition
    end_offset: int | None
    #: records between what is committed and the end
    lag_records: int | None
    #: age of the last record read while there are later ones, else 0
    lag_seconds: float | None


def offset_rows(state: RunState) -> list[PartitionOffsets]:
    """The rows of all workers, also of partitions whose position is not known yet."""
    return [row for standing in list(state.standings) for row in standing.offsets.rows]


def partition_figures(state: RunState, monitor: BrokerMonitor | None, began: float) -> list[PartitionFigures]:
    """The partitions that are read. `began`: when the run did, in seconds since 1970."""
    ends: Mapping[TopicPartition, int] = monitor.ends if monitor is not None else {}
    found = [
        _figures(worker, row, ends.get(row.partition), began)
        for worker, standing in enumerate(list(state.standings))
        for row in standing.offsets.rows
        if row.start is not None
    ]
    return sorted(found, key=lambda one: (one.topic, one.partition))


def _figures(worker: int, row: PartitionOffsets, end: int | None, began: float) -> PartitionFigures:
    committed = row.restart
    if end is not None and row.read is not None:
        # The broker is asked once a second, and what was read meanwhile is the end at least.
        end = max(end, row.read)
    lag = max(end - committed, 0) if end is not None and committed is not None else None
    age = None if lag is None else _age(row, began) if lag else 0.0
    return PartitionFigures(row.partition.topic, row.partition.partition, worker, row.read, committed, end, lag, age)


def _age(row: PartitionOffsets, began: float) -> float:
    """Seconds since the last record read was produced; since the start if none was."""
    since = began if row.read_time_ms is None else row.read_time_ms / 1000
    return max(time.time() - since, 0.0)
