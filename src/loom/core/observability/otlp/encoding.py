"""Spans to the bytes of an OTLP request.

Fields and their numbers are those of opentelemetry-proto 1.x (`trace.proto`). Their order does not matter to who parses them,
so all that spans of a shape have in common is encoded once. Where many come together that took the same path, `run_layout` knows
where ids, times and values are in their bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from loom.core.observability.otlp.protobuf import AttributeKey, attributes, message, text, varint
from loom.core.observability.otlp.run_layout import (
    BEGIN,
    END,
    FAR,
    IS_REMOTE,
    NEAR,
    PARENT_ID,
    REMOTE_IS_KNOWN,
    SPAN_ID,
    SPANS,
    TRACE_ID,
    RunLayout,
)
from loom.core.observability.spans import FinishedSpan, SpanError, SpanRole, SpanRun, SpanShape
from loom.core.tracing import TraceParent, new_span_bytes

__all__ = ["Envelope", "SpanEncoder", "WrittenRun"]

_ATTRIBUTES, _LINKS = 9, 13
_KINDS = {SpanRole.INTERNAL: 1, SpanRole.PRODUCER: 4, SpanRole.CONSUMER: 5}
_LINK_FLAGS = struct.Struct("<cI")
_TIMES = struct.Struct("<cQcQ")
_EVENT_TIME = struct.Struct("<cQ")
_EXCEPTION = text(2, "exception")
#: a flow has few shapes and paths; a step that is attempted again and again makes new ones each time
_MOST_SHAPES, _MOST_PATHS = 10_000, 1_000
#: of a span inside another one, trace id and parent with the tags around them, up to its own id
_BELOW = len(TRACE_ID) + 16 + len(PARENT_ID) + 8 + len(SPAN_ID)
_OWN_ID = slice(_BELOW - len(SPAN_ID) - 8, _BELOW - len(SPAN_ID))


class _Outer:
    """What is the same in all spans of a shape."""

    __slots__ = ("constant", "inside", "layouts", "shape", "varying")

    def __init__(self, shape: SpanShape) -> None:
        self.shape = shape
        self.constant = _constant(shape)
        self.varying = tuple(AttributeKey(_ATTRIBUTES, name) for name in shape.varying)
        #: of the spans inside, by name
        self.inside: dict[str, bytes] = {}
        #: by what came to pass inside, and whether the span continues another one
        self.layouts: dict[tuple[tuple[str, ...], bool], RunLayout] = {}

    def learn(self, name: str) -> bytes:
        """What is the same in all spans of a name inside of those of this shape."""
        return self.inside.setdefault(name, _constant(self.shape.inside[name]) + NEAR)

    def lay_out(self, path: tuple[str, ...], continues: bool) -> RunLayout:
        """The bytes of all spans that took a path."""
        if len(self.layouts) > _MOST_PATHS:
            self.layouts.clear()
        shape, (varying,) = self.shape, self.varying
        about = text(5, shape.name) + attributes(_ATTRIBUTES, shape.attributes)
        inside = [self.inside.get(name) or self.learn(name) for name in path]
        layout = RunLayout(about, _KINDS[shape.role], varying, inside, continues=continues)
        return self.layouts.setdefault((path, continues), layout)


class WrittenRun(NamedTuple):
    """A run as the fields of a `ScopeSpans`, with how many spans they are, and of how many records."""

    body: bytearray
    spans: int
    records: int


class SpanEncoder:
    """Writes spans, each with what is inside of it, as fields of a `ScopeSpans`. Used by one thread.

    >>> shape = SpanShape("flow shop", SpanRole.INTERNAL, {})
    >>> written = []
    >>> SpanEncoder().write(FinishedSpan(shape, TraceParent("1" * 32, "2" * 16), 1, 2), written)
    1
    >>> bytes.fromhex("1" * 32) in b"".join(written)
    True
    """

    def __init__(self) -> None:
        self._known: dict[SpanShape, _Outer] = {}

    def write(self, span: FinishedSpan, into: list[bytes | bytearray]) -> int:
        """Append the bytes of a span and of those inside of it.

        Args:
            span: the outer one.
            into: what is appended to.

        Returns:
            How many spans they are.
        """
        outer = self._known.get(span.shape) or self._learn(span.shape)
        place = span.place
        below = bytes.fromhex(f"0a10{place.trace_id}2208{place.parent_id}1208")
        values = b"".join([key.with_value(value) for key, value in zip(outer.varying, span.values, strict=True)])
        return _write_one_by_one(outer, span, below, values, into)

    def write_run(self, run: SpanRun) -> WrittenRun:
        """The bytes of the spans of a run, each with those inside of it.

        Args:
            run: the spans.
        """
        outer = self._known.get(run.shape) or self._learn(run.shape)
        path, continues, records = run.path, bool(run.parent_ids), len(run.values)
        layout = outer.layouts.get((path, continues)) or outer.lay_out(path, continues)
        return WrittenRun(layout.written(run), records * (1 + len(path)), records)

    def _learn(self, shape: SpanShape) -> _Outer:
        if len(self._known) > _MOST_SHAPES:
            self._known.clear()
        return self._known.setdefault(shape, _Outer(shape))


def _write_one_by_one(
    outer: _Outer, span: FinishedSpan, below: bytes, values: bytes, into: list[bytes | bytearray]
) -> int:
    """A span with what few have, and those inside of it."""
    clock = span.clock_ns
    parts = [outer.constant, below[:18], SPAN_ID, below[_OWN_ID]]
    if span.parent_id is None:
        parts.append(NEAR)
    else:
        parts += (PARENT_ID, bytes.fromhex(span.parent_id), FAR)
    parts += (_TIMES.pack(BEGIN, span.begun_ns + clock, END, span.ended_ns + clock), values)
    if span.state:
        parts.append(text(3, span.state))
    parts.extend(map(_link, span.links))
    if span.error is not None:
        parts.append(_failure(span.error, clock))
    into.append(message(2, b"".join(parts)))
    return 1 + _write_inside(outer, span, below, into)


def _write_inside(outer: _Outer, span: FinishedSpan, below: bytes, into: list[bytes | bytearray]) -> int:
    """The spans inside one, with their errors. An error is at the first that has its name."""
    clock, last = span.clock_ns, span.ended_ns
    failed = dict(span.inner_errors)
    ends = [*span.times[1:], last]
    inside = [
        (name, began, ended, failed.pop(name, None))
        for name, began, ended in zip(span.path, span.times, ends, strict=False)
    ]
    inside += [(name, last, last, error) for name, error in failed.items()]
    for name, began, ended, error in inside:
        constant = outer.inside.get(name) or outer.learn(name)
        times = _TIMES.pack(BEGIN, began + clock, END, ended + clock)
        parts = (constant, below, new_span_bytes(), times, _failure(error, clock) if error is not None else b"")
        into.append(message(2, b"".join(parts)))
    return len(inside)


class Envelope:
    """What is around the spans of every request: who sends them, and in which scope."""

    def __init__(self, resource: Mapping[str, Any], resource_schema: str, name: str, version: str, schema: str) -> None:
        """Encode it.

        Args:
            resource: the attributes of who sends spans.
            resource_schema: the address of the conventions that their names are of; may be empty.
            name: of the scope.
            version: of the scope.
            schema: the address of the conventions that the names in spans are of.
        """
        self._resource = message(1, attributes(1, resource))
        self._scope = message(1, text(1, name) + text(2, version))
        self._schema = text(3, schema)
        self._resource_schema = text(3, resource_schema)

    def around(self, spans: Iterable[bytes | bytearray]) -> list[bytes | bytearray]:
        """An `ExportTraceServiceRequest` that holds spans, in pieces that follow one another.

        Args:
            spans: what a `SpanEncoder` has written.
        """
        parts = (self._scope, *spans, self._schema)
        length = sum(map(len, parts))
        start = SPANS + varint(length)
        around = len(self._resource) + len(start) + length + len(self._resource_schema)
        return [b"\x0a" + varint(around) + self._resource + start, *parts, self._resource_schema]


def _constant(shape: SpanShape) -> bytes:
    kind = varint(6 << 3) + varint(_KINDS[shape.role])
    return text(5, shape.name) + kind + attributes(_ATTRIBUTES, shape.attributes)


def _link(place: TraceParent) -> bytes:
    flags = _LINK_FLAGS.pack(b"\x35", REMOTE_IS_KNOWN | IS_REMOTE)
    ids = (TRACE_ID, bytes.fromhex(place.trace_id), SPAN_ID, bytes.fromhex(place.parent_id))
    return message(_LINKS, b"".join((*ids, flags)))


def _failure(error: SpanError, clock: int) -> bytes:
    """The status of a span that has failed, and the exception as an event of it."""
    status = message(15, text(2, error.description) + b"\x18\x02")
    if not error.error_type:
        return status
    about = {
        "exception.type": error.error_type.removeprefix("builtins."),
        "exception.message": error.message,
        "exception.stacktrace": error.stacktrace,
        "exception.escaped": "False",
    }
    event = _EVENT_TIME.pack(b"\x09", error.at_ns + clock) + _EXCEPTION + attributes(3, about)
    return status + message(11, event) + attributes(_ATTRIBUTES, {"error.type": error.error_type})
