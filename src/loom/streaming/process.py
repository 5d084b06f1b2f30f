"""A sequence of nodes. It knows no node class, so nodes may hold processes without a circle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loom.streaming.typed import In, Out, Typed

__all__ = ["Process"]


class Process(Typed[In, Out]):
    """The nodes that a record passes, in order.

    >>> process = Process(Price, Router.by(payload.id, {1: Process(Audit)}, default=Process(Drain())))
    >>> len(process), process.nodes[0].__name__
    (2, 'Price')

    Args:
        nodes: steps (class, instance, `@step` function or config binding), routing nodes and terminals; at least one.

    Raises:
        ValueError: without a node. A flow that only copies needs a step that returns its input.
    """

    __slots__ = ("nodes",)

    #: the nodes, in the order in which a record meets them
    nodes: tuple[Any, ...]

    def __init__(self, *nodes: Any) -> None:
        if not nodes:
            raise ValueError("Process() needs at least one node, for example Process(Validate, Price)")
        self.nodes = nodes

    def __iter__(self) -> Iterator[Any]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __eq__(self, other: object) -> bool:
        return self.nodes == other.nodes if isinstance(other, Process) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.nodes)

    def __repr__(self) -> str:
        return f"Process({', '.join(map(repr, self.nodes))})"
