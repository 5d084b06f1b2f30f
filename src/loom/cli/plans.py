"""What `loom check` and `loom graph` do: compile a flow, and tell of it. Needs no broker and opens nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from loom.cli.sinks import register_sinks
from loom.core.config import ConfigContext
from loom.streaming.bytewax.settings import BytewaxRuntimeConfig
from loom.streaming.compiler.compile import compile_flow
from loom.streaming.compiler.exactly_once import check_exactly_once_run
from loom.streaming.compiler.unrouted import routed_to_sinks
from loom.streaming.flow import StreamFlow
from loom.streaming.kafka.settings import Delivery

__all__ = ["check_flow"]


def check_flow(flow: StreamFlow[Any, Any], config: ConfigContext, sink_names: Iterable[str]) -> str:
    """The plan of a flow and the sinks of its config as text, after all the refusals that a run would begin with."""
    from loom.streaming.bytewax.bindings import bind_sinks
    from loom.streaming.bytewax.registry import SinkRegistry

    registry = SinkRegistry()
    register_sinks(registry.register, sink_names, config)
    bound = bind_sinks(registry, config, flow_name=flow.name)
    plan = routed_to_sinks(compile_flow(flow, config=config), bound.errors)
    bound.check(plan)
    if plan.source.delivery is Delivery.EXACTLY_ONCE:
        runtime = config.section_or_default("streaming.runtime", BytewaxRuntimeConfig, BytewaxRuntimeConfig())
        check_exactly_once_run(plan, epoch_ms=runtime.epoch_ms, foreign_sinks=bool(bound.bindings))
    return "\n".join([plan.explain(), *(f"  sink    {line}" for line in bound.describe())])
