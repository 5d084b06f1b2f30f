"""The formats that a plan can be explained in. Asked by `PlanModel.explain` and the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from loom.streaming.compiler.explain.document import as_json
from loom.streaming.compiler.explain.mermaid import as_mermaid
from loom.streaming.compiler.explain.text import as_text
from loom.streaming.compiler.model import PlanModel

__all__ = ["FORMATS", "explain"]

FORMATS: Final[dict[str, Callable[[PlanModel], str]]] = {"text": as_text, "mermaid": as_mermaid, "json": as_json}


def explain(plan: PlanModel, format: str) -> str:
    """The plan in one of the formats. Raises `ValueError` for another."""
    write = FORMATS.get(format)
    if write is None:
        raise ValueError(f"a plan cannot be explained as {format!r}; there are {', '.join(map(repr, FORMATS))}")
    return write(plan)
