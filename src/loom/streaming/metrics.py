"""Plain counters of a running flow, added per batch by its parts and read by observers.

Each part (a stage, the sink) owns one `Counts` and alone adds to it, so no lock is needed; `FlowMetrics.read` adds them
up. Every input record is counted in exactly one of written, dropped or one error kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import TypeVar

from loom.core.model import LoomFrozenStruct
from loom.streaming.errors import ErrorKind

K = TypeVar("K", bound=Hashable)

__all__ = ["Counts", "FlowCounts", "FlowMetrics"]


class Counts:
    """The counters of one part."""

    __slots__ = (
        "drops",
        "errors",
        "inputs_dropped",
        "inputs_failed",
        "inputs_written",
        "lost",
        "outputs",
        "read",
        "refused",
        "retries",
    )

    def __init__(self) -> None:
        #: records handed to the stage
        self.read = 0
        #: inputs with a result and no error; without a result or an error; with an error, by kind of the first
        self.inputs_written = 0
        self.inputs_dropped = 0
        self.inputs_failed: Counter[ErrorKind] = Counter()
        #: results that left, by topic or sink; what the broker refused is taken off again by the sink
        self.outputs: Counter[str] = Counter()
        #: results dropped by a step that may, by step id
        self.drops: Counter[str] = Counter()
        #: errors by kind and step id
        self.errors: Counter[tuple[ErrorKind, str]] = Counter()
        #: records the broker refused permanently, by topic
        self.refused: Counter[str] = Counter()
        #: repeated calls of steps with a retry policy, by step id
        self.retries: Counter[str] = Counter()
        #: records committed and processed by a run that failed, and not known to be written (at most so many)
        self.lost = 0


class FlowCounts(LoomFrozenStruct):
    """The counters of a whole flow at one moment. By input: `read == written + dropped + sum(failed.values())`."""

    read: int
    written: int
    dropped: int
    failed: dict[ErrorKind, int]
    outputs: dict[str, int]
    drops: dict[str, int]
    errors: dict[tuple[ErrorKind, str], int]
    refused: dict[str, int]
    #: records durable at the end of their epoch, all outputs together
    durable: int
    #: records of a failed run that were committed beforehand and may not have been written; an upper bound
    lost: int = 0
    #: repeated calls of steps with a retry policy, by step id
    retries: dict[str, int] = {}

    @property
    def accounted(self) -> int:
        """Inputs that have ended somewhere."""
        return self.written + self.dropped + sum(self.failed.values())


class FlowMetrics:
    """All counters of one run."""

    def __init__(self) -> None:
        self._parts: list[Counts] = []
        self.durable = 0

    def part(self) -> Counts:
        """Counters for a new part."""
        counts = Counts()
        self._parts.append(counts)
        return counts

    def read(self) -> FlowCounts:
        """Add up what the parts have counted so far."""
        parts = list(self._parts)
        return FlowCounts(
            sum(p.read for p in parts),
            sum(p.inputs_written for p in parts),
            sum(p.inputs_dropped for p in parts),
            _sum([p.inputs_failed for p in parts]),
            {name: count for name, count in _sum([p.outputs for p in parts]).items() if count},
            _sum([p.drops for p in parts]),
            _sum([p.errors for p in parts]),
            _sum([p.refused for p in parts]),
            self.durable,
            sum(p.lost for p in parts),
            _sum([p.retries for p in parts]),
        )


def _sum(counters: list[Counter[K]]) -> dict[K, int]:
    total: Counter[K] = Counter()
    for counter in counters:
        total.update(counter.copy())
    return dict(total)
