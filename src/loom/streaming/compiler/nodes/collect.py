"""Nodes that change the shape: `CollectBatch`, `ForEach` and `Drain`."""

from __future__ import annotations

from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.model import CompiledNode, NodePath
from loom.streaming.compiler.names import child_id
from loom.streaming.compiler.walk import Compiled, ProcessCompiler, StreamType
from loom.streaming.nodes.collect import CollectBatch, Drain, ForEach
from loom.streaming.nodes.shape import StreamShape

__all__ = [
    "CompiledCollect",
    "CompiledDrain",
    "CompiledForEach",
    "compile_collect",
    "compile_drain",
    "compile_for_each",
]

_RECORDS = (StreamShape.RECORD, StreamShape.MANY)


class CompiledCollect(CompiledNode, kw_only=True):
    """Records are kept until a batch is full or its first one has waited long enough."""

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
        return f" up to {self.max_records} records or {self.timeout_ms} ms"


class CompiledForEach(CompiledNode, kw_only=True):
    """Batches and expansions are taken one record at a time."""


class CompiledDrain(CompiledNode, kw_only=True):
    """Records end here on purpose."""

    @property
    def summary(self) -> str:
        return ": dropped on purpose"


def compile_collect(walk: ProcessCompiler, node: CollectBatch, path: NodePath, flowing: StreamType) -> Compiled:
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


def compile_for_each(walk: ProcessCompiler, node: ForEach, path: NodePath, flowing: StreamType) -> Compiled:  # noqa: ARG001
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


def compile_drain(walk: ProcessCompiler, node: Drain, path: NodePath, flowing: StreamType) -> Compiled:
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
