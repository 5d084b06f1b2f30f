"""The plain loop as the runtime sees it: the engine that `loom.streaming.runtime.engine` names."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

from msgspec.structs import replace

from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.runtime.assembly import BuiltDataflow, Transport
from loom.streaming.runtime.build_options import BuildOptions
from loom.streaming.runtime.custom_sinks import open_sink
from loom.streaming.runtime.engine import Engine
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.loop.drive import LoopDataflow, drive
from loom.streaming.runtime.lowering import Lowering, begin
from loom.streaming.runtime.settings import BytewaxRuntimeConfig
from loom.streaming.runtime.sink_part import SinkPart
from loom.streaming.runtime.worker_source import OpenWorker

__all__ = ["ENGINE"]

#: opens a source of the caller's, by the package that its class comes from
_FOREIGN_SOURCES = {"bytewax": "loom.streaming.bytewax.override_source"}


def _lower(plan: CompiledPlan, options: BuildOptions) -> BuiltDataflow:
    # There is no store to resume from.
    parts = begin(plan, replace(options, resumable=False))
    open_worker = _source(parts, options.source, options.transport)

    def open_part() -> SinkPart:
        opened = partial(open_sink, layout=options.layout)
        return SinkPart(parts.outputs, parts.state, parts.writers(), opened, lambda: options.bridge, {})

    return parts.built(LoopDataflow(open_worker, open_part, parts.state))


def _source(parts: Lowering, source: Any, transport: Transport | None) -> OpenWorker:
    if transport is not None:
        return transport.source(parts.state, parts.make_stage)
    if source is None:
        return parts.group_workers().open_share if parts.shares_group else parts.kafka_workers().open_share
    for package, adapter in _FOREIGN_SOURCES.items():
        if any(base.__module__.partition(".")[0] == package for base in type(source).__mro__):
            open_source = import_module(adapter).open_source
            found: OpenWorker = open_source(
                source, parts.assembly.plan.source, parts.state, parts.make_stage, parts.tracker
            )
            return found
    raise TypeError(f"source must be a Bytewax FixedPartitionedSource or DynamicSource, not {source!r}")


def _run(dataflow: Any, runtime: BytewaxRuntimeConfig, layout: Layout) -> None:
    assert isinstance(dataflow, LoopDataflow)
    assert not layout.is_cluster  # refused before anything runs
    drive(dataflow, runtime.workers_per_process)


ENGINE = Engine(lower=_lower, run=_run, keeps_state=False)
