"""Terminals inside a process: topics and sinks of the author's own."""

from __future__ import annotations

from loom.streaming.bytewax.stages.builder import StageBuilder
from loom.streaming.bytewax.stages.entry import Above, Entry
from loom.streaming.compiler.nodes.into import CompiledIntoSink, CompiledIntoTopic

__all__ = ["build_into_sink", "build_into_topic"]


def build_into_topic(build: StageBuilder, node: CompiledIntoTopic, after: Entry | None, above: Above) -> Entry:
    """A topic, or the sink that has taken its place."""
    return build.output(node.output, node.path, above)


def build_into_sink(build: StageBuilder, node: CompiledIntoSink, after: Entry | None, above: Above) -> Entry:
    """A sink that takes messages."""
    return build.hosted(node.path, above)
