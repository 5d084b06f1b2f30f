"""Terminals inside a process: topics and sinks of the author's own."""

from __future__ import annotations

from loom.streaming.compiler.nodes.into import CompiledIntoSink, CompiledIntoTopic
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.node_input import Ancestors, NodeInput

__all__ = ["build_into_sink", "build_into_topic"]


def build_into_topic(
    build: StageBuilder, node: CompiledIntoTopic, after: NodeInput | None, above: Ancestors
) -> NodeInput:
    """A topic, or the sink that has taken its place."""
    return build.output(node.output, node.path, above)


def build_into_sink(
    build: StageBuilder, node: CompiledIntoSink, after: NodeInput | None, above: Ancestors
) -> NodeInput:
    """A sink that takes messages."""
    return build.hosted(node.path, above)
