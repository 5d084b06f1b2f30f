"""A flow and its config become an immutable, validated plan. `compile_flow` is the way in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom.core.lazy import lazy_exports

if TYPE_CHECKING:
    from loom.streaming.compiler.catalogue import Code, CompilationError, Issue, Severity
    from loom.streaming.compiler.compile import compile_flow
    from loom.streaming.compiler.model import (
        CompiledBranch,
        CompiledErrorRoute,
        CompiledNode,
        CompiledSource,
        CompiledTopic,
    )
    from loom.streaming.compiler.plan import CompiledPlan
    from loom.streaming.components.boundary import CompiledIntoTopic
    from loom.streaming.components.broadcast import CompiledBroadcast
    from loom.streaming.components.collect import CompiledCollect, CompiledDrain, CompiledForEach
    from loom.streaming.components.expand import CompiledExpandRoutes, CompiledExplode
    from loom.streaming.components.route import CompiledFork, CompiledRouter
    from loom.streaming.components.sink import CompiledIntoSink
    from loom.streaming.components.step import CompiledStep

__all__ = [
    "Code",
    "CompilationError",
    "CompiledBranch",
    "CompiledBroadcast",
    "CompiledCollect",
    "CompiledDrain",
    "CompiledErrorRoute",
    "CompiledExpandRoutes",
    "CompiledExplode",
    "CompiledForEach",
    "CompiledFork",
    "CompiledIntoSink",
    "CompiledIntoTopic",
    "CompiledNode",
    "CompiledPlan",
    "CompiledRouter",
    "CompiledSource",
    "CompiledStep",
    "CompiledTopic",
    "Issue",
    "Severity",
    "compile_flow",
]

__getattr__, __dir__ = lazy_exports(__name__)
