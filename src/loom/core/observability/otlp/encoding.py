"""Spans to the bytes of an OTLP request. Called by the thread that sends them.

Fields and their numbers are those of opentelemetry-proto 1.x (`trace.proto`). Their order does not matter to who parses them,
so all that spans of a shape which took the same path have in common is encoded once: a span with those inside of it, of which
only ids, times and few values are new, is one `struct.pack`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any

from loom.core.observability.otlp.protobuf import AttributeKey, attributes, message, text, varint
from loom.core.observability.spans import FinishedSpan, SpanError, SpanRole, SpanShape
from loom.core.tracing import TraceParent, new_span_bytes

__all__ = ["Envelope", "SpanEncoder"]

_SPANS = b"\x12"  # field 2 of ScopeSpans
_TRACE_ID, _SPAN_ID, _PARENT_ID = b"\x0a\x10", b"\x12\x08", b"\x22\x08"
_BEGIN, _END = b"\x39", b"\x41"
_ATTRIBUTES, _LINKS = 9, 13
_KINDS = {SpanRole.INTERNAL: 1, SpanRole.PRODUCER: 4, SpanRole.CONSUMER: 5}
#: field 16: sampled, and it is known whether the parent is in another process
_SAMPLED, _REMOTE_IS_KNOWN, _IS_REMOTE = 0x001, 0x100, 0x200
_FLAGS = struct.Struct("<2sI")
_LINK_FLAGS = struct.Struct("<cI")
_TIMES = struct.Struct("<cQcQ")
_EVENT_TIME = struct.Struct("<cQ")
_EXCEPTION = text(2, "exception")
#: a flow has few shapes and paths; a step that is attempted again and again makes new ones each time
_MOST_SHAPES, _MOST_PATHS = 10_000, 1_000
#: of a span inside another one, trace id and parent with the tags around them, up to its own id
_BELOW = len(_TRACE_ID) + 16 + len(_PARENT_ID) + 8 + len(_SPAN_ID)
_OWN_ID = slice(_BELOW - len(_SPAN_ID) - 8, _BELOW - len(_SPAN_ID))

_NEAR, _FAR = (_FLAGS.pack(b"\x85\x01", _SAMPLED | _REMOTE_IS_KNOWN | remote) for remote in (0, _IS_REMOTE))


class _Outer:
    """What is the same in all spans of a shape."""

    __slots__ = ("constant", "inside", "paths", "shape", "varying")

    def __init__(self, shape: SpanShape) -> None:
        self.shape = shape
        self.constant = _constant(shape)
        self.varying = tuple(AttributeKey(_ATTRIBUTES, name) for name in shape.varying)
        #: of the spans inside, by name
        self.inside: dict[str, bytes] = {}
        #: by what came to pass inside, the length of the values, and whether the span continues another one
        self.paths: dict[tuple[tuple[str, ...], int, bool], _Path] = {}

    def learn(self, name: str) -> bytes:
        """What is the same in all spans of a name inside of those of this shape."""
        return self.inside.setdefault(name, _constant(self.shape.inside[name]) + _NEAR)

    def follow(self, path: tuple[str, ...], length: int, continues: bool) -> _Path:
        """What is the same in all spans that took a path."""
        if len(self.paths) > _MOST_PATHS:
            self.paths.clear()
        inside = [self.inside.get(name) or self.learn(name) for name in path]
        return self.paths.setdefault((path, length, continues), _Path(self.constant, inside, length, continues))


class _Path:
    """What is the same in all spans of a shape with the same inside of them, of which none has failed.

    Args:
        constant: of the outer one.
        inside: those of the others.
        length: of the encoded values of attributes that vary.
        continues: the outer one has a parent.
    """

    __slots__ = ("_arguments", "_ids", "_pack", "count")

    def __init__(self, constant: bytes, inside: list[bytes], length: int, continues: bool) -> None:
        self.count = len(inside)
        self._ids = struct.Struct(f"<{self.count}Q").unpack
        last = len(_PARENT_ID) + 8 if continues else 0
        behind = f"8s18scQcQ{length}s{last}s"
        body = constant + (_FAR if continues else _NEAR) + _SPAN_ID
        start = _SPANS + varint(len(body) + struct.calcsize(f"<{behind}")) + body
        parts = [f"{len(start)}s{behind}"]
        self._arguments: list[Any] = [start, b"", b"", _BEGIN, 0, _END, 0, b"", b""]
        for inner in inside:
            body = inner + _BEGIN
            start = _SPANS + varint(len(body) + 8 + 1 + 8 + _BELOW + 8) + body
            parts.append(f"{len(start)}sQcQ{_BELOW}sQ")
            self._arguments += (start, 0, _END, 0, b"", 0)
        self._pack = struct.Struct(f"<{''.join(parts)}").pack

    def written(self, span: FinishedSpan, below: bytes, values: bytes) -> bytes:
        """The spans.

        Args:
            span: the outer one.
            below: its trace and its id, as those inside of it say them.
            values: its values, encoded.
        """
        clock, ended = span.clock_ns, span.ended_ns + span.clock_ns
        filled = self._arguments.copy()
        # Of the second the trace alone is taken.
        filled[1], filled[2] = below[_OWN_ID], below
        filled[4], filled[6], filled[7] = span.begun_ns + clock, ended, values
        if span.parent_id is not None:
            filled[8] = _PARENT_ID + bytes.fromhex(span.parent_id)
        count = self.count
        if count:
            begun = [time + clock for time in span.times] if clock else span.times
            filled[10::6] = begun
            filled[12:-6:6] = begun[1:]
            filled[-3] = ended
            filled[13::6] = [below] * count
            filled[14::6] = self._ids(new_span_bytes(count))
        return self._pack(*filled)


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

    def write(self, span: FinishedSpan, into: list[bytes]) -> int:
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
        keys = outer.varying
        if len(keys) == 1:
            values = keys[0].with_value(span.values[0])
        else:
            values = b"".join([key.with_value(value) for key, value in zip(keys, span.values, strict=True)])
        if span.state or span.links or span.error is not None or span.inner_errors:
            return _write_one_by_one(outer, span, below, values, into)
        key = span.path, len(values), span.parent_id is not None
        path = outer.paths.get(key) or outer.follow(*key)
        into.append(path.written(span, below, values))
        return 1 + path.count

    def _learn(self, shape: SpanShape) -> _Outer:
        if len(self._known) > _MOST_SHAPES:
            self._known.clear()
        return self._known.setdefault(shape, _Outer(shape))


def _write_one_by_one(outer: _Outer, span: FinishedSpan, below: bytes, values: bytes, into: list[bytes]) -> int:
    """A span with what few have, and those inside of it."""
    clock = span.clock_ns
    parts = [outer.constant, below[:18], _SPAN_ID, below[_OWN_ID]]
    if span.parent_id is None:
        parts.append(_NEAR)
    else:
        parts += (_PARENT_ID, bytes.fromhex(span.parent_id), _FAR)
    parts += (_TIMES.pack(_BEGIN, span.begun_ns + clock, _END, span.ended_ns + clock), values)
    if span.state:
        parts.append(text(3, span.state))
    parts.extend(map(_link, span.links))
    if span.error is not None:
        parts.append(_failure(span.error, clock))
    into.append(message(2, b"".join(parts)))
    return 1 + _write_inside(outer, span, below, into)


def _write_inside(outer: _Outer, span: FinishedSpan, below: bytes, into: list[bytes]) -> int:
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
        times = _TIMES.pack(_BEGIN, began + clock, _END, ended + clock)
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

    def around(self, spans: Iterable[bytes]) -> bytes:
        """An `ExportTraceServiceRequest` that holds spans.

        Args:
            spans: what a `SpanEncoder` has written.
        """
        parts = (self._scope, *spans, self._schema)
        length = sum(map(len, parts))
        start = _SPANS + varint(length)
        around = len(self._resource) + len(start) + length + len(self._resource_schema)
        return b"".join((b"\x0a", varint(around), self._resource, start, *parts, self._resource_schema))


def _constant(shape: SpanShape) -> bytes:
    kind = varint(6 << 3) + varint(_KINDS[shape.role])
    return text(5, shape.name) + kind + attributes(_ATTRIBUTES, shape.attributes)


def _link(place: TraceParent) -> bytes:
    flags = _LINK_FLAGS.pack(b"\x35", _REMOTE_IS_KNOWN | _IS_REMOTE)
    ids = (_TRACE_ID, bytes.fromhex(place.trace_id), _SPAN_ID, bytes.fromhex(place.parent_id))
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
