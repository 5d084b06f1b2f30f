"""What a flow's counters were at the latest looks, and the rates and times that follow. Used by the live picture alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from loom.core.observability.metrics import Histogram, HistogramValue
from loom.streaming.metrics import FlowCounts, Timings
from loom.streaming.runtime.telemetry.node_flow import NodeRecords

__all__ = ["Tick", "Ticks", "measured", "quantile"]

#: seconds over which rates, and times, are taken
_RATES, _TIMES = 5.0, 60.0


class Tick(NamedTuple):
    """The counters at one look."""

    #: monotonic seconds
    at: float
    counts: FlowCounts
    #: by the id of a box
    nodes: Mapping[str, NodeRecords]
    #: by step id
    failed: Mapping[str, int]
    latency_s: HistogramValue | None
    #: by step id
    node_s: Mapping[str, HistogramValue]


class Ticks:
    """The looks of the last minute. Used under the lock of whoever looks."""

    def __init__(self) -> None:
        self._kept: deque[Tick] = deque()

    def add(self, tick: Tick) -> None:
        """Note a look."""
        kept = self._kept
        kept.append(tick)
        while len(kept) > 2 and kept[1].at <= tick.at - _TIMES:
            kept.popleft()

    @property
    def last(self) -> Tick:
        """The latest look; there is one."""
        return self._kept[-1]

    def recent(self, seconds: float = _RATES) -> Tick:
        """The look of so many seconds ago, or the first after it."""
        since = self.last.at - seconds - 0.1
        return next(tick for tick in self._kept if tick.at >= since)

    def per_second(self, now: float | None, before: float | None, since: Tick) -> float | None:
        """How fast a counter grows since a look; `None` where it is not known."""
        took = self.last.at - since.at
        if now is None:
            return None
        return max(now - (before or 0), 0) / took if took > 0 else 0.0

    def latency(self, q: float) -> float | None:
        """A quantile of the latency over the last minute, in seconds."""
        return quantile(_since(self.last.latency_s, self.recent(_TIMES).latency_s), q)

    def batch_s(self, step_id: str | None) -> float | None:
        """The mean time of a step for a batch over the last minute, in seconds."""
        value = _since(self.last.node_s.get(step_id or ""), self.recent(_TIMES).node_s.get(step_id or ""))
        count = sum(value.counts) if value is not None else 0
        return value.sum / count if value is not None and count else None


def measured(timings: Iterable[Timings]) -> tuple[HistogramValue | None, dict[str, HistogramValue]]:
    """The latencies, and the times of nodes by step id, of all parts together."""
    parts = list(timings)
    by_step: dict[str, list[HistogramValue]] = {}
    for part in parts:
        for step, histogram in list(part.node_s.items()):
            by_step.setdefault(step, []).append(histogram.value)
    nodes = {step: total for step, values in by_step.items() if (total := Histogram.total(values)) is not None}
    return Histogram.total(part.latency_s.value for part in parts), nodes


def quantile(value: HistogramValue | None, q: float) -> float | None:
    """Below which value a share of all values is, within the bucket as if they were spread evenly; `None` of none.

    >>> quantile(HistogramValue((1.0, 2.0), (5, 5, 0), 12.0), 0.75)
    1.5
    """
    total = sum(value.counts) if value is not None else 0
    if value is None or not total:
        return None
    wanted, seen, low = q * total, 0, 0.0
    for bound, count in zip(value.bounds, value.counts, strict=False):
        if seen + count >= wanted and count:
            return low + (bound - low) * (wanted - seen) / count
        seen, low = seen + count, bound
    return low


def _since(now: HistogramValue | None, before: HistogramValue | None) -> HistogramValue | None:
    if now is None or before is None or before is now:
        return now
    counts = tuple(max(new - old, 0) for new, old in zip(now.counts, before.counts, strict=True))
    return HistogramValue(now.bounds, counts, max(now.sum - before.sum, 0.0))
