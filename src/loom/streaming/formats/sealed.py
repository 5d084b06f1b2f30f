"""A whole `ErrorEnvelope` in one MessagePack map, which any decoder of `ErrorEnvelope[P]` reads. No client is imported here.

Headers are a map, as the struct has them. Where that would lose a repeated name or a null value, `header_pairs` beside it
holds every pair; decoders that do not know it ignore it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from loom.core.errors import ENDS_RUN
from loom.core.model import LoomFrozenStruct
from loom.streaming.errors import ErrorEnvelope, ErrorKind, ErrorMessage, ErrorMessageMeta
from loom.streaming.formats.format import Decode
from loom.streaming.formats.hooks import DecHook
from loom.streaming.formats.msgpack_format import msgpack_decoder
from loom.streaming.formats.pydantic_models import plain_enc_hook
from loom.streaming.headers import HeaderPairs, Headers
from loom.streaming.record import KafkaRecord

__all__ = ["CUT", "SealedErrors", "cut"]

#: the end of a text that was cut
CUT = "…"

#: A map of ten fields, of fewer before it told the index (nine) and the line that raised (ten), or of one more where there
#: was a retry policy, begins with one of these bytes; no JSON text can.
_FIXMAPS = (b"\x88", b"\x89", b"\x8a", b"\x8b")


class _SealedRecord(LoomFrozenStruct):
    topic: str
    key: bytes | None
    value: bytes | None
    #: pairs in envelopes that were written before headers were a map
    headers: HeaderPairs | dict[str, bytes] = ()
    partition: int | None = None
    offset: int | None = None
    timestamp_ms: int | None = None
    header_pairs: HeaderPairs | None = None


class _SealedMeta(LoomFrozenStruct):
    message_id: str
    #: bytes, and text in envelopes that were written before keys were bytes alone
    key: Any = None
    headers: HeaderPairs | dict[str, bytes] = ()
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    header_pairs: HeaderPairs | None = None


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
    attempts: int | None = None


_encode = msgspec.msgpack.Encoder(enc_hook=plain_enc_hook(repr)).encode
_decode = msgspec.msgpack.Decoder(_Sealed).decode


class SealedErrors:
    """How the `envelope` format writes errors: the whole `ErrorEnvelope` as a map."""

    def seal(self, envelope: ErrorEnvelope[Any]) -> bytes:
        """An envelope as bytes; of a payload, what MessagePack cannot hold is written as text."""
        try:
            return _seal(envelope)
        except ENDS_RUN:
            raise
        except BaseException:  # noqa: BLE001 - a message that cannot be encoded is often the very reason of the error
            reason = envelope.reason.encode("utf-8", "replace").decode()
            return _seal(msgspec.structs.replace(envelope, reason=reason, original_message=None))

    def recognises(self, value: bytes) -> bool:
        """Whether a value that is no JSON may be a whole envelope."""
        return value[:1] in _FIXMAPS

    def payload_decoder(self, payload: Any, dec_hook: DecHook | None) -> Decode:
        """The message inside is a part of the map, so it is MessagePack too."""
        return msgpack_decoder(payload, dec_hook)

    def open(self, value: bytes, open_payload: Callable[[bytes, str | None], Any]) -> ErrorEnvelope[Any]:
        """The envelope in these bytes; raises what decoding raises.

        `open_payload` makes the payload of its bytes and the name of its type; what it raises leaves the message out: the
        failing step may have been given another type than the source reads.
        """
        sealed = _decode(value)
        message = None
        if sealed.original_message is not None:
            meta = sealed.original_message.meta
            try:
                payload = open_payload(bytes(sealed.original_message.payload), sealed.payload_type)
            except ENDS_RUN:
                raise
            except BaseException:  # noqa: BLE001 - see above
                message = None
            else:
                key = meta.key.encode() if isinstance(meta.key, str) else meta.key
                headers = _headers(meta)
                told = ErrorMessageMeta(meta.message_id, key, headers, meta.topic, meta.partition, meta.offset)
                message = ErrorMessage(payload, told)
        source = None
        if sealed.source is not None:
            found = sealed.source
            source = KafkaRecord(
                found.topic, found.key, found.value, _headers(found), found.partition, found.offset, found.timestamp_ms
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
            sealed.attempts,
        )

    def shortened(self, value: bytes) -> Iterator[bytes]:
        """The reason is cut, then the decoded message goes too, whose bytes are in its source."""
        fields = msgspec.msgpack.decode(value)
        reason = fields["reason"]
        for shorter in ({"reason": cut(reason, 200)}, {"original_message": None}, {"reason": CUT}):
            fields |= shorter
            yield msgspec.msgpack.encode(fields)


def cut(text: str, most: int) -> str:
    """A text in at most so many bytes, which have room for the mark at its end."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= most:
        return text
    return encoded[: most - len(CUT.encode())].decode("utf-8", "ignore") + CUT


def _seal(envelope: ErrorEnvelope[Any]) -> bytes:
    fields = msgspec.structs.asdict(envelope)
    if envelope.attempts is None:
        del fields["attempts"]
    if envelope.original_message is not None:
        fields["original_message"] = {
            "payload": envelope.original_message.payload,
            "meta": _with_headers(envelope.original_message.meta),
        }
    if envelope.source is not None:
        fields["source"] = _with_headers(envelope.source)
    return _encode(fields)


def _with_headers(part: KafkaRecord | ErrorMessageMeta) -> Mapping[str, Any]:
    fields = msgspec.structs.asdict(part)
    headers = Headers.of(part.headers)
    fields["headers"] = dict(headers)
    if tuple(headers.items()) != headers.pairs:
        fields["header_pairs"] = headers.pairs
    return fields


def _headers(part: _SealedRecord | _SealedMeta) -> Headers:
    return Headers.of(part.headers if part.header_pairs is None else part.header_pairs)
