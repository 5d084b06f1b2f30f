"""The `envelope` format: metadata and payload in one MessagePack map `{meta, payload}`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from loom.core.model import LoomFrozenStruct
from loom.streaming.formats.format import Encoding, Frame, FramedFormat, Label, Unframe, WholeErrors
from loom.streaming.formats.hooks import DecHook
from loom.streaming.formats.pydantic_models import dec_hook_for, model_reader, plain_enc_hook
from loom.streaming.formats.sealed import SealedErrors
from loom.streaming.headers import HeaderPairs, Headers
from loom.streaming.message import MessageMeta, has_message_type, loom_message_type, loom_message_version

__all__ = ["EnvelopeFormat", "MessageDescriptor", "MessageEnvelope", "MessageMetadata"]

P = TypeVar("P")

_CONTENT_TYPE = "application/vnd.loom.envelope+msgpack"
#: An envelope is a MessagePack map of two entries, so it begins with this byte; no JSON text can.
_FIXMAP_OF_TWO = b"\x82"


class MessageDescriptor(LoomFrozenStruct):
    """What a payload is: the name and version of its type, and how it is written.

    Loom writes `content_type` and `schema_ref` as text. Other systems with this wire format write objects, which are kept as
    mappings.

    >>> MessageDescriptor("order-placed", 2).message_version
    2

    Args:
        message_type: the label of the payload type.
        message_version: its version, from 1.
        content_type: how the payload is written.
        schema_ref: where its schema is.
    """

    message_type: str | None = None
    message_version: int | None = None
    content_type: str | dict[str, Any] | None = None
    schema_ref: str | dict[str, Any] | None = None


class MessageMetadata(LoomFrozenStruct):
    """The metadata half of an envelope.

    >>> MessageMetadata(correlation_id="c-1").correlation_id
    'c-1'

    Args:
        descriptor: what the payload is.
        message_id: the id of the message.
        correlation_id: the business transaction it belongs to.
        trace_id: the trace it belongs to.
        parent_trace_id: the trace that this one came from.
        causation_id: the message that caused this one.
        produced_at_ms: milliseconds since 1970.
        headers: further headers.
    """

    descriptor: MessageDescriptor = MessageDescriptor()
    message_id: str | None = None
    correlation_id: str | None = None
    trace_id: str | None = None
    parent_trace_id: str | None = None
    causation_id: str | None = None
    produced_at_ms: int | None = None
    headers: HeaderPairs | dict[str, bytes] = ()


class MessageEnvelope(LoomFrozenStruct, Generic[P]):
    """The `envelope` format: metadata and payload in one MessagePack map.

    >>> MessageEnvelope(MessageMetadata(trace_id="t"), Order(7)).payload.id
    7

    Args:
        meta: the metadata.
        payload: the payload.
    """

    meta: MessageMetadata
    payload: P

    def over(self, record: MessageMeta) -> MessageMeta:
        """The metadata of a record whose value is this envelope. What the envelope says wins over the headers of the record.

        Args:
            record: the metadata that the record itself gives.
        """
        said, descriptor = self.meta, self.meta.descriptor
        return MessageMeta(
            record.message_id,
            said.correlation_id or record.correlation_id,
            said.trace_id or record.trace_id,
            said.parent_trace_id or record.parent_trace_id,
            said.causation_id or record.causation_id,
            record.produced_at_ms if said.produced_at_ms is None else said.produced_at_ms,
            descriptor.message_type or record.message_type,
            record.message_version if descriptor.message_version is None else descriptor.message_version,
            record.topic,
            record.partition,
            record.offset,
            record.key,
            Headers((*Headers.of(record.headers).pairs, *Headers.of(said.headers).pairs))
            if said.headers
            else record.headers,
        )


class EnvelopeFormat(FramedFormat):
    """Values that hold a message whole. Dead letters are whole `ErrorEnvelope`s."""

    name = "envelope"
    content_type = _CONTENT_TYPE
    whole_errors: ClassVar[WholeErrors | None] = SealedErrors()

    def unframer(self, payload: Any, dec_hook: DecHook | None = None) -> Unframe:
        models = model_reader(payload)
        if models is None:
            hook = dec_hook_for(payload, dec_hook)
            return msgspec.msgpack.Decoder(MessageEnvelope[payload], dec_hook=hook).decode
        decode, validate = msgspec.msgpack.Decoder(MessageEnvelope[Any]).decode, models.from_plain

        def unframe(value: bytes) -> MessageEnvelope[Any]:
            found = decode(value)
            return MessageEnvelope(found.meta, validate(found.payload))

        return unframe

    def framer(self, encoding: Encoding = Encoding()) -> Frame:  # noqa: B008 - immutable
        encode = msgspec.msgpack.Encoder(enc_hook=plain_enc_hook(encoding.enc_hook)).encode

        def frame(payload: Any, meta: MessageMeta) -> bytes:
            payload_type: Any = type(payload)
            metadata = MessageMetadata(
                _descriptor(payload_type),
                meta.message_id,
                meta.correlation_id,
                meta.trace_id,
                meta.parent_trace_id,
                meta.causation_id,
                meta.produced_at_ms,
            )
            return encode(MessageEnvelope(metadata, payload))

        return frame

    def label(self, value: bytes) -> Label:
        found = _read_label(value).meta.descriptor
        return found.message_type.encode() if found.message_type is not None else None, found.message_version

    def recognises(self, value: bytes) -> bool:
        return value[:1] == _FIXMAP_OF_TWO


class _Label(LoomFrozenStruct):
    """The part of an envelope that says what it holds; the rest is skipped."""

    meta: MessageMetadata


_read_label = msgspec.msgpack.Decoder(_Label).decode


@lru_cache(maxsize=256)
def _descriptor(payload_type: type) -> MessageDescriptor:
    if not has_message_type(payload_type):
        return MessageDescriptor(content_type=_CONTENT_TYPE)
    return MessageDescriptor(loom_message_type(payload_type), loom_message_version(payload_type), _CONTENT_TYPE)
