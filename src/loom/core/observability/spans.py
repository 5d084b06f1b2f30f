"""Spans as the runtime knows them, so that what follows records depends on no tracing library.

An observer that traces has an attribute `tracing`, a `Tracing`; the stages of a run ask it which records to follow, and hand it
each span when it is over. A followed record is one `FinishedSpan`, however many nodes it has passed, so that the thread at work
makes one object of it; what is sent of it is made elsewhere.
"""

from __future__ import annotations

import enum
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from loom.core.model import LoomFrozenStruct
from loom.core.tracing import TraceParent

__all__ = [
    "MOST_IN_RUN",
    "AttributeValue",
    "FinishedSpan",
    "Sampling",
    "SpanBatch",
    "SpanError",
    "SpanRole",
    "SpanRun",
    "SpanShape",
    "Tracing",
]

AttributeValue: TypeAlias = str | bool | int | float

#: values of spans in a run are less
MOST_IN_RUN = 1 << 56


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


class SpanShape:
    """What many spans have in common. Make one for all of them: it is compared by identity, and encoded once.

    >>> shape = SpanShape("process orders", SpanRole.CONSUMER, {"loom.flow": "shop"}, varying=("messaging.kafka.offset",))
    >>> shape.varying
    ('messaging.kafka.offset',)

    Args:
        name: by the semantic conventions.
        role: what they do.
        attributes: those with the same value in each.
        varying: names of attributes with values that differ, in the order of `FinishedSpan.values`.
        inside: what may happen inside of them, by the name that is used in `FinishedSpan.path`; attributes that vary are for
            outer spans only.
    """

    __slots__ = ("attributes", "inside", "name", "role", "varying")

    def __init__(
        self,
        name: str,
        role: SpanRole,
        attributes: Mapping[str, AttributeValue],
        *,
        varying: Sequence[str] = (),
        inside: Mapping[str, SpanShape] | None = None,
    ) -> None:
        self.name = name
        self.role = role
        self.attributes = dict(attributes)
        self.varying = tuple(varying)
        self.inside: Mapping[str, SpanShape] = inside or {}


class SpanError(LoomFrozenStruct):
    """Why a span has failed.

    >>> SpanError.of(ValueError("negative"), 0).message
    'negative'

    Args:
        description: said by its status.
        at_ns: when, in nanoseconds by the clock of the span.
        error_type: the full name of the exception's class; empty if nothing is known of an exception.
        message: the text of the exception.
        stacktrace: its traceback.
    """

    description: str
    at_ns: int
    error_type: str = ""
    message: str = ""
    stacktrace: str = ""

    @classmethod
    def of(cls, error: BaseException, at_ns: int) -> SpanError:
        """An exception as it is now.

        Args:
            error: the exception.
            at_ns: when it was raised, in nanoseconds by the clock of the span.
        """
        kind = type(error)
        stacktrace = "".join(traceback.format_exception(error))
        return cls(kind.__qualname__, at_ns, f"{kind.__module__}.{kind.__qualname__}", str(error), stacktrace)


# Of these one is made for each followed record.
class FinishedSpan(msgspec.Struct, frozen=True, gc=False):
    """A span that is over, with what happened inside of it. Its times are nanoseconds by any clock.

    Args:
        shape: what it has in common with others.
        place: its trace and its id.
        begun_ns: when it began.
        ended_ns: when it ended.
        clock_ns: what has to be added to its times to make them nanoseconds since 1970.
        parent_id: the span that it continues, in another process; `None` if it begins its trace.
        state: the `tracestate` that came with the parent.
        values: of the attributes that vary.
        path: what was come to inside, one after the other, by names of `SpanShape.inside`. Each lasts until the next begins, the
            last until the span ends.
        times: when each of them began.
        links: spans that it has to do with.
        error: why it failed, if it did.
        inner_errors: what failed inside, by name. One that is not on the path becomes a span without duration.
    """

    shape: SpanShape
    place: TraceParent
    begun_ns: int
    ended_ns: int
    clock_ns: int = 0
    parent_id: str | None = None
    state: str | None = None
    values: tuple[AttributeValue, ...] = ()
    path: tuple[str, ...] = ()
    times: Sequence[int] = ()
    links: Sequence[TraceParent] = ()
    error: SpanError | None = None
    inner_errors: Mapping[str, SpanError] = {}


class SpanRun(NamedTuple):
    """Spans of one shape, with one value each, in which the same happened and nothing failed: by columns, which costs least.

    Each of `path` begins when the one before it has ended, and the first and the last of them begin and end with the span.

    Args:
        shape: what they have in common.
        path: as in `FinishedSpan`.
        ids: of each its trace and its own id, 24 bytes, one after the other.
        values: of each that of the attribute that varies, at least 0 and less than `MOST_IN_RUN`.
        times: of all of them when each of `path` began, and last when they ended; in nanoseconds since 1970.
        parent_ids: of each the span that it continues, in another process; empty if they begin their traces.
    """

    shape: SpanShape
    path: tuple[str, ...]
    ids: bytes
    values: Sequence[int]
    times: Sequence[Sequence[int]]
    parent_ids: Sequence[str] = ()


class SpanBatch(Protocol):
    """Spans of records that were followed together. They are made only if they are not lost anyway."""

    def __len__(self) -> int:
        """How many records they are of."""

    @property
    def spans(self) -> int:
        """How many spans they are, with those inside of them."""

    def __iter__(self) -> Iterator[FinishedSpan | SpanRun]:
        """The spans, each with what is inside of it; those that are alike together."""


class Tracing(Protocol):
    """Where spans go."""

    @property
    def sampling(self) -> Sampling:
        """Which records are followed."""

    @property
    def lost(self) -> int:
        """Spans that were lost so far."""

    def add(self, span: FinishedSpan) -> None:
        """Take a span that is over. Never waits, and may be called by any thread."""

    def add_all(self, batch: SpanBatch) -> None:
        """Take the spans of a batch, as `add` does."""

    @property
    def is_asked(self) -> bool:
        """Whether anybody can ask for the current span, so that `enter` is of use."""

    def enter(self, place: TraceParent, state: str | None = None) -> Any:
        """Make a span the current one of this thread or task, for code that makes spans by itself. Returns what `leave` takes."""

    def leave(self, token: Any) -> None:
        """Make the span before it the current one again."""
