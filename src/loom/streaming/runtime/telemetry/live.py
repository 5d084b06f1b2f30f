"""The live picture of one run: looks at its counters once a second, keeps the last 15 minutes, and tells all of it as JSON.

Made by `Assembly` where an observer serves metrics. It only reads, on a thread of its own; however many ask, the document is
made at most twice a second.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import msgspec

from loom.core.installed import installed_version
from loom.core.logger import get_logger
from loom.core.observability.metrics import Check, Page
from loom.core.thread_beside import thread_beside
from loom.streaming.compiler.explain.picture import Box, picture_of
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.runtime.instance import instance_name
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.telemetry.broker_monitor import BrokerMonitor
from loom.streaming.runtime.telemetry.flow_metrics import FlowMetricsSource
from loom.streaming.runtime.telemetry.live_document import (
    VERSION,
    LiveCheck,
    LiveDocument,
    LiveEdge,
    LiveNode,
    LiveNow,
    LiveProcess,
    LiveTotals,
)
from loom.streaming.runtime.telemetry.live_history import EVERY_S, History
from loom.streaming.runtime.telemetry.live_page import page_files
from loom.streaming.runtime.telemetry.live_ticks import Tick, Ticks, measured
from loom.streaming.runtime.telemetry.node_flow import NodeFlow, failures_by_step
from loom.streaming.runtime.telemetry.partitions import PartitionFigures, partition_figures
from loom.streaming.runtime.telemetry.recent_errors import RecentErrors

__all__ = ["LivePicture"]

_log = get_logger(__name__)

#: seconds between two looks, and that a document may be old
_EVERY, _OLD = 1.0, 0.5
#: seconds that the end of a run waits for a look
_LEAVE = 0.5
#: failures that are told
_ERRORS = 50


class LivePicture:
    """What one process of a flow does now. Safe to ask from any thread."""

    def __init__(
        self,
        plan: CompiledPlan,
        state: RunState,
        monitor: BrokerMonitor | None,
        metrics: FlowMetricsSource,
        layout: Layout,
    ) -> None:
        self._plan = plan
        self._state = state
        self._monitor = monitor
        self._metrics = metrics
        self._layout = layout
        #: the name of the process in the log
        self.instance = instance_name(None)
        self._picture = picture_of(plan)
        self._edges = tuple(LiveEdge(one.source, one.target, one.title, one.errors) for one in self._picture.edges)
        self._flow = NodeFlow(plan, self._picture)
        self._ticks = Ticks()
        self._history = History(box.id for box in self._picture.boxes)
        self._errors = state.error_log.recent = RecentErrors()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._told: tuple[float, bytes] | None = None
        self._look()

    def pages(self) -> Mapping[str, Page]:
        """The document, and the web page that shows it, by path."""
        return {**page_files(), "/live.json": Page("application/json", self.content)}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look once a second during the block."""
        with thread_beside("loom-live", self._watch, self._over, _LEAVE):
            yield

    def content(self) -> bytes:
        """The document as JSON."""
        with self._lock:
            now = time.monotonic()
            if self._told is None or now - self._told[0] >= _OLD:
                self._told = now, msgspec.json.encode(self._document())
            return self._told[1]

    def document(self) -> LiveDocument:
        """The document."""
        with self._lock:
            return self._document()

    def _watch(self) -> None:
        sample_at = time.monotonic()
        while not self._over.wait(_EVERY):
            try:
                with self._lock:
                    self._look()
                    if time.monotonic() >= sample_at:
                        sample_at += EVERY_S
                        self._sample()
            except Exception as error:  # noqa: BLE001 - a fault of the picture is not a fault of the flow
                _log.exception("live_picture_failed", error=str(error))
                return

    def _look(self) -> None:
        """Note the counters as they are now."""
        metrics = self._state.metrics
        counts, timings = metrics.read(), metrics.timings()
        latency, node_s = measured(timings)
        nodes = self._flow.look(counts, [part.node_records.copy() for part in timings])
        self._ticks.add(Tick(time.monotonic(), counts, nodes, failures_by_step(counts), latency, node_s))

    def _sample(self) -> None:
        ready = all(check.ok for check in self._metrics.readiness())
        self._history.add(time.time(), self._now(self._partitions()), self._nodes(), ready=ready)

    def _document(self) -> LiveDocument:
        if time.monotonic() - self._ticks.last.at >= _OLD:
            self._look()
        health, readiness = _checks(self._metrics.health()), _checks(self._metrics.readiness())
        partitions, source = self._partitions(), self._plan.source
        return LiveDocument(
            VERSION,
            self._plan.name,
            time.time(),
            self._named_state(health, readiness),
            source.mode.summary,
            source.settings.group_id,
            self._process(),
            health,
            readiness,
            self._totals(),
            self._now(partitions),
            tuple(self._nodes()),
            self._edges,
            tuple(partitions),
            tuple(self._errors.latest()[:_ERRORS]),
            self._history.of_flow(),
        )

    def _named_state(self, health: Iterable[LiveCheck], readiness: Iterable[LiveCheck]) -> str:
        if self._state.fault is not None:
            return "failed"
        if not all(check.ok for check in health):
            return "stalled"
        if self._state.stop.requested:
            return "stopping"
        return "running" if all(check.ok for check in readiness) else "not ready"

    def _process(self) -> LiveProcess:
        layout, began = self._layout, self._metrics.began
        return LiveProcess(layout.index, layout.processes, self.instance, os.getpid(), installed_version(), began)

    def _totals(self) -> LiveTotals:
        counts, state = self._ticks.last.counts, self._state
        return LiveTotals(
            counts.read,
            counts.written,
            counts.dropped,
            sum(counts.failed.values()),
            counts.durable,
            sum(counts.refused.values()),
            counts.lost,
            sum(counts.retries.values()),
            state.recoveries.total if state.recoveries is not None else 0,
            state.rebalances,
            state.supervisor.restarts if state.supervisor is not None else 0,
        )

    def _partitions(self) -> list[PartitionFigures]:
        return partition_figures(self._state, self._monitor, self._metrics.began)

    def _now(self, partitions: Iterable[PartitionFigures]) -> LiveNow:
        ticks, standings = self._ticks, list(self._state.standings)
        now, since = ticks.last.counts, ticks.recent()
        before = since.counts
        lags = [one.lag_records for one in partitions if one.lag_records is not None]
        ages = [one.lag_seconds for one in partitions if one.lag_seconds is not None]
        return LiveNow(
            ticks.per_second(now.read, before.read, since) or 0.0,
            ticks.per_second(sum(now.outputs.values()), sum(before.outputs.values()), since) or 0.0,
            ticks.per_second(sum(now.failed.values()), sum(before.failed.values()), since) or 0.0,
            ticks.latency(0.5),
            ticks.latency(0.95),
            sum(lags) if lags else None,
            max(ages, default=None),
            sum(standing.in_flight() for standing in standings),
            sum(standing.buffered() for standing in standings),
        )

    def _nodes(self) -> list[LiveNode]:
        buffered: dict[str, int] = {}
        for standing in list(self._state.standings):
            for step, count in standing.buffered_by().items():
                buffered[step] = buffered.get(step, 0) + count
        return [self._node(box, buffered) for box in self._picture.boxes]

    def _node(self, box: Box, buffered: Mapping[str, int]) -> LiveNode:
        ticks, step = self._ticks, box.step_id or ""
        last, since = ticks.last, ticks.recent()
        now, before = last.nodes[box.id], since.nodes[box.id]
        failed = last.failed.get(step, 0)
        title, *said = box.said
        return LiveNode(
            box.id,
            box.form.value,
            box.step_id,
            title,
            tuple(said),
            box.topics,
            box.inside,
            now.came,
            now.left,
            now.estimated,
            ticks.per_second(now.came, before.came, since),
            ticks.per_second(now.left, before.left, since),
            failed,
            ticks.per_second(failed, since.failed.get(step, 0), since) or 0.0,
            last.counts.drops.get(step, 0),
            last.counts.retries.get(step, 0),
            buffered.get(step, 0),
            ticks.batch_s(box.step_id),
            last.counts.open_circuits.get(step, 0),
            self._history.of_node(box.id),
        )


def _checks(found: Iterable[Check]) -> tuple[LiveCheck, ...]:
    return tuple(LiveCheck(check.name, check.ok, check.detail) for check in found)
