"""Bytewax as the runtime sees it: the engine that `loom.streaming.runtime.engine` names."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from bytewax.run import cli_main

from loom.core.async_bridge import AsyncBridge
from loom.core.observability import ObservabilityRuntime
from loom.streaming.bytewax.adapter import LONGEST_EPOCH, lower
from loom.streaming.bytewax.recovery import open_recovery
from loom.streaming.bytewax.sink_overrides import is_sink
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.errors import ErrorKind
from loom.streaming.runtime.assembly import BuiltDataflow
from loom.streaming.runtime.engine import Engine
from loom.streaming.runtime.settings import BytewaxRuntimeConfig

__all__ = ["ENGINE"]


class _BytewaxEngine:
    def lower(
        self,
        plan: CompiledPlan,
        *,
        observability: ObservabilityRuntime,
        sink: Any,
        error_sinks: Mapping[ErrorKind, Any],
        audits: Mapping[str, Any],
        bridge: AsyncBridge,
        resumable: bool,
    ) -> BuiltDataflow:
        return lower(
            plan,
            observability_runtime=observability,
            sink=sink,
            error_sinks=error_sinks,
            audits=audits,
            bridge=bridge,
            resumable=resumable,
        )

    def run(self, dataflow: Any, runtime: BytewaxRuntimeConfig) -> None:
        recovery = open_recovery(runtime.recovery) if runtime.recovery is not None else None
        cli_main(  # type: ignore[no-untyped-call]
            dataflow,
            workers_per_process=runtime.workers_per_process,
            epoch_interval=timedelta(milliseconds=runtime.epoch_ms) if recovery is not None else LONGEST_EPOCH,
            recovery_config=recovery,
        )

    def is_sink(self, sink: object) -> bool:
        return is_sink(sink)


ENGINE: Engine = _BytewaxEngine()
