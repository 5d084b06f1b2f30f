"""What steps see of a record: a typed payload and its metadata.

Built by the stages for code that needs a `Message`; read by steps, selectors and sinks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Generic, TypeVar, cast, final, get_origin, is_typeddict

from msgspec.structs import replace

from loom.core.config.shape import bare
from loom.core.importable import importable_name
from loom.core.model import LoomFrozenStruct
from loom.streaming.headers import Headers

__all__ = [
    "TOMBSTONE",
    "Message",
    "MessageMeta",
    "Tombstone",
    "has_message_type",
    "loom_message_type",
    "loom_message_version",
]

# The structs here are not tracked by the garbage collector (`gc=False`): they are made by the thousand, and its passes over them
# cost more than the work on them. Only a payload that is changed to hold its own message makes a cycle, which stays in memory.
# Messages are immutable, so a message of a derived payload type can be used as one of its base type.
P_co = TypeVar("P_co", covariant=True)
Q = TypeVar("Q")


@final
class Tombstone:
    """The payload of a record without a value. There is one instance, `Tombstone()`.

    A tombstone bypasses steps whose input type does not name `Tombstone`, and is written as a null value.

    >>> Tombstone() is Tombstone()
    True
    """

    __slots__ = ()
    _instance: Tombstone | None = None

    def __new__(cls) -> Tombstone:
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    def __repr__(self) -> str:
        return "Tombstone()"

    def __reduce__(self) -> tuple[type[Tombstone], tuple[()]]:
        return (Tombstone, ())


TOMBSTONE: Final = Tombstone()

#: modules whose classes say nothing of what a record is about
_NAMELESS = frozenset({"builtins", "collections", "collections.abc", "datetime", "decimal", "types", "typing", "uuid"})


class MessageMeta(LoomFrozenStruct, gc=False):
    """What is known of a message besides its payload.

    >>> meta = MessageMeta("orders.raw:0:7", topic="orders.raw", partition=0, offset=7, key=b"k")
    >>> meta.offset, meta.produced_at_ms
    (7, None)

    Args:
        message_id: `topic:partition:offset` for a record read from Kafka.
        correlation_id: from the header `x-correlation-id`.
        trace_id: from `x-trace-id` or `traceparent`.
        parent_trace_id: from `x-parent-trace-id`.
        causation_id: from `x-causation-id`.
        produced_at_ms: the timestamp of the record, in milliseconds since 1970; `None` if it has none.
        message_type: from `x-message-type`.
        message_version: from `x-message-version`.
        topic: where the record was read; a step cannot change it.
        partition: as `topic`.
        offset: as `topic`.
        key: the record key. Text that a step sets is written as UTF-8.
        headers: by name, the last of a name wins; `Headers.of(headers).pairs` has every pair.
    """

    message_id: str
    correlation_id: str | None = None
    trace_id: str | None = None
    parent_trace_id: str | None = None
    causation_id: str | None = None
    produced_at_ms: int | None = None
    message_type: str | None = None
    message_version: int | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    key: bytes | str | None = None
    headers: Mapping[str, bytes] = {}


class Message(LoomFrozenStruct, Generic[P_co], gc=False):
    """A payload and its metadata. Immutable: the methods return another message.

    >>> m = Message(1, MessageMeta("a:0:7", key=b"k"))
    >>> m.with_payload(2).with_key(b"other").meta.key
    b'other'

    Args:
        payload: the decoded value.
        meta: everything else.
    """

    payload: P_co
    meta: MessageMeta

    def with_payload(self, payload: Q) -> Message[Q]:
        """The same metadata with another payload.

        Args:
            payload: the new payload, of any type.
        """
        return Message(payload, self.meta)

    def with_key(self, key: bytes | str | None) -> Message[P_co]:
        """The same message with another record key.

        Args:
            key: the new key; text is written as UTF-8, `None` removes it.
        """
        return Message(self.payload, replace(self.meta, key=key))

    def with_headers(
        self, headers: Mapping[str, bytes] | Iterable[tuple[str, bytes | None]] = (), **more: bytes
    ) -> Message[P_co]:
        """The same message with these headers added. A name given here replaces every pair of that name.

        >>> Message(1, MessageMeta("m")).with_headers({"a": b"1"}, b=b"2").meta.headers.pairs
        (('a', b'1'), ('b', b'2'))

        Args:
            headers: a mapping or pairs.
            more: headers whose names are Python identifiers.
        """
        added = Headers([*Headers.of(headers).pairs, *more.items()])
        old = Headers.of(self.meta.headers)
        return Message(self.payload, replace(self.meta, headers=old.replaced(added, added.pairs)))


def loom_message_type(payload_type: type) -> str:
    """The name of a payload type on the wire: its `__loom_message_type__`, or else `module.qualname`.

    A class of the program that was started (`python orders.py`, `python -m orders`) has the name by which it can be
    imported.

    >>> class OrderPlaced:
    ...     __loom_message_type__ = "order-placed"
    >>> loom_message_type(OrderPlaced)
    'order-placed'

    Args:
        payload_type: a class.

    Returns:
        The text of the header `x-message-type`.

    Raises:
        NotImportableError: if the class cannot be imported by any name.
    """
    cls = _class_of(payload_type)
    named = cast(Any, getattr(cls, "__loom_message_type__", None))
    return str(named) if named is not None else importable_name(cls)


def has_message_type(payload_type: Any) -> bool:
    """Whether a payload type has a name of its own on the wire: a class that an author has written has one.

    `dict`, `list[X]`, `str`, a `TypedDict` (whose instances are plain `dict`s), `Any` and unions have none.

    >>> has_message_type(Message), has_message_type(dict[str, int]), has_message_type(int | str)
    (True, False, False)

    Args:
        payload_type: any annotation.
    """
    cls = _class_of(payload_type)
    if not isinstance(cls, type) or is_typeddict(cls):
        return False
    return cls.__module__ not in _NAMELESS or hasattr(cls, "__loom_message_type__")


def loom_message_version(payload_type: type) -> int:
    """The version a payload type has on the wire: `__loom_message_version__`, else 1."""
    return int(getattr(_class_of(payload_type), "__loom_message_version__", 1))


def _class_of(payload_type: Any) -> Any:
    """The class of a payload type: without `Annotated` and aliases around it, and without type arguments."""
    hint = bare(payload_type)
    return get_origin(hint) or hint
