"""Nodes that change the shape of a stream: `CollectBatch` gathers records, `ForEach` takes them apart, `Drain` ends them."""

from __future__ import annotations

from enum import StrEnum

from loom.core.choices import Declaration
from loom.streaming.typed import In, Out, Typed

__all__ = ["CollectBatch", "Drain", "ForEach", "WindowStrategy"]


class WindowStrategy(StrEnum):
    """When a collected batch is complete.

    >>> list(WindowStrategy)
    [<WindowStrategy.COLLECT: 'collect'>]
    """

    COLLECT = "collect"  #: it is full, or its first record has waited long enough


class CollectBatch(Declaration, Typed[In, Out]):
    """Gather up to `max_records` records, or whatever arrives within `timeout_ms` of the first one.

    Batches are kept per worker and place in the flow, and may mix partitions. At the end of the input what waits is
    emitted. A stop discards it if its offsets are not committed yet (it is read again), and emits it otherwise. While a
    record waits its offset is not committed, so `timeout_ms` also limits how much is repeated after a crash.

    >>> stored = Process(CollectBatch(500, timeout_ms=200), StoreAll, ForEach())

    Args:
        max_records: the size of a full batch, at least 1.
        timeout_ms: how long the first record of a batch waits, in milliseconds, at least 1.
        window: `COLLECT`, the only strategy so far.
        event_time: not built yet; `True` does not compile.
        name: keeps two of these in one process apart.

    Raises:
        ValueError: for a number below 1.
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
    """Take a batch, or the results of an expansion, one record at a time.

    >>> each = Process(CollectBatch(500, timeout_ms=200), StoreAll, ForEach(), Audit)
    """


class Drain(Declaration, Typed[In, Out]):
    """A terminal node: records end here on purpose. Each is counted as dropped under the step id of this node.

    >>> rest = Fork.by(payload.country, {"ES": Process(IntoTopic("orders.es"))}, default=Process(Drain()))

    Args:
        name: keeps two of these in one process apart.
    """

    name: str | None = None
