"""A terminal node whose branches all take every record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from loom.core.model import LoomFrozenStruct
from loom.streaming.nodes.boundary import IntoTopic
from loom.streaming.process import Process
from loom.streaming.typed import In, Out, Typed

__all__ = ["Broadcast", "BroadcastRoute"]


class BroadcastRoute(LoomFrozenStruct, Typed[In, Out]):
    """One branch of a `Broadcast`.

    >>> BroadcastRoute(Process(Price), IntoTopic("orders.priced"), name="priced").name
    'priced'

    Args:
        process: the nodes of the branch.
        output: the topic that the branch ends in; `None` if its process ends itself.
        name: its label in step ids; by default that of the topic that it ends in.
    """

    process: Process
    output: IntoTopic[Any] | None = None
    name: str | None = None


@dataclass(frozen=True, init=False)
class Broadcast(Typed[In, Out]):
    """Every branch takes every record, one branch after the other, and the stream ends there.

    The branches receive the same payload object, so its type should be frozen. An error in one branch does not affect the
    others.

    >>> both = Broadcast(
    ...     BroadcastRoute(Process(Price), IntoTopic("orders.priced")),
    ...     BroadcastRoute(Process(Audit, IntoTopic("orders.audit"))),
    ... )

    Args:
        routes: the branches, at least one.
        name: keeps two broadcasts in one process apart.

    Raises:
        ValueError: without a route.
        TypeError: for a route that is no `BroadcastRoute`.
    """

    routes: tuple[BroadcastRoute, ...]
    name: str | None

    def __init__(self, *routes: BroadcastRoute, name: str | None = None) -> None:
        if not routes:
            raise ValueError("Broadcast() needs at least one BroadcastRoute(process, output)")
        for route in routes:
            if not isinstance(route, BroadcastRoute):
                raise TypeError(f"Broadcast() takes BroadcastRoute(process, output), not {route!r}")
        object.__setattr__(self, "routes", routes)
        object.__setattr__(self, "name", name)
