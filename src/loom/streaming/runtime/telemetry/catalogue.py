"""Every metric of a flow: its name, kind, labels and what it tells. `docs/observability.md` lists the same (a test compares).

Names follow Prometheus and OpenMetrics: the prefix `loom_`, base units, `_total` for counters. Each has the label `flow`.
"""

from __future__ import annotations

from functools import partial

from loom.core.observability.metrics import Metric, MetricKind

__all__ = ["METRICS"]


def _metric(kind: MetricKind, name: str, tells: str, *labels: str) -> Metric:
    return Metric(f"loom_{name}", kind, tells, ("flow", *labels))


_counter = partial(_metric, MetricKind.COUNTER)
_gauge = partial(_metric, MetricKind.GAUGE)
_histogram = partial(_metric, MetricKind.HISTOGRAM)
_info = partial(_metric, MetricKind.INFO)


#: by name without the prefix
METRICS: dict[str, Metric] = {
    metric.name.removeprefix("loom_"): metric
    for metric in (
        _info(
            "flow_info",
            "What runs: the version of Loom, the delivery guarantee, the group",
            "version",
            "delivery",
            "group",
        ),
        _gauge("flow_start_time_seconds", "When the run began, in seconds since 1970"),
        _gauge("healthy", "1 while /healthz answers 200"),
        _gauge("ready", "1 while /readyz answers 200"),
        _gauge("stalled", "1 once the watchdog has found the run stalled"),
        _gauge("broker_reachable", "1 while the brokers of the source answer", "brokers"),
        _counter("records_total", "Records of the source that have ended, by how", "outcome"),
        _counter("source_records_total", "Records read, by topic", "topic"),
        _counter(
            "source_bytes_total", "Bytes received by the consumers, by topic, as their clients report them", "topic"
        ),
        _histogram("source_batch_records", "Records in a batch"),
        _counter(
            "output_records_total", "Results that left the flow, by topic or sink, dead letters included", "output"
        ),
        _counter("output_bytes_total", "Bytes sent by the producers, by topic, as their clients report them", "topic"),
        _counter("refused_records_total", "Results that the broker refused for good, by topic", "topic"),
        _counter("dead_letters_total", "Records written to a topic of dead letters", "topic"),
        _counter("durable_records_total", "Results that are durable"),
        _counter(
            "lost_records_total", "Records that a failed run may have lost, at most (at_most_once and auto-commit)"
        ),
        _counter("errors_total", "Errors of records, by kind and step", "kind", "step"),
        _counter("retries_total", "Calls of a step that were made again after a failure", "step"),
        _gauge("open_circuits", "Workers in which the circuit breaker of a scope is open", "step"),
        _counter("node_records_total", "Records that a node is done with, by how", "step", "outcome"),
        _histogram("node_duration_seconds", "How long a node took for a batch; one batch a second is measured", "step"),
        _counter(
            "recoveries_total",
            "How often the run was taken up again in place after an aborted transaction or a failed producer",
        ),
        _counter(
            "restarts_total",
            "How often a supervisor has started this process again (loom run with restarts or processes)",
        ),
        _counter("rebalances_total", "How often the group gave this process other partitions (membership: group)"),
        _counter(
            "late_batches_total", "Batches that were finished after their partition had been given up: not committed"
        ),
        _counter("epochs_total", "Epochs whose results are durable"),
        _histogram("epoch_flush_seconds", "How long the end of an epoch took, until everything was durable"),
        _histogram("commit_seconds", "How long a commit to the group took, until the broker had answered"),
        _histogram("end_to_end_latency_seconds", "From the timestamp of a record until its results were durable"),
        _gauge("lag_records", "Records between what is committed and the end of the partition", "topic", "partition"),
        _gauge("lag_seconds", "Age of the last record read while there are later ones, else 0", "topic", "partition"),
        _gauge("committed_offset", "The offset at which the next run would begin", "topic", "partition"),
        _gauge("end_offset", "The end of the partition", "topic", "partition"),
        _gauge("assigned_partitions", "Partitions that this process reads"),
        _gauge("in_flight_records", "Records on their way from a source to the sinks of the process"),
        _gauge("buffered_records", "Records that nodes of the flow keep"),
        _counter("spans_lost_total", "Spans that were lost: the collector was away, too slow or refused them"),
        _counter("observer_events_dropped_total", "Life cycle events that an observer was too slow for"),
    )
}
