"""Nodes that change the shape: `CollectBatch`, `ForEach` and `Drain`."""

from __future__ import annotations

from loom.core.counted import counted
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.model import CompiledNode, NodePath
from loom.streaming.compiler.names import child_id
from loom.streaming.compiler.walk import Compiled, NodeComponent, ProcessCompiler, StreamType
from loom.streaming.nodes.collect import CollectBatch, Drain, ForEach
from loom.streaming.nodes.shape import StreamShape
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.codegen import CodeWriter
from loom.streaming.runtime.stages.collect import Collector
from loom.streaming.runtime.stages.node_input import Ancestors, NodeInput

__all__ = ["COMPONENTS", "CompiledCollect", "CompiledDrain", "CompiledForEach"]

_RECORDS = (StreamShape.RECORD, StreamShape.MANY)


class CompiledCollect(CompiledNode, kw_only=True):
    """A node that keeps records until a batch is full or its first record has waited long enough.

    >>> node = compiled(CollectBatch(500, timeout_ms=200), StoreAll, ForEach(), Drain()).nodes[0]
    >>> node.max_records, node.timeout_ms, node.waits
    (500, 200, True)
    """

    max_records: int
    timeout_ms: int

    @property
    def gathers(self) -> bool:
        return True

    @property
    def waits(self) -> bool:
        return True

    @property
    def summary(self) -> str:
        return f" up to {counted(self.max_records, 'record')} or {self.timeout_ms} ms"


class CompiledForEach(CompiledNode, kw_only=True):
    """A node that takes batches and expansions one record at a time.

    >>> compiled(CollectBatch(500, timeout_ms=200), StoreAll, ForEach(), Drain()).nodes[2].out_shape.value
    'record'
    """


class CompiledDrain(CompiledNode, kw_only=True):
    """A node where records end on purpose.

    >>> compiled(Drain()).nodes[0].step_id
    'orders.drain'
    """

    @property
    def summary(self) -> str:
        return ": dropped on purpose"


def _compile_collect(walk: ProcessCompiler, node: CollectBatch, path: NodePath, flowing: StreamType) -> Compiled:
    """Collecting by event time comes with windows."""
    if node.event_time:
        walk.issues.error(
            Code.NOT_SUPPORTED,
            "CollectBatch(event_time=True) is not supported yet",
            path=path,
            remedy="leave event_time at its default: batches close by the time at which records arrive",
        )
    walk.check_shape("CollectBatch", path, flowing, _RECORDS)
    made = CompiledCollect(
        path=path,
        step_id=walk.name(flowing.parent, node.name or "collect_batch", path),
        in_shape=flowing.shape,
        out_shape=StreamShape.BATCH,
        accepts=flowing.payloads,
        returns=flowing.payloads,
        max_records=node.max_records,
        timeout_ms=node.timeout_ms,
    )
    return made, flowing.on(made, mixed=flowing.mixed)


def _compile_for_each(walk: ProcessCompiler, node: ForEach, path: NodePath, flowing: StreamType) -> Compiled:
    """Named after the node in front of it, since it has nothing of its own that could fail or be counted."""
    walk.check_shape("ForEach", path, flowing, (StreamShape.MANY, StreamShape.BATCH))
    made = CompiledForEach(
        path=path,
        step_id=walk.take(child_id(flowing.left or flowing.parent, "for_each"), path),
        in_shape=flowing.shape,
        out_shape=StreamShape.RECORD,
        accepts=flowing.payloads,
        returns=flowing.payloads,
    )
    return made, flowing.on(made, mixed=flowing.mixed)


def _compile_drain(walk: ProcessCompiler, node: Drain, path: NodePath, flowing: StreamType) -> Compiled:
    """Takes anything."""
    made = CompiledDrain(
        path=path,
        step_id=walk.name(flowing.parent, node.name or "drain", path),
        in_shape=flowing.shape,
        out_shape=StreamShape.NONE,
        accepts=flowing.payloads,
        returns=flowing.payloads,
    )
    return made, flowing.on(made)


def _build_collect(build: StageBuilder, node: CompiledCollect, after: NodeInput | None, above: Ancestors) -> NodeInput:
    """Keeps records until a batch is full or its time is up."""
    stage = build.stage
    assert after is not None
    assert stage.gate is not None
    collector = Collector(build, node.max_records, node.timeout_ms, after, above, stage.gate, node.step_id)
    stage.room.add(collector, node.step_id)
    return build.entry(collector.take, collector.take, above)


def _build_for_each(build: StageBuilder, node: CompiledForEach, after: NodeInput | None, above: Ancestors) -> NodeInput:
    """Changes nothing but the shape."""
    assert after is not None
    build.written(node.path, lambda code: None)
    return build.entry(after.record, after.tombstone, above)


def _build_drain(build: StageBuilder, node: CompiledDrain, after: NodeInput | None, above: Ancestors) -> NodeInput:
    """Counts what ends here."""

    def emit(code: CodeWriter) -> None:
        code.line(f"{code.name('drops', build.counts.drops)}[{node.step_id!r}] += 1")
        code.end()

    run = build.emitted(node.path, emit, None)
    return build.entry(run, run, above)


COMPONENTS = (
    NodeComponent((CollectBatch,), _compile_collect, CompiledCollect, _build_collect),
    NodeComponent((ForEach,), _compile_for_each, CompiledForEach, _build_for_each),
    NodeComponent((Drain,), _compile_drain, CompiledDrain, _build_drain, ends=True),
)
