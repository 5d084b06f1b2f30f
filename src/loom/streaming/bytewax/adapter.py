"""A plan becomes a Bytewax dataflow: source, one fused stage, one way out. Opens nothing before the engine builds its parts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.outputs import FixedPartitionedSink

from loom.streaming.bytewax.group_source import GroupSource
from loom.streaming.bytewax.override_source import wrap_source
from loom.streaming.bytewax.sink import OutputSink, slot_of
from loom.streaming.bytewax.source import KafkaSource
from loom.streaming.bytewax.worker_source import DrivenSource
from loom.streaming.compiler.names import engine_id
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.runtime.assembly import BuiltDataflow
from loom.streaming.runtime.build_options import BuildOptions
from loom.streaming.runtime.lowering import begin
from loom.streaming.runtime.peers import PeerStop
from loom.streaming.runtime.stages.stage_io import EndMark, SourceBatch, StageResults

__all__ = ["LONGEST_EPOCH", "lower"]

#: Where nothing needs the engine's snapshots. Its barrier waits for idle workers, which halves the rate of a busy one.
LONGEST_EPOCH = timedelta(hours=1)


def lower(plan: CompiledPlan, options: BuildOptions) -> BuiltDataflow:
    """Lower a plan to three operators, for one process of a layout."""
    parts = begin(plan, options)
    state, outputs, layout = parts.state, parts.outputs, options.layout
    # What was committed since a sink's last state would be lost with it: it truncates its file to where it was then, say.
    state.epochs.by_snapshots = options.resumable and any(
        isinstance(sink, FixedPartitionedSink) for sink in outputs.sinks()
    )
    engine_source: Any
    if options.transport is not None:
        engine_source = DrivenSource(options.transport.source(state, parts.make_stage), state)
    elif options.source is not None:
        engine_source = wrap_source(options.source, plan.source, state, parts.make_stage, options.commit_tracker)
    elif parts.shares_group:
        engine_source = GroupSource(parts.group_workers(), state)
    else:
        engine_source = KafkaSource(parts.kafka_workers(), state)
    engine_sink = OutputSink(outputs, state, parts.writers, lambda: options.bridge, layout)
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
