"""Dead letters: the record as its source read it, with headers that tell what went wrong.

Written by error routes. No client is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from loom.streaming.errors import ErrorEnvelope
from loom.streaming.kafka.headers import Headers
from loom.streaming.kafka.record import KafkaRecord
from loom.streaming.kafka.settings import WireFormat
from loom.streaming.kafka.wire import ERROR_HEADER_PREFIX, key_bytes, whole_number

__all__ = ["DeadLetterWriter", "dead_letter_writer", "error_headers"]

#: (envelope, flow) -> the record to write; its topic is the caller's business
DeadLetterWriter: TypeAlias = Callable[[ErrorEnvelope[Any], str], KafkaRecord]

_COUNT = ERROR_HEADER_PREFIX + "count"
#: Reasons may quote a payload; a header of megabytes would make the dead letter itself too large.
_LONGEST_REASON = 2000


def dead_letter_writer(wire_format: WireFormat) -> DeadLetterWriter:
    """How an error topic of this format is written: original bytes, or with `envelope` the whole `ErrorEnvelope`."""
    encode = _encode_envelope() if wire_format is WireFormat.ENVELOPE else None

    def write(envelope: ErrorEnvelope[Any], flow: str) -> KafkaRecord:
        source = envelope.source or KafkaRecord("", None, None)
        value = source.value if encode is None else encode(envelope)
        headers = error_headers(envelope, flow)
        return KafkaRecord("", key_bytes(source.key), value, headers, timestamp_ms=source.timestamp_ms)

    return write


def error_headers(envelope: ErrorEnvelope[Any], flow: str) -> Headers:
    """The original headers, and what went wrong; the headers of an earlier failure give way, their count goes on."""
    source = envelope.source or KafkaRecord("", None, None)
    original = Headers.of(source.headers)
    told = {
        "kind": envelope.kind.value,
        "reason": envelope.reason[:_LONGEST_REASON],
        "type": envelope.error_type,
        "flow": flow,
        "step": envelope.step_id,
        "topic": source.topic,
        "partition": source.partition,
        "offset": source.offset,
        "timestamp": source.timestamp_ms,
        "path": ".".join(map(str, envelope.path)),
        "index": envelope.index,
    }
    told["count"] = (whole_number(original.get(_COUNT, b"")) or 0) + 1
    kept = [pair for pair in original.pairs if not pair[0].startswith(ERROR_HEADER_PREFIX)]
    kept += [
        (ERROR_HEADER_PREFIX + name, str(value).encode("utf-8", "replace"))
        for name, value in told.items()
        if value is not None and value != ""
    ]
    return Headers(kept)


def _encode_envelope() -> Callable[[ErrorEnvelope[Any]], bytes]:
    write = msgspec.msgpack.Encoder(enc_hook=_plain).encode

    def encode(envelope: ErrorEnvelope[Any]) -> bytes:
        try:
            return write(envelope)
        except Exception:  # noqa: BLE001 - a message that cannot be encoded is often the very reason of the error
            reason = envelope.reason.encode("utf-8", "replace").decode()
            return write(msgspec.structs.replace(envelope, reason=reason, original_message=None))

    return encode


def _plain(value: Any) -> Any:
    """What MessagePack cannot hold by itself: headers as pairs, anything unknown by its text."""
    return value.pairs if isinstance(value, Headers) else repr(value)
