"""The bytes of spans that differ in ids, times and one number alone: the same bytes again and again, with columns put into them.

Called by `encoding`. Nothing is done for each span by itself: whatever differs takes eight bytes, all that spans have in common
is padded to a multiple of eight, and so a column is put into its places by one assignment to a slice.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from loom.core.observability.otlp.protobuf import AttributeKey, padded_varint, varint
from loom.core.observability.spans import SpanRun
from loom.core.tracing import new_span_bytes

__all__ = [
    "BEGIN",
    "END",
    "FAR",
    "IS_REMOTE",
    "NEAR",
    "PARENT_ID",
    "REMOTE_IS_KNOWN",
    "SPANS",
    "SPAN_ID",
    "TRACE_ID",
    "RunLayout",
]

SPANS = b"\x12"  # field 2 of ScopeSpans
TRACE_ID, SPAN_ID, PARENT_ID = b"\x0a\x10", b"\x12\x08", b"\x22\x08"
BEGIN, END = b"\x39", b"\x41"
_KIND = b"\x30"
#: field 16: sampled, and it is known whether the parent is in another process
_SAMPLED, REMOTE_IS_KNOWN, IS_REMOTE = 0x001, 0x100, 0x200
_FLAGS = struct.Struct("<2sI")
NEAR, FAR = (_FLAGS.pack(b"\x85\x01", _SAMPLED | REMOTE_IS_KNOWN | remote) for remote in (0, IS_REMOTE))

#: a column, by its number in a run, where its eight bytes are
_Piece: TypeAlias = bytes | int
_HOLE = bytes(8)
#: the longest a parser takes for a length
_LENGTH = 5
#: the numbers of columns; those of times begin at 0
_TRACE, _TRACE_END, _OWN, _VALUE, _PARENT, _INNER = range(-1, -7, -1)


class RunLayout:
    """Where columns are in the bytes of spans, each with those inside of it.

    Args:
        about: name and attributes of the outer ones.
        kind: theirs, as a number of OTLP.
        varying: the attribute of theirs that varies.
        inside: of each span inside, what is the same in all of them.
        continues: the outer ones have parents.
    """

    __slots__ = ("_inside", "_places", "_template")

    def __init__(
        self, about: bytes, kind: int, varying: AttributeKey, inside: Sequence[bytes], *, continues: bool
    ) -> None:
        last = len(inside)
        ids: list[_Piece] = [TRACE_ID, _TRACE, _TRACE_END, SPAN_ID, _OWN]
        outer: list[_Piece] = [about, BEGIN, 0, *ids, END, last, varying.before_int(8), _VALUE]
        outer += [FAR, PARENT_ID, _PARENT] if continues else [NEAR]
        rest: list[_Piece] = []
        for at, constant in enumerate(inside):
            ids = [TRACE_ID, _TRACE, _TRACE_END, PARENT_ID, _OWN, SPAN_ID, _INNER - at]
            rest += _span([constant, BEGIN, at, END, at + 1, *ids])
        pad = -_size([*_span([*outer, _KIND, varint(kind)]), *rest]) % 8
        pieces = [*_span([*outer, _KIND, padded_varint(kind, 1 + pad)]), *rest]
        self._template = b"".join([_HOLE if isinstance(piece, int) else piece for piece in pieces])
        self._places = [(_size(pieces[:at]), piece) for at, piece in enumerate(pieces) if isinstance(piece, int)]
        self._inside = len(inside)

    def written(self, run: SpanRun) -> bytearray:
        """The spans of a run.

        Args:
            run: the spans, at least one.
        """
        count, size = len(run.values), len(self._template)
        ids, spread = _words(run.ids), _SPREAD
        columns = {
            _TRACE: ids[0::3],
            _TRACE_END: ids[1::3],
            _OWN: ids[2::3],
            _VALUE: _little([spread[n >> 14] | n & 0x7F | (n & 0x3F80) << 1 for n in run.values]),
        }
        columns.update(enumerate(map(_little, run.times)))
        if run.parent_ids:
            columns[_PARENT] = _words(bytes.fromhex("".join(run.parent_ids)))
        drawn = _words(new_span_bytes(count * self._inside))
        for at in range(self._inside):
            columns[_INNER - at] = drawn[at :: self._inside]
        written = bytearray(self._template) * count
        view, until, step = memoryview(written), (count - 1) * size + 8, size // 8
        for place, column in self._places:
            view[place : place + until].cast("Q")[::step] = columns[column]
        return written


class _Spread(dict[int, int]):
    """Whole numbers less than 2^56 as varints of eight bytes, without their lower fourteen bits, by those above.

    Each is the number that these bytes are. Of values that come together most have the upper bits in common.
    """

    def __missing__(self, upper: int) -> int:
        if len(self) > _MOST_UPPER:
            self.clear()
        return self.setdefault(upper, int.from_bytes(padded_varint(upper << 14, 8), "little"))


_MOST_UPPER = 10_000
_SPREAD = _Spread()


def _span(pieces: Sequence[_Piece]) -> list[_Piece]:
    return [SPANS, padded_varint(_size(pieces), _LENGTH), *pieces]


def _size(pieces: Iterable[_Piece]) -> int:
    return sum(8 if isinstance(piece, int) else len(piece) for piece in pieces)


def _words(eights: bytes) -> memoryview:
    """Eight bytes each, as they are."""
    return memoryview(eights).cast("Q")


def _little(numbers: Iterable[int]) -> memoryview:
    """Whole numbers of 64 bits, the last byte first as in Protobuf."""
    made = array("Q", numbers)
    if sys.byteorder == "big":
        made.byteswap()
    return memoryview(made)
