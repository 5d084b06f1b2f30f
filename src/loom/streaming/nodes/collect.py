"""Nodes that change the shape of a stream: `CollectBatch` gathers records, `ForEach` takes them apart, `Drain` ends them."""

from __future__ import annotations

from enum import StrEnum

from loom.core.choices import Declaration
from loom.streaming.typed import In, Out, Typed

__all__ = ["CollectBatch", "Drain", "ForEach", "WindowStrategy"]


class WindowStrategy(StrEnum):
    """When a batch is complete."""

    COLLECT = "collect"  #: it is full, or its first record has waited long enough


class CollectBatch(Declaration, Typed[In, Out]):
    """Gather up to `max_records` records, or what has come within `timeout_ms` milliseconds of the first one.

    Batches are kept per worker and place in the flow and may mix partitions. The end of the input hands on what waits. A
    stop discards it where positions are confirmed behind it (it is read again), and hands it on elsewhere. While a
    record waits, its position is not confirmed, so `timeout_ms` also bounds how far a crash goes back.

    >>> stored = Process(CollectBatch(500, timeout_ms=200), StoreAll, ForEach())
    """

    max_records: int
    timeout_ms: int
    window: WindowStrategy = WindowStrategy.COLLECT
    event_time: bool = False
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_records < 1:
            raise ValueError(f"CollectBatch(max_records={self.max_records}) must be at least 1")
        if self.timeout_ms < 1:
            raise ValueError(f"CollectBatch(timeout_ms={self.timeout_ms}) must be at least 1 millisecond")


class ForEach(Declaration, Typed[In, Out]):
    """Take a batch, or the results of an expansion, one record at a time."""


class Drain(Declaration, Typed[In, Out]):
    """A terminal node: records end here on purpose. Each is counted as dropped under this node's step id."""

    name: str | None = None
