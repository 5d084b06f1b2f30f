"""Spans to the bytes of an OTLP request. Called by the thread that sends them.

Fields and their numbers are those of opentelemetry-proto 1.x (`trace.proto`). Their order does not matter to who parses them,
so all that spans of a shape which took the same path have in common is encoded once. Where many come together, each with those
inside of it is one `struct.pack` of ids, times and values, called without a loop of our own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress, repeat
from typing import Any

from loom.core.observability.otlp.protobuf import AttributeKey, attributes, message, text, varint
from loom.core.observability.spans import FinishedSpan, SpanError, SpanRole, SpanRun, SpanShape
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
#: of an outer span its own id, up to the tag of its end, and what those inside of it say of it
_IDS = struct.Struct(f"{len(_SPAN_ID) + 8 + 1}s{_BELOW}s")

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
    """What is the same in all spans of a run, and of others that are like it.

    Args:
        constant: of the outer ones.
        inside: those of the others.
        length: of the encoded values.
        continues: the outer ones have parents.
    """

    __slots__ = ("_inside", "_pack", "_start")

    def __init__(self, constant: bytes, inside: list[bytes], length: int, continues: bool) -> None:
        behind = f"Q18s{len(_SPAN_ID) + 8 + 1}sQ{length}s{f'{len(_PARENT_ID) + 8}s' if continues else ''}"
        body = constant + (_FAR if continues else _NEAR) + _BEGIN
        self._start = _SPANS + varint(len(body) + struct.calcsize(f"<{behind}")) + body
        parts = [f"{len(self._start)}s{behind}"]
        self._inside = []
        for inner in inside:
            body = inner + _BEGIN
            start = _SPANS + varint(len(body) + 8 + 1 + 8 + _BELOW + 8) + body
            parts.append(f"{len(start)}sQcQ{_BELOW}sQ")
            self._inside.append(start)
        self._pack = struct.Struct(f"<{''.join(parts)}").pack

    def written(self, run: SpanRun, values: Sequence[bytes]) -> Iterator[bytes]:
        """The spans of a run, each with those inside of it.

        Args:
            run: the spans.
            values: theirs, encoded.
        """
        inside, times = self._inside, run.times()
        drawn = memoryview(new_span_bytes(len(run) * len(inside))).cast("Q")
        of_place = [f"1208{place.parent_id}410a10{place.trace_id}2208{place.parent_id}1208" for place in run.places]
        own, below = zip(*_IDS.iter_unpack(bytes.fromhex("".join(of_place))), strict=True)
        # Of what the spans inside say of the outer one, it takes the trace alone.
        columns: list[Iterable[Any]] = [repeat(self._start), times[0], below, own, times[-1], values]
        if run.parent_ids:
            columns.append([_PARENT_ID + bytes.fromhex(parent_id) for parent_id in run.parent_ids])
        for at, start in enumerate(inside):
            columns += (repeat(start), times[at + 1], repeat(_END), times[at + 2], below, drawn[at :: len(inside)])
        return map(self._pack, *columns)


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
        values = b"".join([key.with_value(value) for key, value in zip(outer.varying, span.values, strict=True)])
        return _write_one_by_one(outer, span, below, values, into)

    def write_run(self, run: SpanRun, into: list[bytes]) -> int:
        """Append the bytes of the spans of a run, each with those inside of it.

        Args:
            run: the spans.
            into: what is appended to.

        Returns:
            How many spans they are.
        """
        outer = self._known.get(run.shape) or self._learn(run.shape)
        (key,) = outer.varying
        values = [key.with_value(value) for value in run.values]
        lengths = list(map(len, values))
        for length in set(lengths):
            path_key = run.path, length, bool(run.parent_ids)
            path = outer.paths.get(path_key) or outer.follow(*path_key)
            if lengths.count(length) == len(lengths):
                into += path.written(run, values)
            else:
                chosen = [length == other for other in lengths]
                into += path.written(run.chosen(chosen), list(compress(values, chosen)))
        return len(run) * (1 + len(run.path))

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
