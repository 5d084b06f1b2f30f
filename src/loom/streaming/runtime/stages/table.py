"""How each kind of compiled node becomes closures. A new kind of node is a new row."""

from __future__ import annotations

from loom.streaming.compiler.model import CompiledNode
from loom.streaming.compiler.nodes.broadcast import CompiledBroadcast
from loom.streaming.compiler.nodes.collect import CompiledCollect, CompiledDrain, CompiledForEach
from loom.streaming.compiler.nodes.expand import CompiledExpandRoutes, CompiledExplode
from loom.streaming.compiler.nodes.into import CompiledIntoSink, CompiledIntoTopic
from loom.streaming.compiler.nodes.routing import CompiledFork, CompiledRouter
from loom.streaming.compiler.nodes.step import CompiledStep
from loom.streaming.runtime.stages.builder import BuildNode
from loom.streaming.runtime.stages.collect import build_collect, build_drain, build_for_each
from loom.streaming.runtime.stages.fan_out import build_broadcast, build_expand_routes, build_explode
from loom.streaming.runtime.stages.routing import build_choice
from loom.streaming.runtime.stages.steps import build_step
from loom.streaming.runtime.stages.terminals import build_into_sink, build_into_topic

__all__ = ["BUILDERS"]

BUILDERS: dict[type[CompiledNode], BuildNode] = {
    CompiledStep: build_step,
    CompiledIntoTopic: build_into_topic,
    CompiledRouter: build_choice,
    CompiledFork: build_choice,
    CompiledBroadcast: build_broadcast,
    CompiledExplode: build_explode,
    CompiledExpandRoutes: build_expand_routes,
    CompiledCollect: build_collect,
    CompiledForEach: build_for_each,
    CompiledDrain: build_drain,
    CompiledIntoSink: build_into_sink,
}
