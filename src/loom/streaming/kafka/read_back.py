"""Dead letters read back: a record with `x-error-*` headers, or a whole sealed envelope, to an `ErrorEnvelope`.

Used by sources whose payload is `ErrorEnvelope[P]`. No client is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loom.core.errors import ENDS_RUN
from loom.core.importable import qualified_name
from loom.streaming.errors import ErrorEnvelope, ErrorKind, ErrorMessage, ErrorMessageMeta
from loom.streaming.formats.hooks import DecHook
from loom.streaming.formats.registry import Reading, reading_of
from loom.streaming.headers import Headers
from loom.streaming.kafka.record_headers import ERROR_HEADER_PREFIX, MESSAGE_TYPE, whole_number
from loom.streaming.message import has_message_type, loom_message_type
from loom.streaming.record import KafkaRecord

__all__ = ["NoDeadLetterError", "dead_letter_reader"]


class NoDeadLetterError(Exception):
    """A record does not say what went wrong with it, so it is no dead letter."""


def dead_letter_reader(
    payloads: Sequence[Any], wire_format: str | None, dec_hook: DecHook | None = None
) -> Callable[[KafkaRecord], ErrorEnvelope[Any]]:
    """What reads one dead letter; the original message is decoded as one of `payloads` where it decodes.

    Of several it is the one that the letter names, else the first as which it decodes. `wire_format` is what the original
    record was written in; `None` is a consumer's default, JSON that recognises envelopes. The callable raises
    `NoDeadLetterError` for a record that is no dead letter, and whatever decoding a whole `ErrorEnvelope` raises.
    """
    reading = reading_of(wire_format)
    original = _first_that_decodes({_label(p): _original_decoder(p, reading, dec_hook) for p in payloads})
    whole = reading.format.whole_errors or (reading.beside.whole_errors if reading.beside is not None else None)
    unsealed = (
        _first_that_decodes({_type_name(p): whole.payload_decoder(p, dec_hook) for p in payloads})
        if whole
        else original
    )

    def read(record: KafkaRecord) -> ErrorEnvelope[Any]:
        value = record.value
        if whole is not None and value is not None and whole.recognises(value):
            return whole.open(value, unsealed)
        return _from_headers(record, original)

    return read


def _first_that_decodes(decoders: Mapping[Any, Callable[[bytes], Any]]) -> Callable[[bytes, str | None], Any]:
    """(bytes, name of the type) -> payload; raises what the last decoder raised."""
    *earlier, last = decoders.values()

    def decode(value: bytes, name: str | None) -> Any:
        named = decoders.get(name)
        if named is not None:
            return named(value)
        for attempt in earlier:
            try:
                return attempt(value)
            except Exception:  # noqa: BLE001 - what a format raises for bytes of another type is its own affair
                continue
        return last(value)

    return decode


def _label(payload: Any) -> Any:
    return loom_message_type(payload) if has_message_type(payload) else payload


def _type_name(payload: Any) -> Any:
    return qualified_name(payload) if isinstance(payload, type) else payload


def _from_headers(record: KafkaRecord, original: Callable[[bytes, str | None], Any]) -> ErrorEnvelope[Any]:
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
            label = kept.get(MESSAGE_TYPE)
            payload = original(record.value, label.decode("utf-8", "replace") if label else None)
        except ENDS_RUN:
            raise
        except BaseException:  # noqa: BLE001 - that it does not decode may be the very error; the bytes are in the source
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
        number("attempts"),
    )


def _original_decoder(payload: Any, reading: Reading, dec_hook: DecHook | None) -> Callable[[bytes], Any]:
    decode, framed = reading.format.decoder(payload, dec_hook), reading.beside
    if framed is None:
        return decode
    opened, recognises = framed.decoder(payload, dec_hook), framed.recognises
    return lambda value: opened(value) if recognises(value) else decode(value)
