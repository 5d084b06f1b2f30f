"""Metrics as plain data: what a source of metrics offers, and what an observer that serves metrics reads when it is asked.

No client of a monitoring system is imported here, so whatever counts depends on none.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

from loom.core.model import LoomFrozenStruct

__all__ = [
    "Check",
    "Histogram",
    "HistogramValue",
    "Labels",
    "Measures",
    "Metric",
    "MetricKind",
    "MetricSamples",
    "MetricsSource",
    "Page",
]

#: the values of a metric's labels, in the order in which the metric names them
Labels: TypeAlias = tuple[str, ...]


class MetricKind(enum.StrEnum):
    """How a value changes.

    >>> MetricKind("counter")
    <MetricKind.COUNTER: 'counter'>
    """

    COUNTER = "counter"  #: only grows, from 0 at the start of the process
    GAUGE = "gauge"  #: goes up and down
    HISTOGRAM = "histogram"  #: how many values were how large
    INFO = "info"  #: says something in its labels


class Metric(LoomFrozenStruct):
    """One metric, as it is scraped.

    Args:
        name: with its unit, and `_total` for a counter.
        kind: how it changes.
        help: what it tells, in one sentence.
        labels: the names of its labels.
    """

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()


class HistogramValue(LoomFrozenStruct):
    """How many values were how large, at one moment.

    Args:
        bounds: the upper bounds of the buckets but the last, which has none.
        counts: how many values fell into each bucket; one more than there are bounds.
        sum: all values together.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


class MetricSamples(LoomFrozenStruct):
    """A metric with its values at one moment.

    Args:
        metric: which one.
        values: the value for each combination of labels.
    """

    metric: Metric
    values: Mapping[Labels, float | HistogramValue]


class Check(LoomFrozenStruct):
    """One thing that must be right.

    Args:
        name: what was checked.
        ok: whether it is right.
        detail: what is wrong, or what was found.
    """

    name: str
    ok: bool
    detail: str = ""


class Page(LoomFrozenStruct):
    """Something that can be fetched beside the metrics.

    Args:
        content_type: what it is, as HTTP says it.
        content: makes it, on the thread of whoever asks.
    """

    content_type: str
    content: Callable[[], bytes]


class Measures(LoomFrozenStruct):
    """What an observer that serves metrics wants to be measured.

    Args:
        client_statistics_ms: how often the Kafka clients report what they have sent and received, in milliseconds; 0: never.
    """

    client_statistics_ms: int = 5_000


class MetricsSource(Protocol):
    """Something that counts. It is asked on the thread of whoever scrapes, and only reads what is counted anyway."""

    @property
    def name(self) -> str:
        """A source with the same name takes the place of an earlier one."""

    @property
    def process_index(self) -> int:
        """Which of several processes of one machine this is; 0 for the only one."""

    def metrics(self) -> Iterable[MetricSamples]:
        """All metrics, as of now."""

    def health(self) -> Iterable[Check]:
        """Whether the process is alive and at work."""

    def readiness(self) -> Iterable[Check]:
        """Whether it can do its work now."""

    def pages(self) -> Mapping[str, Page]:
        """What else is served, by path."""


class Histogram:
    """Counts values by their size. Used by one thread, read by any.

    >>> sizes = Histogram((1, 10))
    >>> for size in (1, 5, 50):
    ...     sizes.observe(size)
    >>> sizes.value
    HistogramValue(bounds=(1, 10), counts=(1, 1, 1), sum=56.0)

    Args:
        bounds: the upper bounds of the buckets, ascending.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value.

        Args:
            value: in the unit of the metric.
        """
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    @property
    def value(self) -> HistogramValue:
        """What has been counted so far."""
        return HistogramValue(self._bounds, tuple(self._counts), self._sum)

    @staticmethod
    def total(parts: Iterable[HistogramValue]) -> HistogramValue | None:
        """Several with the same bounds, added up; `None` for none.

        Args:
            parts: what to add up.
        """
        found = list(parts)
        if not found:
            return None
        counts = tuple(map(sum, zip(*(part.counts for part in found), strict=True)))
        return HistogramValue(found[0].bounds, counts, sum(part.sum for part in found))
