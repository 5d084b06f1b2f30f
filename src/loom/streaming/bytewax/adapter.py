"""A plan becomes a Bytewax dataflow: source, one fused stage, one way out. Nothing is opened before the engine builds its parts.

`lower` does the work; the two public functions differ in what they hand back.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.outputs import FixedPartitionedSink
from msgspec.structs import replace

from loom.core.async_bridge import AsyncBridge
from loom.core.observability import ObservabilityRuntime
from loom.streaming.bytewax.group_source import GroupSource
from loom.streaming.bytewax.override_source import override_view, wrap_source
from loom.streaming.bytewax.sink import OutputSink, slot_of
from loom.streaming.bytewax.sink_overrides import refuse_unshareable
from loom.streaming.bytewax.source import KafkaSource
from loom.streaming.compiler.model import NodePath
from loom.streaming.compiler.names import engine_id
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.errors import ErrorKind
from loom.streaming.kafka.client_records import CLIENT_RECORDS
from loom.streaming.kafka.delivery import Delivery, mode_of
from loom.streaming.runtime.assembly import Assembly, BuiltDataflow, Transport
from loom.streaming.runtime.commit import CommitTracker
from loom.streaming.runtime.early_writers import EarlyWriters
from loom.streaming.runtime.group_workers import GroupWorkers
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.member_checks import check_member_build
from loom.streaming.runtime.output_table import output_table_of
from loom.streaming.runtime.peers import PeerStop
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.stages.stage_io import EndMark, SourceBatch, StageResults

__all__ = ["LONGEST_EPOCH", "build_dataflow", "build_dataflow_with_shutdown", "lower"]

#: Where nothing needs the engine's snapshots. Its barrier waits for idle workers, which halves the rate of a busy one.
LONGEST_EPOCH = timedelta(hours=1)


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

    What the dataflow opens is closed when its last part closes. If this is called from the main thread, SIGTERM and SIGINT stop
    a run in order.

    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> out = []
    >>> source = TestingSource([Message(Order(7), MessageMeta("mine"))])
    >>> run_main(build_dataflow(compiled(Price, output=IntoTopic("orders.priced")), source=source, sink=TestingSink(out)))
    >>> [message.payload for message in out]
    [PricedOrder(id=7)]

    Args:
        plan: the plan.
        observability_runtime: the observers of the run.
        source: a Bytewax source in place of the topic; yields `Message`s or `KafkaRecord`s.
        sink: a Bytewax sink or an `IntoSink` in place of the output.
        terminal_sinks: as `sink`, for outputs inside the process, by node path.
        error_sinks: as `sink`, for errors, by kind; they receive `ErrorEnvelope`s.

    Returns:
        A Bytewax `Dataflow`.

    Raises:
        ValueError: for a path that leads to no output, or a `sink` for a flow without one.
        TypeError: for a source or sink of another type.
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
) -> BuiltDataflow:
    """As `build_dataflow`; the result also has `.shutdown()`, which stops a run in order and is idempotent.

    >>> built = build_dataflow_with_shutdown(compiled(Price, output=IntoTopic("orders.priced")))
    >>> type(built.dataflow).__name__
    'Dataflow'
    >>> built.shutdown()

    Args:
        plan: the plan.
        observability_runtime: the observers of the run.
        source: a Bytewax source in place of the topic.
        sink: a Bytewax sink or an `IntoSink` in place of the output.
        terminal_sinks: as `sink`, for outputs inside the process, by node path.
        error_sinks: as `sink`, for errors, by kind.
        bridge: an `AsyncBridge` for sinks that need one. Whoever creates it closes it.
        commit_tracker: receives committable offsets instead of the consumer group; refused with `exactly_once`.

    Returns:
        An object with `.dataflow` and `.shutdown()`.

    Raises:
        ValueError: as `build_dataflow`, and for a `commit_tracker` with `exactly_once`.
        TypeError: as `build_dataflow`, and for a `commit_tracker` without a plain method `confirm`.
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
    resumable: bool = True,
    layout: Layout = Layout(),  # noqa: B008 - frozen
) -> BuiltDataflow:
    """Lower a plan to three operators, for one process of a layout.

    `audits` are sinks, by name, that get a copy of every output message. `transport` replaces both ends of Kafka, for
    benchmarks and the test kit. `resumable`: a later run may start with the states that its sinks had at a snapshot; a
    caller who runs the dataflow may give it a recovery store.
    """
    if commit_tracker is not None:
        if not isinstance(commit_tracker, CommitTracker):
            raise TypeError(f"commit_tracker needs a method confirm(positions); {commit_tracker!r} has none")
        if inspect.iscoroutinefunction(commit_tracker.confirm):
            raise TypeError("commit_tracker.confirm is async and would never be awaited; make it a plain method")
        if plan.source.mode.transaction:
            raise ValueError("a commit_tracker cannot be kept with delivery: exactly_once")
    state = RunState(observability_runtime or ObservabilityRuntime.noop(), plan.source.name)
    outputs = output_table_of(plan, sink=sink, terminal_sinks=terminal_sinks, error_sinks=error_sinks, audits=audits)
    if transport is not None and transport.outlets is not None:
        outputs = transport.outlets(outputs)
    if source is not None or outputs.has_sinks:
        plan = _without_transactions(plan)
    refuse_unshareable(outputs, layout)
    # What was committed since a sink's last state would be lost with it: it truncates its file to where it was then, say.
    state.epochs.by_snapshots = resumable and any(isinstance(sink, FixedPartitionedSink) for sink in outputs.sinks())
    reads_kafka = source is None
    if reads_kafka and transport is None:
        check_member_build(plan, has_tracker=commit_tracker is not None, by_snapshots=state.epochs.by_snapshots)
    owns_group = reads_kafka and transport is None and commit_tracker is None
    assembly = Assembly(
        plan,
        outputs,
        state,
        reads_kafka=reads_kafka,
        owns_group=owns_group,
        bridge=bridge,
        layout=layout,
        resumable=resumable,
    )
    if transport is None:
        transport = _transport(assembly, source, commit_tracker)
    view = transport.view
    engine_source = transport.source(state, lambda: assembly.make_stage(view))
    writers = EarlyWriters(transport.writers)
    engine_sink = OutputSink(outputs, state, writers, lambda: bridge, layout)
    slot = slot_of(layout)

    peers = [f"{index:02d}" for index in range(layout.processes) if index != layout.index and layout.is_cluster]

    def run(batches: list[SourceBatch]) -> list[tuple[str, StageResults | PeerStop]]:
        if state.aborting():
            return []
        try:
            results: list[tuple[str, StageResults | PeerStop]] = [(slot, batch.stage.run(batch)) for batch in batches]
            if peers and any(batch.end is EndMark.STOP for batch in batches):
                notice = PeerStop(layout.index, state.stop.reason, state.stop.restarts)
                results += [(peer, notice) for peer in peers]
            return results
        except BaseException as fault:
            state.failed(fault)
            if state.aborting():
                return []
            raise

    flow = Dataflow(engine_id(plan.name))
    batches = op.input("source", flow, engine_source)
    results = op.flat_map_batch("stage", batches, run)
    op.output("out", results, engine_sink)
    return BuiltDataflow(flow, assembly, writers)


def _transport(assembly: Assembly, source: Any, tracker: CommitTracker | None) -> Transport:
    """Kafka at both ends, or a source of the caller's at one."""
    plan_source = assembly.plan.source
    if source is not None:
        view = override_view(plan_source)
        return Transport(
            view,
            lambda state, make_stage: wrap_source(source, plan_source, state, make_stage, tracker),
            lambda: assembly.open_producers(view),
        )
    if plan_source.settings.shares_group:
        return Transport(
            CLIENT_RECORDS,
            lambda state, make_stage: GroupSource(
                GroupWorkers(
                    plan_source,
                    state,
                    assembly.source_partitions,
                    assembly.preflight.group,
                    lambda: assembly.preflight.snapshot().source_topics,
                    make_stage,
                    assembly.metadata,
                    assembly.exactly_once,
                ),
                state,
            ),
            lambda: assembly.open_producers(CLIENT_RECORDS),
        )
    return Transport(
        CLIENT_RECORDS,
        lambda state, make_stage: KafkaSource(
            plan_source,
            state,
            assembly.source_partitions,
            assembly.own_partitions,
            assembly.preflight.group,
            lambda: assembly.preflight.snapshot().source_topics,
            make_stage,
            tracker,
            assembly.metadata,
            assembly.exactly_once,
        ),
        lambda: assembly.open_producers(CLIENT_RECORDS),
    )


def _without_transactions(plan: CompiledPlan) -> CompiledPlan:
    """Ends of the caller's own cannot take part in a transaction: such a build keeps at-least-once instead."""
    if not plan.source.mode.transaction:
        return plan
    return replace(plan, source=replace(plan.source, mode=mode_of(Delivery.AT_LEAST_ONCE)))
