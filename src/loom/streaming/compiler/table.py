"""Every kind of node that a process may hold, and how it is compiled. A new kind of node is a new row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loom.core.expr import Expression
from loom.streaming.compiler.bindings import is_step
from loom.streaming.compiler.nodes.broadcast import compile_broadcast
from loom.streaming.compiler.nodes.collect import compile_collect, compile_drain, compile_for_each
from loom.streaming.compiler.nodes.expand import compile_expand_routes, compile_explode
from loom.streaming.compiler.nodes.into import compile_into_sink, compile_into_topic
from loom.streaming.compiler.nodes.later import refuse_scope
from loom.streaming.compiler.nodes.routing import compile_fork, compile_router
from loom.streaming.compiler.nodes.step import compile_step
from loom.streaming.compiler.walk import NodeCompiler
from loom.streaming.nodes.boundary import IntoTopic
from loom.streaming.nodes.broadcast import Broadcast
from loom.streaming.nodes.collect import CollectBatch, Drain, ForEach
from loom.streaming.nodes.expand import ExpandRoutes, Explode
from loom.streaming.nodes.route import Fork, Router
from loom.streaming.nodes.scope import With, WithAsync
from loom.streaming.nodes.sink import IntoSink

__all__ = ["ROWS"]


def _is_a(*kinds: type) -> Callable[[Any], bool]:
    return lambda node: isinstance(node, kinds)


def _is_sink(node: Any) -> bool:
    # A class is no sink, and an expression answers for any name.
    return isinstance(node, IntoSink) and not isinstance(node, type | Expression)


ROWS: tuple[NodeCompiler, ...] = (
    NodeCompiler(is_step, compile_step),
    NodeCompiler(_is_a(IntoTopic), compile_into_topic, ends=True),
    NodeCompiler(_is_a(Router), compile_router),
    NodeCompiler(_is_a(Fork), compile_fork, ends=True),
    NodeCompiler(_is_a(Broadcast), compile_broadcast, ends=True),
    NodeCompiler(_is_a(Explode), compile_explode),
    NodeCompiler(_is_a(ExpandRoutes), compile_expand_routes, ends=True),
    NodeCompiler(_is_a(CollectBatch), compile_collect),
    NodeCompiler(_is_a(ForEach), compile_for_each),
    NodeCompiler(_is_a(Drain), compile_drain, ends=True),
    NodeCompiler(_is_a(With, WithAsync), refuse_scope),
    NodeCompiler(_is_sink, compile_into_sink, ends=True),
)
