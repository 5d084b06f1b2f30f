"""A compiled flow, as everybody outside the compiler sees it: the data of the plan, and the ways to print it."""

from __future__ import annotations

from typing import Literal

from loom.streaming.compiler.explain.formats import explain
from loom.streaming.compiler.model import PlanModel

__all__ = ["CompiledPlan"]


class CompiledPlan(PlanModel):
    """A whole flow, checked and resolved. Equal plans do the same."""

    def explain(self, format: Literal["text", "mermaid", "json", "code"] = "text") -> str:
        """The plan for a person (`text`), as a flowchart (`mermaid`), for a program (`json`) or as the Python that runs (`code`).

        None holds a secret. The JSON document is described in `loom.streaming.compiler.explain.document`. `code` loads
        the Kafka client, since it shows how that client's records are read; it connects to nothing.

        Raises:
            ValueError: for another format, naming these.
        """
        return explain(self, format)
