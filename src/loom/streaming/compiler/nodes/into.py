"""Terminals inside a process that write: to a topic, or to a sink of the author's own."""

from __future__ import annotations

from typing import Any

from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.callables import is_async
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.model import CompiledNode, CompiledTopic, NodePath
from loom.streaming.compiler.names import branch_label, child_id, into_id
from loom.streaming.compiler.walk import Compiled, ProcessCompiler, StreamType
from loom.streaming.nodes.boundary import IntoTopic
from loom.streaming.nodes.shape import StreamShape
from loom.streaming.nodes.sink import IntoSink

__all__ = ["CompiledIntoSink", "CompiledIntoTopic", "StorageSink", "compile_into_sink", "compile_into_topic"]


class CompiledIntoTopic(CompiledNode, kw_only=True):
    """A topic inside the process."""

    output: CompiledTopic


class StorageSink(LoomFrozenStruct, eq=False):
    """A sink of the author's own and what it is built with. Two are equal when the sinks are."""

    step_id: str
    sink: Any
    config: Any

    def __eq__(self, other: object) -> bool:
        return (
            (self.step_id, self.sink) == (other.step_id, other.sink)
            if isinstance(other, StorageSink)
            else NotImplemented
        )

    def __hash__(self) -> int:
        return hash(self.step_id)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # A sink may hold secrets, and so may the config.
        return [("step_id", self.step_id), ("sink", type(self.sink).__qualname__)]

    def __repr__(self) -> str:
        return f"StorageSink({self.step_id!r}, {type(self.sink).__qualname__})"


class CompiledIntoSink(CompiledNode, kw_only=True):
    """A storage sink inside the process."""

    storage: StorageSink

    @property
    def summary(self) -> str:
        return f" -> sink {type(self.storage.sink).__qualname__}"


def compile_into_topic(walk: ProcessCompiler, node: IntoTopic[Any], path: NodePath, flowing: StreamType) -> Compiled:
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


def compile_into_sink(walk: ProcessCompiler, node: IntoSink, path: NodePath, flowing: StreamType) -> Compiled:
    """Hands each message to a sink that is flushed at the end of each epoch."""
    name = getattr(node, "name", None)
    label = branch_label(name if isinstance(name, str) else type(node).__name__)
    step_id = walk.take(child_id(flowing.parent, f"into-{label}"), path)
    if is_async(node.build_partition):
        walk.issues.error(
            Code.STEP_ASYNC,
            f"{type(node).__qualname__}.build_partition is async, so it would open nothing",
            path=path,
            remedy="make it a plain method; what has to be awaited runs on the bridge that it is handed: bridge.run(…)",
        )
    storage = StorageSink(step_id, node, walk.config)
    walk.storage[path] = storage
    made = CompiledIntoSink(
        path=path,
        step_id=step_id,
        in_shape=flowing.shape,
        out_shape=StreamShape.NONE,
        accepts=flowing.payloads,
        returns=flowing.payloads,
        storage=storage,
    )
    return made, flowing.on(made)
