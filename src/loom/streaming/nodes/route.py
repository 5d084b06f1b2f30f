"""Branches: `Fork` sends each record into exactly one of several processes, and ends there.

A selector is a function of the payload, a function whose parameter is annotated `Message`, or an
object with `select(message)`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

from loom.core.errors import NotSupportedYetError
from loom.core.model import LoomFrozenStruct
from loom.streaming.message import Message
from loom.streaming.process import Process

__all__ = ["Fork", "ForkBranch", "Predicate", "Selector"]

P_contra = TypeVar("P_contra", contravariant=True)


@runtime_checkable
class Selector(Protocol[P_contra]):
    """Hand-written routing: names the branch that takes a message."""

    def select(self, message: Message[P_contra]) -> Hashable:
        """The key of the branch. A key that no branch has goes to the default, else it is a `ROUTING` error."""


@runtime_checkable
class Predicate(Protocol[P_contra]):
    """Hand-written routing: says whether a route takes a message.

    >>> class IsLate:
    ...     def matches(self, message: Message[object]) -> bool:
    ...         return (message.meta.produced_at_ms or 0) < 1_700_000_000_000
    >>> isinstance(IsLate(), Predicate)
    True
    """

    def matches(self, message: Message[P_contra]) -> bool:
        """Whether the route takes it. What this raises is a `ROUTING` error of the record."""


class ForkBranch(LoomFrozenStruct):
    """One way out of a fork: the key it stands for and what happens there."""

    key: Any
    process: Process


class Fork(LoomFrozenStruct):
    """A terminal node: one branch takes each record. Made by `Fork.by`.

    >>> Fork.by(lambda order: order.country, {                      # doctest: +SKIP
    ...     "ES": Process(Price, IntoTopic("orders.es")),
    ... }, default=Process(IntoTopic("orders.rest")))
    """

    selector: Any
    branches: tuple[ForkBranch, ...]
    default: Process | None = None

    @classmethod
    def by(
        cls,
        selector: Callable[[Any], Hashable] | Selector[Any],
        branches: Mapping[Any, Process],
        *,
        default: Process | None = None,
    ) -> Fork:
        """Choose the branch by a key computed from each record.

        A function is handed the payload, or the `Message` where its parameter is annotated so. A key that no
        branch has goes to `default`; without one, and when the selector raises, it is a `ROUTING` error of
        that record. Each branch ends in a terminal such as `IntoTopic`; none falls through to the flow's output.
        """
        if not branches:
            raise ValueError("Fork.by() needs at least one branch")
        return cls(selector, tuple(ForkBranch(key, process) for key, process in branches.items()), default)

    @classmethod
    def when(cls, routes: Any, *, default: Process | None = None) -> Fork:  # noqa: ARG003 - not built yet
        """Choose the branch by predicates, the first match. Not built yet: raises `NotSupportedYetError`."""
        raise NotSupportedYetError(
            "Fork.when(…) is not supported yet; use Fork.by with a function that names the branch"
        )
