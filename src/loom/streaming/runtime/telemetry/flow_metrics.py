"""The metrics, the health and the readiness of one run, read from its counters when somebody asks.

Made by `Assembly` where an observer serves metrics. Everything here runs on the thread of whoever scrapes and only reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from loom.core.counted import counted
from loom.core.installed import installed_version
from loom.core.observability.metrics import Check, Histogram, HistogramValue, Labels, MetricSamples, Page
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.metrics import FlowCounts, Timings
from loom.streaming.runtime.output_table import OutputTable
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.telemetry.broker_monitor import BrokerMonitor
from loom.streaming.runtime.telemetry.catalogue import METRICS
from loom.streaming.runtime.telemetry.live_ticks import measured
from loom.streaming.runtime.telemetry.node_flow import failures_by_step, on_the_way
from loom.streaming.runtime.telemetry.partitions import offset_rows, partition_figures

__all__ = ["FlowMetricsSource"]

#: seconds that a worker may be at work on one batch before the process no longer counts as healthy, without a watchdog
_LONGEST_BATCH = 300.0


class FlowMetricsSource:
    """What one run has to tell. `reads_kafka`: its source is a topic."""

    def __init__(
        self,
        plan: CompiledPlan,
        outputs: OutputTable,
        state: RunState,
        monitor: BrokerMonitor | None,
        *,
        reads_kafka: bool,
    ) -> None:
        self._plan = plan
        self._state = state
        self._monitor = monitor
        self._reads_kafka = reads_kafka
        #: when the run began, in seconds since 1970
        self.began = time.time()
        topics = outputs.topics().values()
        self._error_topics = {outlet.output.topic for outlet in topics if outlet.is_errors}
        self._dlqs = {o.output.topic: o.output.dlq.topic for o in topics if o.output.dlq is not None}
        #: counters as they were last told: parts of a sum are read one after the other, and no counter may ever go back
        self._last: dict[tuple[str, Labels], float] = {}
        #: what is served beside the metrics, by path
        self.also: Callable[[], Mapping[str, Page]] = dict
        #: how long a worker may be at work on one batch, in seconds
        self.longest_batch_s = _LONGEST_BATCH

    @property
    def name(self) -> str:
        """The name of the flow."""
        return self._plan.name

    @property
    def process_index(self) -> int:
        """Which of several processes this is."""
        return self._state.process_index

    def metrics(self) -> Iterable[MetricSamples]:
        """All metrics, as of now."""
        for name, values in self._all():
            if values:
                yield MetricSamples(METRICS[name], {(self.name, *labels): value for labels, value in values.items()})

    def pages(self) -> Mapping[str, Page]:
        """What is served beside the metrics, by path."""
        return self.also()

    def health(self) -> list[Check]:
        """Whether the run is alive and at work."""
        state, now = self._state, time.monotonic()
        if state.stop.stalled is not None:
            return [Check("stalled", False, str(state.stop.stalled))]
        if state.fault is not None:
            return [Check("fault", False, f"{type(state.fault).__name__}")]
        at_work = [now - standing.called_at for standing in list(state.standings) if standing.called_at]
        longest = max(at_work, default=0.0)
        return [
            Check("fault", True),
            Check(
                "stalled",
                longest <= self.longest_batch_s,
                f"the longest time since a worker was called: {longest:.1f} s",
            ),
        ]

    def readiness(self) -> list[Check]:
        """Whether the run reads and writes now."""
        state = self._state
        found = [Check("running", not state.stop.requested and state.fault is None, state.stop.reason)]
        if self._reads_kafka:
            rows, standings = offset_rows(state), list(state.standings)
            waiting = [str(row.partition) for row in rows if row.start is None]
            known = counted(len(rows), "partition") if standings else "reading has not begun"
            found.append(Check("assignment", bool(standings), known))
            found.append(
                Check("positions", not waiting, f"no position yet: {', '.join(waiting[:5])}" if waiting else "")
            )
        away = list(state.clusters.unreachable())
        if self._monitor is not None and not self._monitor.reachable:
            away.append(self._monitor.reason or "no broker has answered yet")
        found.append(Check("brokers", not away, "; ".join(away)))
        if circuits := state.metrics.read().open_circuits:
            down = [step for step, count in circuits.items() if count]
            found.append(Check("circuits", not down, f"open: {', '.join(down)}" if down else ""))
        return found

    def _all(self) -> Iterator[tuple[str, Mapping[Labels, float | HistogramValue]]]:
        state, settings = self._state, self._plan.source.settings
        counts, timings = state.metrics.read(), state.metrics.timings()
        info = (installed_version(), self._plan.source.mode.summary, settings.group_id)
        yield "flow_info", {info: 1.0}
        yield "flow_start_time_seconds", {(): self.began}
        yield "healthy", {(): float(all(check.ok for check in self.health()))}
        yield "ready", {(): float(all(check.ok for check in self.readiness()))}
        yield "stalled", {(): float(state.stop.stalled is not None)}
        if self._monitor is not None and self._monitor.reachable is not None:
            yield "broker_reachable", {(",".join(settings.brokers),): float(self._monitor.reachable)}
        for name, values in self._counters(counts, timings):
            yield name, {labels: self._steady(name, labels, value) for labels, value in values.items()}
        yield from _histograms(timings)
        yield from self._partitions()
        standings = list(state.standings)
        yield "in_flight_records", {(): float(sum(standing.in_flight() for standing in standings))}
        yield "buffered_records", {(): float(sum(standing.buffered() for standing in standings))}
        yield "open_circuits", {(step,): float(count) for step, count in counts.open_circuits.items()}

    def _counters(self, counts: FlowCounts, timings: list[Timings]) -> Iterator[tuple[str, Mapping[Labels, float]]]:
        state = self._state
        ended = {"written": counts.written, "dropped": counts.dropped, "failed": sum(counts.failed.values())}
        yield "records_total", {(outcome,): float(count) for outcome, count in ended.items()}
        read: dict[Labels, float] = {}
        for part in timings:
            for topic, count in list(part.read_topics.items()):
                read[(topic,)] = read.get((topic,), 0.0) + count
        yield "source_records_total", read
        if state.clusters.statistics is not None:
            received, sent = state.clusters.statistics.traffic()
            yield "source_bytes_total", {(topic,): float(count) for topic, count in received.items()}
            yield "output_bytes_total", {(topic,): float(count) for topic, count in sent.items()}
        refused = counts.refused
        # A refused result was counted as an output first, and taken off again.
        outputs = {
            name: counts.outputs.get(name, 0) + refused.get(name, 0)
            for name in dict.fromkeys((*counts.outputs, *refused))
        }
        yield "output_records_total", {(name,): float(count) for name, count in outputs.items()}
        yield "refused_records_total", {(topic,): float(count) for topic, count in refused.items()}
        dead = {topic: outputs.get(topic, 0) for topic in self._error_topics}
        for topic, count in refused.items():
            if topic in self._dlqs:
                dead[self._dlqs[topic]] = dead.get(self._dlqs[topic], 0) + count
        yield "dead_letters_total", {(topic,): float(count) for topic, count in dead.items()}
        yield "durable_records_total", {(): float(counts.durable)}
        yield "lost_records_total", {(): float(counts.lost)}
        yield "errors_total", {(kind.value, step): float(count) for (kind, step), count in counts.errors.items()}
        yield "retries_total", {(step,): float(count) for step, count in counts.retries.items()}
        yield "node_records_total", self._nodes(counts)
        yield "recoveries_total", {(): float(state.recoveries.total if state.recoveries is not None else 0)}
        yield "restarts_total", {(): float(state.supervisor.restarts if state.supervisor is not None else 0)}
        yield "rebalances_total", {(): float(state.rebalances)}
        yield "late_batches_total", {(): float(state.offsets.late)}
        yield "epochs_total", {(): float(sum(part.epochs for part in timings))}
        if (tracing := state.observability.tracing) is not None:
            yield "spans_lost_total", {(): float(tracing.lost)}
        yield "observer_events_dropped_total", {(): float(state.observability.dropped)}

    def _nodes(self, counts: FlowCounts) -> dict[Labels, float]:
        """What became of records at each node. How many went on is told where it follows from what is counted."""
        found: dict[Labels, float] = {}
        failed = failures_by_step(counts)
        for step, count in failed.items():
            found[(step, "error")] = float(count)
        for step, count in counts.drops.items():
            found[(step, "dropped")] = float(count)
        for step, (_, left) in on_the_way(self._plan, counts, failed).items():
            if left is not None:
                found[(step, "ok")] = float(left)
        return found

    def _partitions(self) -> Iterator[tuple[str, Mapping[Labels, float]]]:
        found = partition_figures(self._state, self._monitor, self.began)
        yield "assigned_partitions", {(): float(len(found))}
        for name in ("committed_offset", "end_offset", "lag_records", "lag_seconds"):
            values = {(one.topic, str(one.partition)): getattr(one, name) for one in found}
            yield name, {labels: float(value) for labels, value in values.items() if value is not None}

    def _steady(self, name: str, labels: Labels, value: float) -> float:
        known = self._last.get((name, labels), 0.0)
        self._last[name, labels] = value = max(value, known)
        return value


def _histograms(timings: list[Timings]) -> Iterator[tuple[str, Mapping[Labels, HistogramValue]]]:
    latency, nodes = measured(timings)
    for name, total in (
        ("source_batch_records", Histogram.total(part.batch_records.value for part in timings)),
        ("epoch_flush_seconds", Histogram.total(part.flush_s.value for part in timings)),
        ("commit_seconds", Histogram.total(part.commit_s.value for part in timings)),
        ("end_to_end_latency_seconds", latency),
    ):
        if total is not None:
            yield name, {(): total}
    yield "node_duration_seconds", {(step,): total for step, total in nodes.items()}
