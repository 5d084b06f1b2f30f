"""Access to the client's own records without converting them. Hot path."""

from __future__ import annotations

from functools import partial

from confluent_kafka import Message

from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.record import TopicPartitionOffset

__all__ = ["CLIENT_RECORDS"]


def _place(message: Message) -> TopicPartitionOffset:
    return TopicPartitionOffset(message.topic(), message.partition(), message.offset())


def _coordinates(message: Message) -> tuple[str | None, int | None, int | None]:
    return message.topic(), message.partition(), message.offset()


def _timestamp(message: Message) -> int:
    return message.timestamp()[1]


#: For a header name that is not UTF-8 the client returns a broken list with an exception set. The interpreter notices that
#: only where it makes the call by itself: a call that it has specialized would hand the list on (CPython 3.11 and 3.12).
_headers = partial(Message.headers)

#: access to the client's own objects without converting them
CLIENT_RECORDS = RecordAccessor(
    value=Message.value,
    key=Message.key,
    headers=_headers,
    # `map` makes the calls by itself, and takes half of the time without the `partial`.
    mapped_headers=Message.headers,
    set_headers=Message.set_headers,
    timestamp=_timestamp,
    place=_place,
    coordinates=_coordinates,
    expressions={
        "value": "origin.value()",
        "key": "origin.key()",
        "timestamp": "origin.timestamp()[1]",
    },
)
