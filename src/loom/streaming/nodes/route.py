"""Branches of which one takes each record: after a `Router` the stream continues, after a `Fork` it ends.

A selector is an expression (`payload.country`), a function of the payload, a function whose parameter is annotated
`Message`, an object with `select(message)`, or `type`, which chooses by the payload's class. A predicate is an expression,
a function that answers with a truth value, or an object with `matches(message)`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

from loom.core.model import LoomFrozenStruct
from loom.streaming.message import Message
from loom.streaming.process import Process
from loom.streaming.typed import In, Out, Typed

__all__ = ["Fork", "ForkRoute", "Predicate", "Route", "RouteBranch", "Router", "Selector"]

P_contra = TypeVar("P_contra", contravariant=True)


@runtime_checkable
class Selector(Protocol[P_contra]):
    """Hand-written routing: names the branch that takes a message. Any object with this method is one.

    >>> class ByCountry:
    ...     def select(self, message: Message[Order]) -> str:
    ...         return message.payload.country
    >>> routed = Router.by(ByCountry(), {"ES": Process(PriceInEuro)}, default=Process(Price))
    """

    def select(self, message: Message[P_contra]) -> Hashable:
        """The key of the branch for one message.

        Args:
            message: the message to route.

        Returns:
            A key. If no branch has it the message goes to the default, or else is a `ROUTING` error.

        Raises:
            Exception: whatever it raises is a `ROUTING` error of that record.
        """


@runtime_checkable
class Predicate(Protocol[P_contra]):
    """Hand-written routing: says whether a branch takes a message. Any object with this method is one.

    >>> class IsVip:
    ...     def matches(self, message: Message[Order]) -> bool:
    ...         return message.meta.key == b"vip"
    >>> routed = Router.when([Route(IsVip(), Process(PriceInEuro))], default=Process(Price))
    """

    def matches(self, message: Message[P_contra]) -> bool:
        """Whether the branch takes the message.

        Args:
            message: the message to route.

        Raises:
            Exception: whatever it raises is a `ROUTING` error of that record.
        """


class Route(LoomFrozenStruct, Typed[In, Out]):
    """A branch of `Router.when`: it takes the records for which `when` holds and that no earlier route took.

    >>> Route(payload.country == "ES", Process(PriceInEuro), "spain").name
    'spain'

    Args:
        when: an expression, a function with a truth value, or a `Predicate`.
        process: the nodes of the branch.
        name: its label in step ids; by default made of the predicate.
    """

    when: Any
    process: Process
    name: str | None = None


class ForkRoute(Route[In, Out]):
    """A branch of `Fork.when`: like a `Route`, and its process ends in a terminal.

    >>> spain = ForkRoute(payload.country == "ES", Process(IntoTopic("orders.es")), "spain")

    Args:
        when: an expression, a function with a truth value, or a `Predicate`.
        process: the nodes of the branch.
        name: its label in step ids; by default made of the predicate.
    """


class RouteBranch(LoomFrozenStruct):
    """One way out, in the form that `by` and `when` share: a selector's key, or a predicate."""

    key: Any
    process: Process
    label: str | None = None


class _Choice(LoomFrozenStruct, Typed[In, Out]):
    """What routers and forks have in common. `selector` is `None` where predicates choose."""

    selector: Any
    branches: tuple[RouteBranch, ...]
    default: Process | None = None
    name: str | None = None

    _route: ClassVar[type[Route]] = Route

    @classmethod
    def _by(cls, selector: Any, branches: Mapping[Any, Process], default: Process | None, name: str | None) -> Self:
        if not branches:
            raise ValueError(f"{cls.__name__}.by() needs at least one branch")
        return cls(selector, tuple(RouteBranch(key, process) for key, process in branches.items()), default, name)

    @classmethod
    def when(cls, routes: Iterable[Route], *, default: Process | None = None, name: str | None = None) -> Self:
        """Choose the first branch whose predicate holds.

        Args:
            routes: the branches in the order in which they are tried, at least one.
            default: takes a record for which none holds. Without it such a record is a `ROUTING` error, as is one whose
                predicate raises.
            name: keeps two of these in one process apart.

        Raises:
            ValueError: without a route.
            TypeError: for a route of another class.
        """
        given = tuple(routes)
        if not given:
            raise ValueError(f"{cls.__name__}.when() needs at least one route")
        for route in given:
            if not isinstance(route, Route):
                raise TypeError(f"{cls.__name__}.when() takes {cls._route.__name__}(when, process), not {route!r}")
        return cls(None, tuple(RouteBranch(route.when, route.process, route.name) for route in given), default, name)


class Router(_Choice[In, Out]):
    """One branch takes each record, and what leaves the branch continues after the router.

    A branch may hold any node; one that ends in a terminal ends there. If branches produce different payload types, the node
    after the router must accept all of them.

    >>> prices = Router.by(lambda order: order.country, {
    ...     "ES": Process(PriceInEuro),
    ...     "UK": Process(PriceInPounds),
    ... }, default=Process(PriceInDollars))
    """

    @classmethod
    def by(
        cls,
        selector: Any,
        routes: Mapping[Any, Process],
        *,
        default: Process | None = None,
        name: str | None = None,
    ) -> Self:
        """Choose the branch by a key computed from each record.

        Args:
            selector: an expression, a function of the payload or of a `Message`, or a `Selector`. With `type`, the keys are
                classes, and each branch receives payloads of exactly its class.
            routes: the branch for each key, at least one.
            default: takes a record whose key no branch has. Without it such a record is a `ROUTING` error, as is one whose
                selector raises.
            name: keeps two of these in one process apart.

        Raises:
            ValueError: without a branch.
        """
        return cls._by(selector, routes, default, name)


class Fork(_Choice[In, Out]):
    """A terminal node: one branch takes each record, and the stream ends there.

    Each branch ends in a terminal such as `IntoTopic`; none continues to the flow's output.

    >>> topics = Fork.by(lambda order: order.country, {
    ...     "ES": Process(Price, IntoTopic("orders.es")),
    ... }, default=Process(IntoTopic("orders.rest")))
    """

    _route: ClassVar[type[Route]] = ForkRoute

    @classmethod
    def by(
        cls,
        selector: Any,
        branches: Mapping[Any, Process],
        *,
        default: Process | None = None,
        name: str | None = None,
    ) -> Self:
        """Choose the branch by a key computed from each record; the arguments are those of `Router.by`.

        Args:
            selector: an expression, a function of the payload or of a `Message`, or a `Selector`.
            branches: the branch for each key, at least one.
            default: takes a record whose key no branch has.
            name: keeps two of these in one process apart.

        Raises:
            ValueError: without a branch.
        """
        return cls._by(selector, branches, default, name)
