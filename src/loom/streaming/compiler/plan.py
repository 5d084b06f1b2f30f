"""A compiled flow, as code outside the compiler sees it: the data of the plan, and the ways to print it."""

from __future__ import annotations

from typing import Literal

from loom.streaming.compiler.explain.formats import explain
from loom.streaming.compiler.model import PlanModel

__all__ = ["CompiledPlan"]


class CompiledPlan(PlanModel):
    """A whole flow, checked and resolved: immutable data that the runtime executes. Equal plans do the same.

    >>> plan = compiled(Price, output=IntoTopic("orders.priced"))
    >>> plan.name, [node.step_id for node in plan.nodes], [topic.topic for topic in plan.topics()]
    ('orders', ['orders.price'], ['orders.priced'])
    >>> print(plan.explain("mermaid").splitlines()[0])
    flowchart TD
    """

    def explain(self, format: Literal["text", "mermaid", "json", "asyncapi", "code"] = "text") -> str:
        """Print the plan. No format shows a secret.

        Args:
            format: `text` for a person, `mermaid` for a flowchart, `json` for a program (described in
                `loom.streaming.compiler.explain.document`), `asyncapi` for an AsyncAPI 3 document of its topics, `code` for the
                Python that runs (which loads the Kafka client and connects to nothing).

        Raises:
            ValueError: for another format.
        """
        return explain(self, format)
