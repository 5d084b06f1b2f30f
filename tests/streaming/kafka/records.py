"""Messages as they come from Kafka with some headers, and the headers that they leave with."""

from __future__ import annotations

from typing import Any

from loom.streaming import Message, MessageMeta
from loom.streaming.kafka import DecodeOk, HeaderPolicy, Headers, KafkaRecord, MsgspecCodec, WireFormat
from tests.streaming.orders import Order

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01".encode()


ORDER = Order(1)


def read(*pairs: tuple[str, bytes | None], payload: Any = ORDER) -> Message[Any]:
    """A message as it comes from Kafka with these headers."""
    record = MsgspecCodec(type(payload), headers=HeaderPolicy.NONE).encode("orders", Message(payload, MessageMeta("m")))
    record = KafkaRecord("orders", b"k", record.value, Headers(pairs), 0, 7, 99)
    decoded = MsgspecCodec(type(payload)).decode(record)
    assert isinstance(decoded, DecodeOk)
    return decoded.message


def written(
    message: Message[Any], policy: HeaderPolicy = HeaderPolicy.AUTO, wire_format: WireFormat | None = None
) -> tuple[tuple[str, bytes | None], ...]:
    record = MsgspecCodec(Order, wire_format, headers=policy).encode("out", message)
    return Headers.of(record.headers).pairs
