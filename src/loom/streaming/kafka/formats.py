"""Wire formats: bytes to payload and back, resolved once to plain callables. No client is imported here.

The stages take the callables; `MsgspecCodec` offers the same to code outside a flow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from loom.core.model import LoomFrozenStruct
from loom.streaming.headers import HeaderPairs
from loom.streaming.kafka.settings import WireFormat

__all__ = [
    "CONTENT_TYPES",
    "Decode",
    "Encode",
    "MessageDescriptor",
    "MessageEnvelope",
    "MessageMetadata",
    "decode_payload",
    "encode_payload",
    "envelope_decoder",
    "envelope_encoder",
    "looks_like_envelope",
    "peek_label",
]

P = TypeVar("P")
Decode = Callable[[bytes], Any]
Encode = Callable[[Any], bytes]

CONTENT_TYPES: dict[WireFormat, str] = {
    WireFormat.JSON: "application/json",
    WireFormat.MSGPACK: "application/msgpack",
    WireFormat.ENVELOPE: "application/vnd.loom.envelope+msgpack",
    WireFormat.BYTES: "application/octet-stream",
}

#: An envelope is a MessagePack map of two entries, so it begins with this byte; no JSON text can.
_FIXMAP_OF_TWO = 0x82


class MessageDescriptor(LoomFrozenStruct):
    """What a payload is: the name and version of its type, and how it is written.

    We write `content_type` and `schema_ref` as text. Other systems with this wire form write objects, which are kept as
    mappings.
    """

    message_type: str | None = None
    message_version: int | None = None
    content_type: str | dict[str, Any] | None = None
    schema_ref: str | dict[str, Any] | None = None


class MessageMetadata(LoomFrozenStruct):
    """The metadata half of an envelope. Times are milliseconds since the epoch."""

    descriptor: MessageDescriptor = MessageDescriptor()
    message_id: str | None = None
    correlation_id: str | None = None
    trace_id: str | None = None
    parent_trace_id: str | None = None
    causation_id: str | None = None
    produced_at_ms: int | None = None
    headers: HeaderPairs | dict[str, bytes] = ()


class MessageEnvelope(LoomFrozenStruct, Generic[P]):
    """The `envelope` format: metadata and payload in one MessagePack map."""

    meta: MessageMetadata
    payload: P


def decode_payload(wire_format: WireFormat, payload_type: Any) -> Decode:
    """Bytes to a bare payload of `payload_type`; the callable raises on bytes that do not fit.

    >>> decode_payload(WireFormat.JSON, dict)(b'{"a": 1}')
    {'a': 1}
    """
    if wire_format is WireFormat.JSON:
        return msgspec.json.Decoder(payload_type).decode
    if wire_format is WireFormat.MSGPACK:
        return msgspec.msgpack.Decoder(payload_type).decode
    if wire_format is WireFormat.BYTES:
        return bytes
    raise ValueError(f"{wire_format.value} has no bare payload; use envelope_decoder()")


def encode_payload(wire_format: WireFormat) -> Encode:
    """A bare payload to bytes; the callable raises on what the format cannot hold."""
    if wire_format is WireFormat.JSON:
        return msgspec.json.Encoder().encode
    if wire_format is WireFormat.MSGPACK:
        return msgspec.msgpack.Encoder().encode
    if wire_format is WireFormat.BYTES:
        return _only_bytes
    raise ValueError(f"{wire_format.value} has no bare payload; use envelope_encoder()")


def envelope_decoder(payload_type: Any) -> Callable[[bytes], MessageEnvelope[Any]]:
    """Bytes of the `envelope` format to an envelope of `payload_type`."""
    return msgspec.msgpack.Decoder(MessageEnvelope[payload_type]).decode


def envelope_encoder() -> Callable[[MessageEnvelope[Any]], bytes]:
    """An envelope to bytes."""
    return msgspec.msgpack.Encoder().encode


def looks_like_envelope(value: bytes) -> bool:
    """Whether a value that is no JSON may be an envelope. Cheap, and asked only after JSON has failed."""
    return value[:1] == bytes((_FIXMAP_OF_TWO,))


class _Label(LoomFrozenStruct):
    """The part of an envelope that says what it holds; the rest is skipped."""

    meta: MessageMetadata


_read_label = msgspec.msgpack.Decoder(_Label).decode


def peek_label(value: bytes) -> tuple[bytes | None, int | None]:
    """The message type and version that an envelope names, before its payload is decoded.

    Raises on bytes that are no envelope.
    """
    found = _read_label(value).meta.descriptor
    return found.message_type.encode() if found.message_type is not None else None, found.message_version


def _only_bytes(payload: Any) -> bytes:
    if isinstance(payload, bytes):
        return payload
    raise TypeError(f"the bytes format writes bytes, not {type(payload).__qualname__}")
