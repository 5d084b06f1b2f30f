"""Nodes that make many records of one without a step class: `Explode`, and `ExpandRoutes`, which parts them by type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

from msgspec.structs import force_setattr

from loom.core.expr import Expression
from loom.core.model import LoomFrozenStruct
from loom.streaming.process import Process
from loom.streaming.typed import In, Out, Typed

__all__ = ["ExpandRoutes", "Explode", "PayloadExpander"]

P_contra = TypeVar("P_contra", contravariant=True)


class Explode(LoomFrozenStruct, Typed[In, Out]):
    """Each payload becomes any number of payloads, in order; the next node takes them one by one.

    An exploder that raises part-way emits nothing: the record is one `TASK` error.

    >>> lines = Explode(lambda order: order.lines)
    >>> same = Explode(payload.lines)

    Args:
        exploder: a function of the payload that returns an iterable, or an expression that names a field of it.
        name: keeps two of these in one process apart.
    """

    exploder: Callable[[Any], Iterable[Any]] | Expression
    name: str | None = None


@runtime_checkable
class PayloadExpander(Protocol[P_contra]):
    """Makes payloads of several types out of one. Any object with this method is one.

    >>> class Split:
    ...     def expand(self, order: Order) -> dict[type, list]:
    ...         return {Line: list(order.lines), Refund: [Refund(order.id)]}
    >>> isinstance(Split(), PayloadExpander)
    True
    """

    def expand(self, payload: P_contra) -> dict[type, list[Any]]:
        """Expand one payload.

        Args:
            payload: the payload of the record.

        Returns:
            The new payloads by their type, in order.

        Raises:
            Exception: whatever it raises is one `TASK` error of the record, and nothing is emitted.
        """


class ExpandRoutes(LoomFrozenStruct, Typed[In, Out], kw_only=True):
    """A terminal node: an expander makes payloads of several types, and each type has a branch of its own.

    A type without a branch goes to `default`; without a default, each such payload is a `ROUTING` error. Branches end in a
    terminal, like those of a `Fork`.

    >>> parts = ExpandRoutes(expander=SplitOrder(), routes={
    ...     Line: Process(IntoTopic("orders.lines")),
    ...     Refund: Process(IntoTopic("orders.refunds")),
    ... })

    Args:
        expander: a `PayloadExpander`.
        routes: the branch for each payload type, at least one.
        default: the branch for payloads of other types.
        name: keeps two of these in one process apart.

    Raises:
        TypeError: if `routes` is no mapping.
        ValueError: if it is empty.
    """

    expander: PayloadExpander[Any]
    routes: Mapping[type, Process]
    default: Process | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.routes, Mapping):
            raise TypeError(
                f"ExpandRoutes(routes=…) takes a mapping of payload types to processes, not {self.routes!r}"
            )
        if not self.routes:
            raise ValueError("ExpandRoutes() needs at least one route, a payload type and its process")
        # A copy: what its author does with the mapping afterwards is no part of what was declared.
        force_setattr(self, "routes", dict(self.routes))
