"""How records and messages of a source that is not Kafka are looked at, by stages and dead letters alike."""

from __future__ import annotations

from typing import Any

from loom.core.errors import ENDS_RUN
from loom.streaming.compiler.model import CompiledSource
from loom.streaming.formats.format import FramedFormat
from loom.streaming.formats.registry import find_format
from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.kafka.record_headers import key_bytes
from loom.streaming.message import TOMBSTONE, Message
from loom.streaming.record import KafkaRecord, TopicPartitionOffset

__all__ = ["override_view", "place_of"]


def override_view(source: CompiledSource) -> RecordAccessor:
    """Looks at records and messages alike; a message is encoded only for a dead letter, in the source's format."""
    written = find_format(source.wire_format)
    if isinstance(written, FramedFormat):
        frame = written.framer()

        def encode(message: Message[Any]) -> bytes:
            return frame(message.payload, message.meta)
    else:
        write = written.encoder()

        def encode(message: Message[Any]) -> bytes:
            return write(message.payload)

    def encoded(origin: Any) -> bytes | None:
        if isinstance(origin, KafkaRecord):
            return origin.value
        if origin.payload is TOMBSTONE:
            return None
        try:
            return encode(origin)
        except ENDS_RUN:
            raise
        except BaseException:  # noqa: BLE001 - it never was any bytes, and its error has to go its way all the same
            return None

    return RecordAccessor(
        value=lambda o: o.value if isinstance(o, KafkaRecord) else None,
        key=lambda o: o.key if isinstance(o, KafkaRecord) else key_bytes(o.meta.key),
        headers=lambda o: o.headers if isinstance(o, KafkaRecord) else o.meta.headers,
        timestamp=lambda o: o.timestamp_ms if isinstance(o, KafkaRecord) else o.meta.produced_at_ms,
        place=place_of,
        encoded=encoded,
        may_be_messages=True,
    )


def place_of(origin: Any) -> TopicPartitionOffset:
    """Where a record or a message comes from."""
    place = origin if isinstance(origin, KafkaRecord) else origin.meta
    return TopicPartitionOffset(place.topic, place.partition, place.offset)
