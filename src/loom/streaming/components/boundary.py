"""`IntoTopic` inside a process: a terminal that writes to a topic."""

from __future__ import annotations

from typing import Any

from loom.streaming.compiler.model import CompiledNode, CompiledTopic, NodePath
from loom.streaming.compiler.names import into_id
from loom.streaming.compiler.walk import Compiled, NodeComponent, ProcessCompiler, StreamType
from loom.streaming.nodes.boundary import IntoTopic
from loom.streaming.nodes.shape import StreamShape
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.node_input import Ancestors, NodeInput

__all__ = ["COMPONENTS", "CompiledIntoTopic"]


class CompiledIntoTopic(CompiledNode, kw_only=True):
    """A topic inside the process.

    >>> compiled(IntoTopic("orders.copy")).nodes[0].output.topic
    'orders.copy'
    """

    output: CompiledTopic


def _compile(walk: ProcessCompiler, node: IntoTopic[Any], path: NodePath, flowing: StreamType) -> Compiled:
    """Writes each message to a topic."""
    step_id = walk.take(into_id(flowing.parent, node.name), path)
    output = walk.topics.output(
        node, path, "process", step_id, flowing.payloads, flowing.known_shape, mixed=flowing.mixed
    )
    if output is None:
        return None
    walk.terminals[path] = output
    made = CompiledIntoTopic(
        path=path,
        step_id=step_id,
        in_shape=flowing.shape,
        out_shape=StreamShape.NONE,
        accepts=flowing.payloads,
        returns=flowing.payloads,
        output=output,
    )
    return made, flowing.on(made)


def _build(build: StageBuilder, node: CompiledIntoTopic, after: NodeInput | None, above: Ancestors) -> NodeInput:
    """A topic, or the sink that has taken its place."""
    return build.output(node.output, node.path, above)


COMPONENTS = (NodeComponent((IntoTopic,), _compile, CompiledIntoTopic, _build, ends=True),)
