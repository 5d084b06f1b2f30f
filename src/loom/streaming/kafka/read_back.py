"""Dead letters read back: a record with `x-error-*` headers, or a whole sealed envelope, to an `ErrorEnvelope`.

Used by sources whose payload is `ErrorEnvelope[P]`. No client is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from loom.core.errors import ENDS_RUN
from loom.core.importable import qualified_name
from loom.core.model import LoomFrozenStruct
from loom.streaming.errors import ErrorEnvelope, ErrorKind, ErrorMessage, ErrorMessageMeta
from loom.streaming.kafka.formats import decode_payload, envelope_decoder, looks_like_envelope
from loom.streaming.kafka.headers import HeaderPairs, Headers
from loom.streaming.kafka.record import KafkaRecord
from loom.streaming.kafka.settings import WireFormat
from loom.streaming.kafka.wire import ERROR_HEADER_PREFIX, whole_number

__all__ = ["NoDeadLetterError", "dead_letter_reader"]

#: A whole `ErrorEnvelope` is a MessagePack map of its ten fields, or of fewer before it told the index (nine) and the line
#: that raised (ten), so it begins with one of these bytes; no JSON text can.
_FIXMAPS = (b"\x88", b"\x89", b"\x8a")


class NoDeadLetterError(Exception):
    """A record does not say what went wrong with it, so it is no dead letter."""


class _SealedRecord(LoomFrozenStruct):
    """A `KafkaRecord` as it stands in MessagePack: its headers are pairs."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: HeaderPairs | dict[str, bytes] = ()
    partition: int | None = None
    offset: int | None = None
    timestamp_ms: int | None = None


class _SealedMeta(LoomFrozenStruct):
    message_id: str
    #: bytes or text; MessagePack tells them apart, but no type of msgspec's may name both
    key: Any = None
    headers: HeaderPairs | dict[str, bytes] = ()
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None


class _SealedMessage(LoomFrozenStruct):
    payload: msgspec.Raw
    meta: _SealedMeta


class _Sealed(LoomFrozenStruct):
    kind: ErrorKind
    reason: str
    payload_type: str | None = None
    original_message: _SealedMessage | None = None
    step_id: str | None = None
    path: tuple[int, ...] = ()
    error_type: str | None = None
    source: _SealedRecord | None = None
    index: str = ""
    at: str | None = None


def dead_letter_reader(payload: Any, wire_format: WireFormat | None) -> Callable[[KafkaRecord], ErrorEnvelope[Any]]:
    """What reads one dead letter; the original message is decoded as `payload` where it decodes.

    `wire_format` is what the original record was written in; `None` is a consumer's default, JSON that recognises
    envelopes. The callable raises `NoDeadLetterError` for a record that is none, and whatever decoding a whole
    `ErrorEnvelope` raises.
    """
    original = _original_decoder(payload, wire_format)
    open_sealed = msgspec.msgpack.Decoder(_Sealed).decode
    open_payload = msgspec.msgpack.Decoder(payload).decode

    def read(record: KafkaRecord) -> ErrorEnvelope[Any]:
        value = record.value
        if value is not None and value[:1] in _FIXMAPS and wire_format in (None, WireFormat.ENVELOPE):
            return _unsealed(open_sealed(value), open_payload)
        return _from_headers(record, original)

    return read


def _from_headers(record: KafkaRecord, original: Callable[[bytes], Any]) -> ErrorEnvelope[Any]:
    headers = Headers.of(record.headers)

    def told(name: str) -> str | None:
        value = headers.get(ERROR_HEADER_PREFIX + name)
        return value.decode("utf-8", "replace") if value is not None else None

    def number(name: str) -> int | None:
        return whole_number(headers.get(ERROR_HEADER_PREFIX + name, b""))

    kind = told("kind")
    if kind not in tuple(ErrorKind):
        raise NoDeadLetterError(
            f"the record is no dead letter: its header {ERROR_HEADER_PREFIX}kind is {kind!r}, and it has to be one of "
            + ", ".join(ErrorKind)
        )
    kept = Headers([pair for pair in headers.pairs if not pair[0].startswith(ERROR_HEADER_PREFIX)])
    topic, partition, offset = told("topic"), number("partition"), number("offset")
    source = KafkaRecord(topic or "", record.key, record.value, kept, partition, offset, number("timestamp"))
    message, payload_type = None, None
    if record.value is not None:
        try:
            payload = original(record.value)
        except ENDS_RUN:
            raise
        except BaseException:  # noqa: BLE001 - that it does not decode may be the very error; the bytes stand in the source
            message = None
        else:
            where = f"{topic}:{partition}:{offset}"
            message = ErrorMessage(payload, ErrorMessageMeta(where, record.key, kept, topic, partition, offset))
            payload_type = qualified_name(type(payload))
    path = tuple(int(part) for part in (told("path") or "").split(".") if part.isdigit())
    return ErrorEnvelope(
        ErrorKind(kind),
        told("reason") or "",
        payload_type,
        message,
        told("step"),
        path,
        told("type"),
        source,
        told("index") or "",
        told("at"),
    )


def _unsealed(sealed: _Sealed, open_payload: Callable[[bytes], Any]) -> ErrorEnvelope[Any]:
    message = None
    if sealed.original_message is not None:
        meta = sealed.original_message.meta
        try:
            payload = open_payload(bytes(sealed.original_message.payload))
        except ENDS_RUN:
            raise
        except BaseException:  # noqa: BLE001 - the failing step may have been given another type than the source reads
            message = None
        else:
            told = ErrorMessageMeta(
                meta.message_id, meta.key, Headers.of(meta.headers), meta.topic, meta.partition, meta.offset
            )
            message = ErrorMessage(payload, told)
    source = None
    if sealed.source is not None:
        found = sealed.source
        headers = Headers.of(found.headers)
        source = KafkaRecord(
            found.topic, found.key, found.value, headers, found.partition, found.offset, found.timestamp_ms
        )
    return ErrorEnvelope(
        sealed.kind,
        sealed.reason,
        sealed.payload_type,
        message,
        sealed.step_id,
        sealed.path,
        sealed.error_type,
        source,
        sealed.index,
        sealed.at,
    )


def _original_decoder(payload: Any, wire_format: WireFormat | None) -> Callable[[bytes], Any]:
    opened = envelope_decoder(payload)
    if wire_format is WireFormat.ENVELOPE:
        return lambda value: opened(value).payload
    bare = decode_payload(wire_format or WireFormat.JSON, payload)
    if wire_format is not None:
        return bare
    return lambda value: opened(value).payload if looks_like_envelope(value) else bare(value)
