"""Plain counters of a running flow, added per batch by its parts and read by observers.

Each part (a stage, the sink) owns one `Counts` and alone adds to it, so no lock is needed; `FlowMetrics.read` adds them
up. Every input record is counted in exactly one of written, dropped or one error kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import TypeVar

from loom.core.model import LoomFrozenStruct
from loom.core.observability.metrics import Histogram
from loom.streaming.errors import ErrorKind

K = TypeVar("K", bound=Hashable)

__all__ = ["Counts", "FlowCounts", "FlowMetrics", "Timings"]

_BATCH_SIZES = (1, 10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)
_SHORT = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_LONG = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_AGES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0)


class Timings:
    """What one part measures beside its counters, where an observer serves metrics."""

    __slots__ = ("batch_records", "commit_s", "epochs", "flush_s", "latency_s", "node_records", "node_s", "read_topics")

    def __init__(self) -> None:
        #: records read, by topic
        self.read_topics: Counter[str] = Counter()
        self.batch_records = Histogram(_BATCH_SIZES)
        #: seconds from the timestamp of a record until its results were durable
        self.latency_s = Histogram(_AGES)
        #: epochs, the seconds that their ends took, and those of commits to the group
        self.epochs = 0
        self.flush_s = Histogram(_LONG)
        self.commit_s = Histogram(_LONG)
        #: seconds of a node for a batch, by step id
        self.node_s: dict[str, Histogram] = {}
        #: records that came to a node in the batches that were timed, by step id
        self.node_records: Counter[str] = Counter()

    def node_took(self, step_id: str, seconds: float, records: int) -> None:
        """A node was at work on so many records of a batch."""
        self.node_records[step_id] += records
        if step_id not in self.node_s:
            self.node_s[step_id] = Histogram(_SHORT)
        self.node_s[step_id].observe(seconds)


class Counts:
    """The counters of one part."""

    __slots__ = (
        "drops",
        "errors",
        "inputs_dropped",
        "inputs_failed",
        "inputs_written",
        "lost",
        "open_circuits",
        "outputs",
        "read",
        "refused",
        "retries",
        "timings",
    )

    def __init__(self, timings: Timings | None = None) -> None:
        #: `None` where nobody asked for them
        self.timings = timings
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
        #: repeated calls under a retry policy, by the step id of the step or scope
        self.retries: Counter[str] = Counter()
        #: by step id, 1 for a scope whose circuit breaker is open in this part, 0 for one that was
        self.open_circuits: Counter[str] = Counter()
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
    #: repeated calls under a retry policy, by the step id of the step or scope
    retries: dict[str, int] = {}
    #: in how many workers the circuit breaker of a scope is open now, by step id
    open_circuits: dict[str, int] = {}

    @property
    def accounted(self) -> int:
        """Inputs that have ended somewhere."""
        return self.written + self.dropped + sum(self.failed.values())


class FlowMetrics:
    """All counters of one run."""

    def __init__(self, *, measured: bool = False) -> None:
        self._measured = measured
        self._parts: list[Counts] = []
        self.durable = 0

    def part(self) -> Counts:
        """Counters for a new part."""
        counts = Counts(Timings() if self._measured else None)
        self._parts.append(counts)
        return counts

    def timings(self) -> list[Timings]:
        """What the parts have measured."""
        return [part.timings for part in list(self._parts) if part.timings is not None]

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
            _sum([p.open_circuits for p in parts]),
        )


def _sum(counters: list[Counter[K]]) -> dict[K, int]:
    total: Counter[K] = Counter()
    for counter in counters:
        total.update(counter.copy())
    return dict(total)
