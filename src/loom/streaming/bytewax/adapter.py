"""A plan becomes a Bytewax dataflow: source, one fused stage, one way out. Nothing is opened before the engine builds its parts.

`lower` does the work; the two public functions differ in what they hand back.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from msgspec.structs import replace

from loom.core.async_bridge import AsyncBridge
from loom.core.logger import get_logger
from loom.core.model import LoomFrozenStruct
from loom.core.observability import ObservabilityRuntime
from loom.streaming.bytewax.delivery import CommitTracker, Delivery
from loom.streaming.bytewax.exactly_once import ExactlyOnce
from loom.streaming.bytewax.lifecycle import SignalHandlers
from loom.streaming.bytewax.outlets import Outlets, outlets_of
from loom.streaming.bytewax.override_source import override_view, wrap_source
from loom.streaming.bytewax.preflight import Preflight
from loom.streaming.bytewax.sink import SLOT, OutputSink
from loom.streaming.bytewax.source import KafkaSource
from loom.streaming.bytewax.stages.fuse import build_stage
from loom.streaming.bytewax.stages.outcome import SourceBatch, StageResults
from loom.streaming.bytewax.stages.stage import Stage
from loom.streaming.bytewax.writers import NoWriters, TopicWriters, Writers
from loom.streaming.compiler.names import engine_id
from loom.streaming.compiler.plan import CompiledPlan, NodePath
from loom.streaming.errors import ErrorEnvelope, ErrorKind
from loom.streaming.kafka.client_records import CLIENT_RECORDS
from loom.streaming.kafka.offset_metadata import RunMetadata
from loom.streaming.kafka.settings import Delivery as Guarantee
from loom.streaming.kafka.view import OriginView
from loom.streaming.points import Point, reached

__all__ = ["BuiltDataflow", "Transport", "build_dataflow", "build_dataflow_with_shutdown", "lower"]

_log = get_logger(__name__)


class _BuiltDataflow:
    """A dataflow, and the way to let go of what it opens."""

    def __init__(
        self,
        dataflow: Dataflow,
        delivery: Delivery,
        preflight: Preflight,
        exactly_once: ExactlyOnce | None,
        signals: SignalHandlers,
    ) -> None:
        self.dataflow = dataflow
        self.delivery = delivery
        self._preflight = preflight
        self._exactly_once = exactly_once
        self._signals = signals

    def look_before(self) -> None:
        """Everything that must be there before the engine starts: brokers, topics, and the fencing of predecessors."""
        self._preflight.look()
        self._preflight.look_at_group()
        if self._exactly_once is not None:
            self._exactly_once.open()

    def shutdown(self) -> None:
        """Stop a run of this dataflow and let go of what it holds. Idempotent, from any thread.

        What an engine still uses is closed by its parts when they end.
        """
        self.delivery.stop.request("shutdown() was called")
        if self.delivery.stop.held or (self.delivery.stop.running and self.delivery.fault is None):
            # Perhaps on the engine's own thread: in a step, or in a signal handler of the caller's.
            return
        self._signals.restore()
        self.delivery.close_all(thread=threading.get_ident())

    def finish(self) -> None:
        """The engine has returned: close whatever it left open, give the signals back."""
        reached(Point.CLOSING)
        self._signals.restore()
        self.delivery.close_all()
        if self._exactly_once is not None:
            self._exactly_once.close()


BuiltDataflow = _BuiltDataflow


MakeStage: TypeAlias = Callable[[], Stage]


class Transport(LoomFrozenStruct):
    """Both ends of a dataflow: how its records are looked at, where they come from, where results that are records go."""

    view: OriginView
    source: Callable[[Delivery, MakeStage], Any]
    writers: Callable[[], Writers]
    #: may look on at every way out of the plan
    outlets: Callable[[Outlets], Outlets] | None = None


def build_dataflow(
    plan: CompiledPlan,
    *,
    observability_runtime: ObservabilityRuntime | None = None,
    source: Any = None,
    sink: Any = None,
    terminal_sinks: Mapping[NodePath, Any] | None = None,
    error_sinks: Mapping[ErrorKind, Any] | None = None,
) -> Any:
    """The dataflow of a plan, for `cli_main` or any other way to run one. Opens nothing.

    `source`, `sink` (the flow's output), `terminal_sinks` (by node path) and `error_sinks` (by kind) replace what the
    plan would build with Bytewax sources and sinks. What the dataflow opens is closed when its last part closes.
    SIGTERM and SIGINT stop a run gracefully when this is called from the main thread.
    """
    return build_dataflow_with_shutdown(
        plan,
        observability_runtime=observability_runtime,
        source=source,
        sink=sink,
        terminal_sinks=terminal_sinks,
        error_sinks=error_sinks,
    ).dataflow


def build_dataflow_with_shutdown(
    plan: CompiledPlan,
    *,
    observability_runtime: ObservabilityRuntime | None = None,
    source: Any = None,
    sink: Any = None,
    terminal_sinks: Mapping[NodePath, Any] | None = None,
    error_sinks: Mapping[ErrorKind, Any] | None = None,
    bridge: AsyncBridge | None = None,
    commit_tracker: CommitTracker | None = None,
) -> _BuiltDataflow:
    """As `build_dataflow`, with `.shutdown()`.

    `bridge` is handed to sinks that ask for one; who makes it closes it. `commit_tracker` is handed the positions that
    have become safe, in the place of committing them to the group; it is refused with `exactly_once`.
    """
    return lower(
        plan,
        observability_runtime=observability_runtime,
        source=source,
        sink=sink,
        terminal_sinks=terminal_sinks,
        error_sinks=error_sinks,
        bridge=bridge,
        commit_tracker=commit_tracker,
    )


def lower(
    plan: CompiledPlan,
    *,
    observability_runtime: ObservabilityRuntime | None = None,
    source: Any = None,
    sink: Any = None,
    terminal_sinks: Mapping[NodePath, Any] | None = None,
    error_sinks: Mapping[ErrorKind, Any] | None = None,
    bridge: AsyncBridge | None = None,
    commit_tracker: CommitTracker | None = None,
    audits: Mapping[str, Any] | None = None,
    transport: Transport | None = None,
) -> _BuiltDataflow:
    """Lower a plan to three operators.

    `audits` are sinks, by name, that get a copy of every output message. `transport` replaces both ends of Kafka, for
    benchmarks and the test kit.
    """
    if commit_tracker is not None:
        if not isinstance(commit_tracker, CommitTracker):
            raise TypeError(f"commit_tracker must have confirm(positions), which {commit_tracker!r} has not")
        if inspect.iscoroutinefunction(commit_tracker.confirm):
            raise TypeError("commit_tracker.confirm is async, and nobody would await it; make it a plain method")
        if plan.source.delivery is Guarantee.EXACTLY_ONCE:
            raise ValueError("a commit_tracker cannot be kept with delivery: exactly_once")
    delivery = Delivery(observability_runtime or ObservabilityRuntime.noop())
    outlets = outlets_of(plan, sink=sink, terminal_sinks=terminal_sinks, error_sinks=error_sinks, audits=audits)
    if transport is not None and transport.outlets is not None:
        outlets = transport.outlets(outlets)
    if source is not None or outlets.has_sinks:
        plan = _without_transactions(plan)
    reads_kafka = source is None
    owns_group = reads_kafka and transport is None and commit_tracker is None
    waiting = delivery.stop.check_start
    clusters = delivery.clusters
    preflight = Preflight(
        plan, outlets, reads_kafka=reads_kafka, owns_group=owns_group, waiting=waiting, clusters=clusters
    )
    counts = delivery.metrics.part()
    partitions = lambda: preflight.look().source_partitions  # noqa: E731
    metadata = RunMetadata(plan.name, partitions)
    exactly_once = None
    if plan.source.delivery is Guarantee.EXACTLY_ONCE:
        exactly_once = ExactlyOnce(plan, preflight, delivery.stop, metadata, clusters)
        delivery.logs_gone.append(exactly_once.renewed)

    def open_writers() -> Writers:
        if not outlets.topics():
            return NoWriters()
        seen = preflight.look()
        waiting = delivery.stop.check_deadline
        return TopicWriters(
            plan.name, outlets, ends.view, counts, seen, waiting, exactly_once, clusters, delivery.error_log
        )

    def kafka_source(shared: Delivery, make_stage: MakeStage) -> Any:
        group = preflight.look_at_group
        return KafkaSource(plan.source, shared, partitions, group, make_stage, commit_tracker, metadata, exactly_once)

    def override(shared: Delivery, make_stage: MakeStage) -> Any:
        return wrap_source(source, plan.source, shared, make_stage, commit_tracker)

    if transport is not None:
        ends = transport
    elif source is not None:
        ends = Transport(override_view(plan.source), override, open_writers)
    else:
        ends = Transport(CLIENT_RECORDS, kafka_source, open_writers)

    def make_stage() -> Stage:
        return build_stage(plan, outlets.slots, ends.view, delivery.metrics.part(), _log_drop, delivery.error_log)

    engine_source = ends.source(delivery, make_stage)
    engine_sink = OutputSink(outlets, delivery, ends.writers, lambda: bridge)

    def run(batches: list[SourceBatch]) -> list[tuple[str, StageResults]]:
        try:
            return [(SLOT, batch.stage.run(batch)) for batch in batches]
        except BaseException as fault:
            delivery.failed(fault)
            raise

    flow = Dataflow(engine_id(plan.name))
    batches = op.input("source", flow, engine_source)
    results = op.flat_map_batch("stage", batches, run)
    op.output("out", results, engine_sink)
    signals = SignalHandlers(delivery.stop)
    signals.install()
    return _BuiltDataflow(flow, delivery, preflight, exactly_once, signals)


def _without_transactions(plan: CompiledPlan) -> CompiledPlan:
    """Ends of the caller's own cannot take part in a transaction: such a build keeps at-least-once instead."""
    if plan.source.delivery is not Guarantee.EXACTLY_ONCE:
        return plan
    return replace(plan, source=replace(plan.source, delivery=Guarantee.AT_LEAST_ONCE))


def _log_drop(envelope: ErrorEnvelope[Any]) -> None:
    _log.warning(
        "record dropped: its kind of error has no route",
        kind=envelope.kind.value,
        step=envelope.step_id,
        reason=envelope.reason,
        topic=envelope.source.topic if envelope.source else None,
        partition=envelope.source.partition if envelope.source else None,
        offset=envelope.source.offset if envelope.source else None,
    )
