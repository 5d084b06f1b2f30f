"""The formats that a plan can be explained in, each by the name of its function. Asked by `CompiledPlan.explain`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final

from loom.streaming.compiler.model import PlanModel

__all__ = ["FORMATS", "explain"]

#: named, because the code of the stages is no business of the compiler's
FORMATS: Final[dict[str, str]] = {
    "text": "loom.streaming.compiler.explain.text:as_text",
    "mermaid": "loom.streaming.compiler.explain.mermaid:as_mermaid",
    "json": "loom.streaming.compiler.explain.document:as_json",
    "asyncapi": "loom.streaming.compiler.explain.asyncapi:as_asyncapi",
    "code": "loom.streaming.runtime.generated_code:as_code",
}


def explain(plan: PlanModel, format: str) -> str:
    """The plan in one of the formats. Raises `ValueError` for another."""
    named = FORMATS.get(format)
    if named is None:
        raise ValueError(f"a plan cannot be explained as {format!r}; there are {', '.join(map(repr, FORMATS))}")
    module, _, name = named.partition(":")
    write: Callable[[PlanModel], str] = getattr(import_module(module), name)
    return write(plan)
