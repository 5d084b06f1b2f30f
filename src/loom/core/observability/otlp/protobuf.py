"""The parts of the Protobuf encoding that OTLP needs. Called by `encoding`."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["AttributeKey", "attributes", "message", "padded_varint", "text", "varint"]

_VARINT, _LENGTH = 0, 2
_DOUBLE = struct.Struct("<Bd")
#: field numbers of `AnyValue`
_STRING, _BOOL, _INT, _FLOAT, _ARRAY, _PAIRS, _BYTES = 1, 2, 3, 4, 5, 6, 7
_UNSIGNED = (1 << 64) - 1


def varint(number: int) -> bytes:
    """A whole number of up to 64 bits; a negative one as its two's complement.

    >>> varint(300).hex()
    'ac02'
    """
    if 0 <= number < 1 << 7:
        return _LAST[number]
    number &= _UNSIGNED
    if number < 1 << 14:
        return _MORE[number & 0x7F] + _LAST[number >> 7]
    return _MORE[number & 0x7F] + _MORE[number >> 7 & 0x7F] + varint(number >> 14)


#: seven bits after which others come
_MORE: Sequence[bytes] = [bytes((n | 0x80,)) for n in range(1 << 7)]
#: seven bits after which none come
_LAST: Sequence[bytes] = [bytes((n,)) for n in range(1 << 7)]


def padded_varint(number: int, width: int) -> bytes:
    """A whole number in more bytes than it needs, so that others take its place; a parser takes the last ones for zeros.

    >>> padded_varint(1, 3).hex()
    '818000'

    Args:
        number: not negative.
        width: how many bytes.
    """
    return bytes([number >> 7 * at & 0x7F | 0x80 for at in range(width - 1)]) + _LAST[number >> 7 * (width - 1)]


def message(field: int, body: bytes) -> bytes:
    """A field that holds bytes, a text or another message.

    >>> message(1, b"ab").hex()
    '0a026162'
    """
    return varint(field << 3 | _LENGTH) + varint(len(body)) + body


def text(field: int, value: str) -> bytes:
    """A field that holds a text; nothing for an empty one. Halves of surrogate pairs, which no encoding has, become `?`."""
    return message(field, value.encode("utf-8", "replace")) if value else b""


class AttributeKey:
    """What is the same in all attributes of a key, encoded once.

    Args:
        field: the number of the field that holds the attributes.
        key: the name.
    """

    __slots__ = ("_of_int", "_start", "_tag")

    def __init__(self, field: int, key: str) -> None:
        self._tag = varint(field << 3 | _LENGTH)
        self._start = message(1, key.encode("utf-8", "replace"))
        #: all of the attribute of a whole number but the number, by the length of that
        self._of_int = [self._around(b"\x18", length) for length in range(11)]

    def with_value(self, value: Any) -> bytes:
        """The attribute with a value."""
        if value.__class__ is int:
            number = varint(value)
            return self._of_int[len(number)] + number
        return self._around(_any_value(value))

    def before_int(self, length: int) -> bytes:
        """The attribute with a whole number, up to the number.

        Args:
            length: the bytes of the number, 1 to 10.
        """
        return self._of_int[length]

    def _around(self, held: bytes, more: int = 0) -> bytes:
        """The attribute up to the last `more` bytes of its value."""
        body = self._start + b"\x12" + varint(len(held) + more) + held
        return self._tag + varint(len(body) + more) + body


def attributes(field: int, values: Mapping[str, Any]) -> bytes:
    """A repeated field of attributes."""
    return b"".join(AttributeKey(field, key).with_value(value) for key, value in values.items())


def _any_value(value: Any) -> bytes:
    if isinstance(value, str):
        return message(_STRING, value.encode("utf-8", "replace"))
    if isinstance(value, bool):
        return varint(_BOOL << 3 | _VARINT) + varint(value)
    if isinstance(value, int):
        return varint(_INT << 3 | _VARINT) + varint(value)
    if isinstance(value, float):
        return _DOUBLE.pack(_FLOAT << 3 | 1, value)
    if isinstance(value, bytes):
        return message(_BYTES, value)
    if isinstance(value, Mapping):
        return message(_PAIRS, attributes(1, value))
    if isinstance(value, Sequence | set | frozenset):
        return message(_ARRAY, _each(value))
    return message(_STRING, str(value).encode("utf-8", "replace")) if value is not None else b""


def _each(values: Iterable[Any]) -> bytes:
    return b"".join(message(1, _any_value(value)) for value in values)
