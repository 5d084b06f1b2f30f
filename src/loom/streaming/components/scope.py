"""Nodes whose features are not built yet: each is refused in its place, with an alternative."""

from __future__ import annotations

from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.model import NodePath
from loom.streaming.compiler.walk import Compiled, NodeComponent, ProcessCompiler, StreamType
from loom.streaming.nodes.scope import With, WithAsync

__all__ = ["COMPONENTS"]


def _refuse(walk: ProcessCompiler, node: With | WithAsync, path: NodePath, flowing: StreamType) -> Compiled:
    """Scoped resources are not built yet."""
    walk.issues.error(
        Code.NOT_SUPPORTED,
        f"{type(node).__name__} is not supported yet",
        path=path,
        remedy="write the inner nodes in this process directly, and let the steps open what they need in their constructors",
    )
    return None


COMPONENTS = (NodeComponent((With, WithAsync), _refuse),)
