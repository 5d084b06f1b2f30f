"""A plan becomes a Bytewax dataflow: source, one fused stage, one way out. Opens nothing before the engine builds its parts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.outputs import FixedPartitionedSink

from loom.core.async_bridge import AsyncBridge
from loom.core.observability import ObservabilityRuntime
from loom.streaming.bytewax.group_source import GroupSource
from loom.streaming.bytewax.override_source import wrap_source
from loom.streaming.bytewax.sink import OutputSink, slot_of
from loom.streaming.bytewax.source import KafkaSource
from loom.streaming.bytewax.worker_source import DrivenSource
from loom.streaming.compiler.model import NodePath
from loom.streaming.compiler.names import engine_id
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.errors import ErrorKind
from loom.streaming.runtime.assembly import BuiltDataflow, Transport
from loom.streaming.runtime.commit import CommitTracker
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.lowering import begin
from loom.streaming.runtime.peers import PeerStop
from loom.streaming.runtime.stages.stage_io import EndMark, SourceBatch, StageResults

__all__ = ["LONGEST_EPOCH", "lower"]

#: Where nothing needs the engine's snapshots. Its barrier waits for idle workers, which halves the rate of a busy one.
LONGEST_EPOCH = timedelta(hours=1)


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
    parts = begin(
        plan,
        observability_runtime=observability_runtime,
        source=source,
        sink=sink,
        terminal_sinks=terminal_sinks,
        error_sinks=error_sinks,
        audits=audits,
        commit_tracker=commit_tracker,
        transport=transport,
        bridge=bridge,
        layout=layout,
        resumable=resumable,
    )
    state, outputs = parts.state, parts.outputs
    # What was committed since a sink's last state would be lost with it: it truncates its file to where it was then, say.
    state.epochs.by_snapshots = resumable and any(isinstance(sink, FixedPartitionedSink) for sink in outputs.sinks())
    engine_source: Any
    if transport is not None:
        engine_source = DrivenSource(transport.source(state, parts.make_stage), state)
    elif source is not None:
        engine_source = wrap_source(source, plan.source, state, parts.make_stage, commit_tracker)
    elif parts.shares_group:
        engine_source = GroupSource(parts.group_workers(), state)
    else:
        engine_source = KafkaSource(parts.kafka_workers(), state)
    engine_sink = OutputSink(outputs, state, parts.writers, lambda: bridge, layout)
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
    return parts.built(flow)
