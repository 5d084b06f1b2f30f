"""A `Message` whose metadata is built on first access.

Most steps read the payload only, and the thirteen fields of a `MessageMeta` cost as much as a step's own work
(`bench/README.md`). Hot path: one is made per record and record step.
"""

from __future__ import annotations

from typing import Any

from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.message import Message, MessageMeta

__all__ = ["message_class"]

# The slot of the struct's field, below the property that hides it.
_SLOT: Any = vars(Message)["meta"]
_read_slot: Any = _SLOT.__get__
_write_slot: Any = _SLOT.__set__


def message_class(view: RecordAccessor) -> type[Message[Any]]:
    """A `Message` class whose second argument is an origin of this view.

    Its instances are messages in every respect; the metadata is built from the origin at first access and kept.
    """
    make_meta = view.meta

    class OriginMessage(Message[Any]):
        @property  # type: ignore[misc]
        def meta(self) -> MessageMeta:
            found = _read_slot(self)
            if found.__class__ is not MessageMeta:
                found = make_meta(found)
                _write_slot(self, found)
            return found

        def __eq__(self, other: object) -> bool:
            if not isinstance(other, Message):
                return NotImplemented
            return bool(self.payload == other.payload and self.meta == other.meta)

        def __hash__(self) -> int:
            return hash((self.payload, self.meta))

        def __reduce__(self) -> tuple[Any, ...]:
            return (Message, (self.payload, self.meta))

    OriginMessage.__name__ = OriginMessage.__qualname__ = "Message"
    return OriginMessage
