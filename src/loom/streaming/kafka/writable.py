"""What a step, a strategy or a caller may set in a record, checked before a client sees it.

The client checks in C, where the record is no longer known, and reads past some of what it is given. Hot path for records
whose metadata was touched, and for no others. No client is imported here.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import index
from typing import Any

from loom.core.shown import shown
from loom.streaming.headers import HeaderPairs
from loom.streaming.message import MessageMeta

__all__ = ["check_ids", "writable_headers", "writable_id", "writable_key", "writable_time"]

_LARGEST = 2**63 - 1


def writable_key(key: Any) -> bytes | None:
    """A record key as it is written: text is UTF-8.

    >>> writable_key("id-7"), writable_key(b"id-7"), writable_key(None)
    (b'id-7', b'id-7', None)

    Raises `TypeError` or `ValueError` for anything else.
    """
    if key is None or key.__class__ is bytes:
        return key
    if isinstance(key, str):
        return _encoded(key, "the record key")
    if isinstance(key, bytes):
        return bytes(key)
    raise TypeError(f"the record key is {_described(key)}; expected bytes, str or None. Convert it, e.g. str(key)")


def writable_time(ms: Any) -> int | None:
    """A record's timestamp, in milliseconds since the epoch. Raises `TypeError` or `ValueError` for anything else."""
    if ms is None:
        return None
    try:
        found = index(ms)
    except TypeError:
        raise TypeError(
            f"produced_at_ms is {_described(ms)}; expected milliseconds since the epoch as an int, or None"
        ) from None
    if not -_LARGEST <= found <= _LARGEST:
        raise ValueError(f"produced_at_ms is {shown(found)}, which does not fit into 64 bits of milliseconds")
    return found


def writable_headers(pairs: Iterable[tuple[Any, Any]] | None) -> HeaderPairs | None:
    """Header pairs as they are written, `None` where there are none; a value that is text is UTF-8.

    >>> writable_headers([("attempt", "1"), ("empty", None)])
    (('attempt', b'1'), ('empty', None))

    Raises `TypeError` or `ValueError` for a name that is no text, or not one that Kafka can hold, and for any other value.
    """
    if not pairs:
        return None
    return tuple([(_name(name), value if value.__class__ is bytes else _value(name, value)) for name, value in pairs])


def writable_id(name: str, value: Any) -> bytes | None:
    """An id of a message as a header value, `None` for none. Raises `TypeError` or `ValueError` for what is no text."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise TypeError(f"{name} is {_described(value)}; expected str or None. Convert it, e.g. str({name})")
    return _encoded(value, name)


def check_ids(meta: MessageMeta) -> None:
    """Raise `TypeError` for metadata whose ids are no text, which an envelope would hold and no reader take."""
    for name in ("message_id", "correlation_id", "trace_id", "parent_trace_id", "causation_id"):
        writable_id(name, getattr(meta, name))


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a header name is {_described(name)}; expected str")
    if "\0" in name:
        raise ValueError(f"the header name {shown(name)} holds a NUL character, at which clients would cut it off")
    if not name.isascii():
        _encoded(name, "a header name")
    return name


def _value(name: str, value: Any) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        return _encoded(value, f"the value of the header {shown(name)}")
    if isinstance(value, bytes):
        return bytes(value)
    raise TypeError(f"the value of the header {shown(name)} is {_described(value)}; expected bytes, str or None")


def _encoded(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what}, {shown(text)}, cannot be written as UTF-8: {error.reason}") from None


def _described(value: Any) -> str:
    return f"{shown(value)} (type {type(value).__qualname__})"
