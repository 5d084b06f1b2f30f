"""A flow and its config become an immutable, validated plan. `compile_flow` is the way in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom.core.lazy import lazy_exports

if TYPE_CHECKING:
    from loom.streaming.compiler.catalogue import Code, CompilationError, Issue, Severity
    from loom.streaming.compiler.compile import compile_flow
    from loom.streaming.compiler.plan import (
        CompiledBranch,
        CompiledErrorRoute,
        CompiledFork,
        CompiledIntoTopic,
        CompiledNode,
        CompiledPlan,
        CompiledSource,
        CompiledStep,
        CompiledTopic,
    )

__all__ = [
    "Code",
    "CompilationError",
    "CompiledBranch",
    "CompiledErrorRoute",
    "CompiledFork",
    "CompiledIntoTopic",
    "CompiledNode",
    "CompiledPlan",
    "CompiledSource",
    "CompiledStep",
    "CompiledTopic",
    "Issue",
    "Severity",
    "compile_flow",
]

_WHERE = {
    "loom.streaming.compiler.catalogue": ("Code", "CompilationError", "Issue", "Severity"),
    "loom.streaming.compiler.compile": ("compile_flow",),
    "loom.streaming.compiler.plan": tuple(name for name in __all__ if name.startswith("Compiled")),
}
__getattr__, __dir__ = lazy_exports(__name__, _WHERE)
