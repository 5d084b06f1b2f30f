"""W3C trace context: the `traceparent` of a record, read, written and continued.

Called by the wire code that reads and writes headers, and by observers. No tracing library is needed for it.
"""

from __future__ import annotations

import os
import random
import re
import struct
from binascii import hexlify
from contextvars import ContextVar

from loom.core.model import LoomFrozenStruct

__all__ = [
    "TraceParent",
    "child",
    "current_ids",
    "current_place",
    "format_traceparent",
    "ids_of_each",
    "new_place",
    "new_span_bytes",
    "new_span_id",
    "new_trace_id",
    "new_traces",
    "parse_traceparent",
    "place_of",
]

_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16
_SAMPLED = 0x01
#: What version 00 gives a meaning: sampled, and (level 2) a random trace id. Unknown bits must not be passed on.
_KNOWN_FLAGS = 0x03

#: version, trace id, parent id, flags, and what a later version may add after another dash
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)

#: trace and span, as bytes and by their digits
_IDS, _HEX_IDS = struct.Struct("24s"), struct.Struct("32s16s")


class TraceParent(LoomFrozenStruct):
    """The place of a record in a trace.

    Args:
        trace_id: the whole trace, 32 lower-case hex digits, not all zero.
        parent_id: the span that wrote this, 16 lower-case hex digits, not all zero.
        flags: bit 0 says that the trace is sampled, bit 1 that its id is random.
    """

    trace_id: str
    parent_id: str
    flags: int = _SAMPLED

    @property
    def sampled(self) -> bool:
        """Whether the caller may have recorded this trace."""
        return bool(self.flags & _SAMPLED)


#: the span at work in this thread or task, for its log lines: the `traceparent` header that names it
current_place: ContextVar[bytes | None] = ContextVar("loom_current_place", default=None)

#: Seeded by the system. Of our own, since with the one that anyone may seed two processes could make the same ids.
_generator = random.Random()
_draw = _generator.getrandbits
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_generator.seed)


def parse_traceparent(value: bytes | str) -> TraceParent | None:
    """Read a `traceparent` header; None when it is malformed, in which case a new trace begins.

    Of a later version than 00, the first four fields are read, and the sampled bit of the flags.

    >>> parse_traceparent(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").sampled
    True
    >>> parse_traceparent("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01") is None
    True
    """
    if isinstance(value, bytes):
        try:
            value = value.decode("ascii")
        except UnicodeDecodeError:
            return None
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return None
    version, trace_id, parent_id, flags, more = match.groups()
    if version == "ff" or trace_id == _NO_TRACE or parent_id == _NO_SPAN:
        return None
    if version == "00":
        return None if more is not None else TraceParent(trace_id, parent_id, int(flags, 16) & _KNOWN_FLAGS)
    return TraceParent(trace_id, parent_id, int(flags, 16) & _SAMPLED)


def format_traceparent(parent: TraceParent) -> str:
    """Write a `traceparent` header, always as version 00.

    >>> format_traceparent(TraceParent("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1))
    '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
    """
    return f"00-{parent.trace_id}-{parent.parent_id}-{parent.flags & _KNOWN_FLAGS:02x}"


def child(parent: TraceParent) -> TraceParent:
    """The same trace, continued by a new span."""
    return TraceParent(parent.trace_id, new_span_id(), parent.flags)


def new_trace_id() -> str:
    """A random trace id of 32 hex digits, different in forked processes too."""
    return new_place().trace_id


def new_span_id() -> str:
    """A random span id of 16 hex digits, different in forked processes too."""
    return new_place().parent_id


def new_span_bytes(count: int = 1) -> bytes:
    """Random span ids, 8 bytes each, different in forked processes too.

    Args:
        count: how many.
    """
    return _draw(64 * count).to_bytes(8 * count, "big")


def new_place(parent: TraceParent | None = None) -> TraceParent:
    """A new span, of the trace of another one or of a new trace; `parent_id` is its own id, that its children need.

    Args:
        parent: what it continues; `None` begins a trace, which is sampled.
    """
    # An id of nothing but zeros is not allowed; one in 10^19 would be.
    if parent is None:
        drawn = f"{_draw(192):048x}"
        return TraceParent(drawn[:32], drawn[32:])
    return TraceParent(parent.trace_id, f"{_draw(64):016x}", parent.flags | _SAMPLED)


def new_traces(count: int) -> tuple[bytes, list[bytes]]:
    """New spans, each of a new trace, as `new_place` makes them: trace and span by 24 bytes each, and as `traceparent` headers.

    >>> ids, [header] = new_traces(1)
    >>> ids.hex() == header[3:35].decode() + header[36:52].decode()
    True

    Args:
        count: how many.
    """
    drawn = _draw(192 * count).to_bytes(24 * count, "big")
    return drawn, list(map(b"00-%b-%b-01".__mod__, _HEX_IDS.iter_unpack(hexlify(drawn))))


def ids_of_each(ids: bytes) -> list[bytes]:
    """Trace and span of each of several spans.

    Args:
        ids: those of all of them.
    """
    return [each for (each,) in _IDS.iter_unpack(ids)]


def place_of(header: bytes) -> TraceParent:
    """What a `traceparent` header of our own says."""
    return TraceParent(header[3:35].decode(), header[36:52].decode(), int(header[53:], 16))


def current_ids() -> tuple[str, str] | None:
    """The trace and the id of the span at work in this thread or task; `None` without one."""
    header = current_place.get()
    return None if header is None else (header[3:35].decode(), header[36:52].decode())
