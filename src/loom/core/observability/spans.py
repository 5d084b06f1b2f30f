"""Spans as the runtime knows them, so that what follows records depends on no tracing library.

An observer that traces has an attribute `tracing`, a `Tracing`; the stages of a run ask it which records to follow, and tell it
of each.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from loom.core.model import LoomFrozenStruct
from loom.core.tracing import TraceParent

__all__ = ["OpenSpan", "Sampling", "SpanRole", "Tracing"]


class SpanRole(enum.StrEnum):
    """What a span does.

    >>> SpanRole("consumer")
    <SpanRole.CONSUMER: 'consumer'>
    """

    CONSUMER = "consumer"  #: works on a record that was read
    PRODUCER = "producer"  #: writes one
    INTERNAL = "internal"  #: anything between


class Sampling(LoomFrozenStruct):
    """Which records are followed.

    Args:
        ratio: the share of records that come without a trace, 0 to 1; one that is in a sampled trace always is.
        on_error: whether a record that fails is told of though it was not followed.
    """

    ratio: float = 0.01
    on_error: bool = True


class OpenSpan(Protocol):
    """A span that has begun. Used by the thread that began it."""

    @property
    def place(self) -> TraceParent:
        """Its trace and its id: what goes out with the records that are made here."""

    def child(
        self,
        name: str,
        role: SpanRole,
        begun_ns: int,
        ended_ns: int,
        attributes: Mapping[str, Any],
        error: BaseException | None = None,
    ) -> None:
        """Tell of something that happened inside; times are in nanoseconds since 1970."""

    def end(self, ended_ns: int, error: BaseException | None = None) -> None:
        """It is over, or has failed."""


class Tracing(Protocol):
    """Where spans go."""

    @property
    def sampling(self) -> Sampling:
        """Which records are followed."""

    def begin(
        self,
        name: str,
        role: SpanRole,
        begun_ns: int,
        attributes: Mapping[str, Any],
        *,
        parent: TraceParent | None = None,
        state: str | None = None,
        links: Sequence[TraceParent] = (),
    ) -> OpenSpan:
        """Begin a span, in the trace of `parent` (with its `tracestate`) or in a new one."""
