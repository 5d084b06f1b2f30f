"""Records to messages and back, for code outside a flow: tests, tools, other producers.

No client is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeAlias, TypeVar, get_args, get_origin

from loom.core.choices import choice
from loom.core.errors import ENDS_RUN
from loom.core.model import LoomFrozenStruct
from loom.core.shown import reason_of
from loom.streaming.errors import ErrorEnvelope
from loom.streaming.formats.format import Encoding, Format, Frame, FramedFormat
from loom.streaming.formats.hooks import DecHook
from loom.streaming.formats.registry import Reading, as_wire_format, reading_of
from loom.streaming.headers import Headers
from loom.streaming.kafka.read_back import dead_letter_reader
from loom.streaming.kafka.record_accessor import RECORDS
from loom.streaming.kafka.record_headers import label_function, rewritten, wanted_from_meta
from loom.streaming.kafka.settings import HeaderPolicy
from loom.streaming.kafka.writable import check_ids, writable_headers, writable_key, writable_time
from loom.streaming.message import TOMBSTONE, Message, MessageMeta
from loom.streaming.record import KafkaRecord

__all__ = ["DecodeError", "DecodeOk", "Decoded", "MsgspecCodec"]

P = TypeVar("P")


class DecodeOk(LoomFrozenStruct, Generic[P]):
    """A record that decoded.

    >>> MsgspecCodec(Order).decode(KafkaRecord("orders", None, b'{"id": 7}')).message.payload.id
    7

    Args:
        message: the message.
    """

    message: Message[P]


class DecodeError(LoomFrozenStruct):
    """A record that did not decode, as data.

    >>> found = MsgspecCodec(Order).decode(KafkaRecord("orders", b"7", b"no JSON"))
    >>> isinstance(found, DecodeError), found.raw, found.key
    (True, b'no JSON', b'7')

    Args:
        error: why.
        raw: the value of the record.
        topic: where it was.
        key: its key.
        headers: its headers.
    """

    error: str
    raw: bytes | None
    topic: str
    key: bytes | None
    headers: Headers


Decoded: TypeAlias = DecodeOk[Any] | DecodeError


class MsgspecCodec(Generic[P]):
    """Encodes and decodes one payload type in one wire format, for code outside a flow.

    >>> codec = MsgspecCodec(Order)
    >>> record = codec.encode("orders", Message(Order(7), MessageMeta("mine", key="7")))
    >>> record.key, record.value
    (b'7', b'{"id":7,"country":"ES","lines":[]}')
    >>> codec.decode(record).message.payload
    Order(id=7, country='ES', lines=())

    Args:
        payload: the payload type; `ErrorEnvelope[P]` for dead letters.
        wire_format: the format. `None` reads JSON and recognises an envelope, as a consumer does by default; it writes JSON.
        headers: which headers are written.
        dec_hook: makes what msgspec does not know, as msgspec's own; called with a type and a plain value.
        encoding: what a producer asks of its format: an `enc_hook`, and how decimals are written as JSON.

    Raises:
        ValueError: for an unknown format or header policy.
    """

    def __init__(
        self,
        payload: type[P],
        wire_format: str | None = None,
        *,
        headers: HeaderPolicy = HeaderPolicy.AUTO,
        dec_hook: DecHook | None = None,
        encoding: Encoding | None = None,
    ) -> None:
        if wire_format is not None:
            wire_format = as_wire_format(wire_format, "MsgspecCodec(wire_format=…)")
        headers = choice(HeaderPolicy, headers, "MsgspecCodec(headers=…)")
        reading = reading_of(wire_format)
        self._policy = headers
        self._label = label_function(headers, reading.format.content_type, several_types=False)
        #: a dead letter has headers that say so, or is a whole envelope
        self._letter: Callable[[KafkaRecord], Any] | None = None
        if (get_origin(payload) or payload) is ErrorEnvelope:
            self._letter = dead_letter_reader(get_args(payload) or (Any,), wire_format, dec_hook)
        self._read, self._write = _reader(reading, payload, dec_hook), _writer(reading.format, encoding or Encoding())

    def decode(self, record: KafkaRecord) -> Decoded:
        """Decode a record. Nothing is raised: bytes that do not decode are returned as data.

        Args:
            record: the record as it was read.

        Returns:
            `DecodeOk` or `DecodeError`.
        """
        meta = RECORDS.meta(record)
        if record.value is None and self._letter is None:
            return DecodeOk(Message(TOMBSTONE, meta))
        try:
            if self._letter is not None:
                return DecodeOk(Message(self._letter(record), meta))
            assert record.value is not None
            return DecodeOk(self._read(record.value, meta))
        except ENDS_RUN:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever the bytes hold, it is the record's fault
            return DecodeError(reason_of(error), record.value, record.topic, record.key, Headers.of(record.headers))

    def encode(self, topic: str, message: Message[Any]) -> KafkaRecord:
        """Encode a message as the record that a flow would write.

        Args:
            topic: the physical topic.
            message: the message.

        Returns:
            The record.

        Raises:
            Exception: if the format cannot hold the payload, or a key, header or timestamp cannot be written.
        """
        payload, meta = message.payload, message.meta
        key, time, headers = writable_key(meta.key), writable_time(meta.produced_at_ms), self._headers(message)
        value = None if payload is TOMBSTONE else self._write(payload, meta)
        return KafkaRecord(topic, key, value, headers, timestamp_ms=time)

    def _headers(self, message: Message[Any]) -> Headers:
        if self._policy is HeaderPolicy.NONE:
            return Headers()
        label = self._label(type(message.payload))
        if message.payload is TOMBSTONE:
            label = dict.fromkeys(label)
        wanted = {**wanted_from_meta(message.meta, full=self._policy is HeaderPolicy.FULL), **label}
        return Headers(writable_headers(rewritten(Headers.of(message.meta.headers).pairs, wanted)) or ())


def _reader(reading: Reading, payload: Any, dec_hook: DecHook | None) -> Callable[[bytes, MessageMeta], Message[Any]]:
    """(value, metadata of the record) -> message; raises on bytes that do not fit."""
    decode = reading.format.decoder(payload, dec_hook)
    framed = reading.framed or reading.beside
    if framed is None:
        return lambda value, meta: Message(decode(value), meta)
    unframe = framed.unframer(payload, dec_hook)

    def read(value: bytes, meta: MessageMeta) -> Message[Any]:
        if reading.framed is None and not framed.recognises(value):
            return Message(decode(value), meta)
        found = unframe(value)
        return Message(found.payload, found.over(meta))

    return read


def _writer(written: Format, encoding: Encoding) -> Frame:
    """(payload, metadata) -> bytes, whatever the format; raises what it cannot hold."""
    if isinstance(written, FramedFormat):
        frame = written.framer(encoding)

        def write_framed(payload: Any, meta: MessageMeta) -> bytes:
            check_ids(meta)
            return frame(payload, meta)

        return write_framed
    encode, numbers = written.encoder(encoding), written.finite_numbers(())

    def write(payload: Any, _: MessageMeta) -> bytes:
        value = encode(payload)
        if numbers is not None and type(payload) not in numbers.harmless:
            numbers.check(payload, value)
        return value

    return write
