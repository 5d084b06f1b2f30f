"""What `/live.json` answers: one process of a flow as it is now, with its last 15 minutes. Read by the live page and `loom top`.

Fields are only ever added; a change that breaks a reader raises `VERSION`. `msgspec.json.schema(LiveDocument)` is the JSON
schema, and `msgspec.json.decode(text, type=LiveDocument)` reads a document back. `null` in a field: not known, or not yet.
"""

from __future__ import annotations

from typing import Final

from loom.core.model import LoomFrozenStruct
from loom.streaming.runtime.telemetry.partitions import PartitionFigures
from loom.streaming.runtime.telemetry.recent_errors import RecentError

__all__ = [
    "VERSION",
    "LiveCheck",
    "LiveDocument",
    "LiveEdge",
    "LiveHistory",
    "LiveNode",
    "LiveNodeHistory",
    "LiveNow",
    "LiveProcess",
    "LiveTotals",
]

VERSION: Final = 1

#: one value for each sample, the oldest first
_Series = tuple[float | None, ...]


class LiveProcess(LoomFrozenStruct):
    """Which process tells this."""

    #: its number, from 0, and how many share the partitions; members of a group do not know of each other
    index: int
    of: int
    #: its name in the log
    instance: str
    pid: int
    #: the version of Loom
    version: str
    #: when the run began, in seconds since 1970
    started_at: float


class LiveCheck(LoomFrozenStruct):
    """One of the checks of `/healthz` or `/readyz`."""

    name: str
    ok: bool
    detail: str


class LiveTotals(LoomFrozenStruct):
    """Counters since the start of the run, by input record: `read` is the sum of the next three, but for those in progress."""

    read: int
    written: int
    dropped: int
    failed: int
    #: results made durable, results that the broker refused for good, records that may be lost
    durable: int
    refused: int
    lost: int
    #: repeated calls of steps
    retries: int
    recoveries: int
    rebalances: int
    #: how often a supervisor has started this process again
    restarts: int


class LiveNow(LoomFrozenStruct):
    """Rates over the last seconds, and what is there at this moment."""

    read_per_s: float
    written_per_s: float
    failed_per_s: float
    #: from the timestamp of a record until its results were durable, over the last minute, in seconds
    latency_p50_s: float | None
    latency_p95_s: float | None
    #: all partitions together, and the partition that is furthest behind
    lag_records: int | None
    lag_seconds: float | None
    in_flight: int
    buffered: int


class LiveNodeHistory(LoomFrozenStruct):
    """The samples of one node, as those of `LiveHistory`."""

    came_per_s: _Series
    failed_per_s: _Series


class LiveNode(LoomFrozenStruct):
    """A place that records come to: the source, a node, a topic. Ids and texts are those of `loom graph`."""

    id: str
    #: `box`, `store`, `choice` or `end`
    form: str
    step_id: str | None
    title: str
    said: tuple[str, ...]
    topics: tuple[str, ...]
    #: within the process of the flow
    inside: bool
    #: records that came, and that went on to the next node; `estimated`: one of them is, by the batches
    #: that were timed, one a second
    came: float | None
    left: float | None
    estimated: bool
    came_per_s: float | None
    left_per_s: float | None
    failed: int
    failed_per_s: float
    dropped: int
    retries: int
    #: records that it keeps now
    buffered: int
    #: mean time for a batch over the last minute, in seconds
    batch_s: float | None
    #: workers in which its circuit breaker is open
    open_circuits: int
    history: LiveNodeHistory


class LiveEdge(LoomFrozenStruct):
    """A way from a node, or from the whole process (`process`), to a node."""

    source: str
    target: str
    title: str | None
    #: for records that failed
    errors: bool


class LiveHistory(LoomFrozenStruct):
    """Samples of the last 15 minutes, the oldest first."""

    #: seconds between two samples, and when the last one was taken, in seconds since 1970
    every_s: float
    last_at: float | None
    read_per_s: _Series
    written_per_s: _Series
    failed_per_s: _Series
    lag_records: _Series
    lag_seconds: _Series
    latency_p95_s: _Series
    in_flight: _Series
    buffered: _Series
    #: 1 where the process was ready, else 0
    ready: _Series


class LiveDocument(LoomFrozenStruct):
    """One process of a flow."""

    version: int
    flow: str
    #: when this was told, in seconds since 1970
    at: float
    #: `running`, `not ready`, `stalled` (alive, and no longer healthy), `stopping` or `failed`
    state: str
    delivery: str
    group: str
    process: LiveProcess
    health: tuple[LiveCheck, ...]
    readiness: tuple[LiveCheck, ...]
    totals: LiveTotals
    now: LiveNow
    nodes: tuple[LiveNode, ...]
    edges: tuple[LiveEdge, ...]
    #: that this process reads
    partitions: tuple[PartitionFigures, ...]
    #: the latest first
    errors: tuple[RecentError, ...]
    history: LiveHistory
