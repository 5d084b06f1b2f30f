"""A custom sink inside a process: a terminal that passes messages to it."""

from __future__ import annotations

from typing import Any

from loom.streaming.compiler.callables import is_async
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.model import CompiledNode, NodeForm, NodePath, StorageSink
from loom.streaming.compiler.names import branch_label, child_id
from loom.streaming.compiler.walk import Compiled, NodeComponent, ProcessCompiler, StreamType
from loom.streaming.nodes.shape import StreamShape
from loom.streaming.nodes.sink import IntoSink
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.node_input import Ancestors, NodeInput

__all__ = ["COMPONENTS", "CompiledIntoSink"]


class CompiledIntoSink(CompiledNode, kw_only=True):
    """A storage sink inside the process.

    >>> class Warehouse:
    ...     def build_partition(self, config, worker_index, worker_count, bridge=None, session_manager=None): ...
    >>> compiled(Warehouse()).nodes[0].step_id
    'orders.into-warehouse'
    """

    storage: StorageSink

    @property
    def sink(self) -> Any:
        return self.storage.sink

    @property
    def form(self) -> NodeForm:
        return NodeForm.STORE

    @property
    def summary(self) -> str:
        return f" -> sink {type(self.storage.sink).__qualname__}"


def _compile(walk: ProcessCompiler, node: IntoSink, path: NodePath, flowing: StreamType) -> Compiled:
    """Hands each message to a sink that is flushed at the end of each epoch."""
    name = getattr(node, "name", None)
    label = branch_label(name if isinstance(name, str) else type(node).__name__)
    step_id = walk.take(child_id(flowing.parent, f"into-{label}"), path)
    if is_async(node.build_partition):
        walk.issues.error(
            Code.STEP_ASYNC,
            f"{type(node).__qualname__}.build_partition is async, so it would open nothing",
            path=path,
            remedy="make it a plain method; run what has to be awaited on the bridge that it receives: bridge.run(…)",
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


def _build(build: StageBuilder, node: CompiledIntoSink, after: NodeInput | None, above: Ancestors) -> NodeInput:
    """A sink that takes messages."""
    return build.hosted(node.path, above)


COMPONENTS = (NodeComponent((IntoSink,), _compile, CompiledIntoSink, _build, ends=True),)
