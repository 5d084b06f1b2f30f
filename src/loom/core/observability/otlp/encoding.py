"""Spans to the bytes of an OTLP request. Called by the thread that sends them.

Fields and their numbers are those of opentelemetry-proto 1.x (`trace.proto`). Their order does not matter to who parses them,
so what all spans of a shape have in common comes first and is encoded once. Of a span inside another one only its id and its
times are new, so it is one `struct.pack`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any

from loom.core.observability.otlp.protobuf import attributes, key_value, key_value_prefix, message, text, varint
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
#: a flow has few shapes; one that is attempted again and again makes new ones each time
_MOST_SHAPES = 10_000
#: (trace id and parent of a span inside another one, with the tags around them)
_BELOW = len(_TRACE_ID) + 16 + len(_PARENT_ID) + 8 + len(_SPAN_ID)


_NEAR, _FAR = (_FLAGS.pack(b"\x85\x01", _SAMPLED | _REMOTE_IS_KNOWN | remote) for remote in (0, _IS_REMOTE))


class _Outer:
    """What is the same in all spans of a shape."""

    __slots__ = ("constant", "inside", "shape", "varying")

    def __init__(self, shape: SpanShape) -> None:
        self.shape = shape
        self.constant = _constant(shape)
        self.varying = tuple(key_value_prefix(_ATTRIBUTES, name) for name in shape.varying)
        #: of the spans inside, by name
        self.inside: dict[str, _Inner] = {}

    def learn(self, name: str) -> _Inner:
        """What is the same in all spans of a name inside of those of this shape."""
        return self.inside.setdefault(name, _Inner(self.shape.inside[name]))


class _Inner:
    """What is the same in all spans of a shape that are inside others. One that has not failed is of one length."""

    __slots__ = ("constant", "pack", "prefix")

    def __init__(self, shape: SpanShape) -> None:
        self.constant = _constant(shape) + _NEAR
        length = len(self.constant) + _BELOW + 8 + _TIMES.size
        self.prefix = _SPANS + varint(length) + self.constant
        self.pack = struct.Struct(f"<{len(self.prefix)}s{_BELOW}s8scQcQ").pack


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
        clock = span.clock_ns
        outer = self._known.get(span.shape) or self._learn(span.shape)
        trace_id, span_id = bytes.fromhex(span.place.trace_id), bytes.fromhex(span.place.parent_id)
        parts = [outer.constant, _TRACE_ID, trace_id, _SPAN_ID, span_id]
        if span.parent_id is None:
            parts.append(_NEAR)
        else:
            parts += (_PARENT_ID, bytes.fromhex(span.parent_id), _FAR)
        parts.append(_TIMES.pack(_BEGIN, span.begun_ns + clock, _END, span.ended_ns + clock))
        parts.extend(map(key_value, outer.varying, span.values))
        if span.state:
            parts.append(text(3, span.state))
        if span.links:
            parts.extend(map(_link, span.links))
        if span.error is not None:
            parts.append(_failure(span.error, clock))
        body = b"".join(parts)
        into += (_SPANS, varint(len(body)), body)
        if not span.laps and not span.inner_errors:
            return 1
        below = b"".join((_TRACE_ID, trace_id, _PARENT_ID, span_id, _SPAN_ID))
        if span.inner_errors:
            return 1 + _write_failed(outer, span, below, into)
        return 1 + _write_inside(outer, span, below, into)

    def _learn(self, shape: SpanShape) -> _Outer:
        if len(self._known) > _MOST_SHAPES:
            self._known.clear()
        return self._known.setdefault(shape, _Outer(shape))


def _write_inside(outer: _Outer, span: FinishedSpan, below: bytes, into: list[bytes]) -> int:
    """The spans inside one of which nothing has failed, the last one first."""
    laps, clock, inside = span.laps, span.clock_ns, outer.inside
    ids, at = new_span_bytes(len(laps)), 0
    ended = span.ended_ns + clock
    for name, began in reversed(laps):
        inner = inside.get(name) or outer.learn(name)
        began += clock
        into.append(inner.pack(inner.prefix, below, ids[at : at + 8], _BEGIN, began, _END, ended))
        ended = began
        at += 8
    return len(laps)


def _write_failed(outer: _Outer, span: FinishedSpan, below: bytes, into: list[bytes]) -> int:
    """The spans inside one with errors. An error is at the first that has its name."""
    clock, last = span.clock_ns, span.ended_ns
    failed = dict(span.inner_errors)
    ends = [*(began for _, began in span.laps[1:]), last]
    inside = [
        (name, began, ended, failed.pop(name, None)) for (name, began), ended in zip(span.laps, ends, strict=False)
    ]
    inside += [(name, last, last, error) for name, error in failed.items()]
    for name, began, ended, error in inside:
        inner = outer.inside.get(name) or outer.learn(name)
        times = _TIMES.pack(_BEGIN, began + clock, _END, ended + clock)
        parts = (inner.constant, below, new_span_bytes(), times, _failure(error, clock) if error is not None else b"")
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
        scope_spans = message(2, b"".join((self._scope, *spans, self._schema)))
        return message(1, self._resource + scope_spans + self._resource_schema)


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
