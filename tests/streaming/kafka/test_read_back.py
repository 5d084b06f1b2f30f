"""A dead letter read back tells what the failure told, the child's index included, also one written before there was an index."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import ErrorEnvelope, ErrorKind, ErrorMessage, ErrorMessageMeta
from loom.streaming.kafka import DecodeError, DecodeOk, Headers, KafkaRecord, MsgspecCodec
from loom.streaming.kafka.dead_letter import dead_letter_writer
from loom.streaming.kafka.read_back import dead_letter_reader
from loom.streaming.kafka.settings import WireFormat
from loom.streaming.message import loom_message_type
from tests.streaming.orders import Order

FAILURE: ErrorEnvelope[Any] = ErrorEnvelope(
    ErrorKind.TASK,
    "too small",
    None,
    None,
    "orders.price",
    (0, 1),
    "builtins.ValueError",
    KafkaRecord("orders.raw", b"k", b"?", {}, 3, 7, 99),
    "2.0",
)


@pytest.mark.parametrize("written", [WireFormat.JSON, WireFormat.ENVELOPE])
def test_it_is_what_was_written(written: WireFormat) -> None:
    record = dead_letter_writer(written)(FAILURE, "orders")
    found = dead_letter_reader((Order,), None)(record)
    assert (found.kind, found.step_id, found.path, found.index) == (ErrorKind.TASK, "orders.price", (0, 1), "2.0")
    assert found.source is not None
    assert (found.source.topic, found.source.partition, found.source.offset) == ("orders.raw", 3, 7)


@pytest.mark.parametrize("written", [WireFormat.JSON, WireFormat.ENVELOPE])
def test_the_attempts_of_a_retry_policy_are_read_back(written: WireFormat) -> None:
    record = dead_letter_writer(written)(msgspec.structs.replace(FAILURE, attempts=5), "orders")
    assert dead_letter_reader((Order,), None)(record).attempts == 5


def test_an_envelope_without_an_index_is_read_as_one() -> None:
    record = dead_letter_writer(WireFormat.ENVELOPE)(FAILURE, "orders")
    fields = msgspec.msgpack.decode(record.value or b"")
    assert fields.pop("index") == "2.0"
    assert "at" in fields
    del fields["at"]
    older = msgspec.structs.replace(record, value=msgspec.msgpack.encode(fields), headers={})
    assert (older.value or b"")[:1] == b"\x88"
    found = dead_letter_reader((Order,), None)(older)
    assert (found.step_id, found.index) == ("orders.price", "")


class Refund(LoomFrozenStruct):
    __loom_message_type__ = "shop.refund"
    refund: int


REPEATED = Headers([("a", b"1"), ("b", None), ("a", b"2")])
SOURCE = KafkaRecord("orders.raw", b"k", b'{"id":4}', REPEATED, 3, 7, 99)
WHOLE: ErrorEnvelope[Any] = msgspec.structs.replace(
    FAILURE,
    source=SOURCE,
    original_message=ErrorMessage(Order(4), ErrorMessageMeta("m", b"k", Headers([("c", b"3")]), "orders.raw", 3, 7)),
)


def test_any_decoder_reads_a_whole_envelope() -> None:
    record = dead_letter_writer(WireFormat.ENVELOPE)(WHOLE, "orders")
    found = msgspec.msgpack.decode(record.value or b"", type=ErrorEnvelope[Order])
    assert found.original_message is not None
    assert found.original_message.payload == Order(4)
    assert (found.original_message.meta.key, found.original_message.meta.headers) == (b"k", {"c": b"3"})
    assert found.source is not None
    assert (found.source.value, found.source.headers) == (b'{"id":4}', {"a": b"2", "b": b""})
    assert msgspec.json.decode(msgspec.json.encode(found), type=ErrorEnvelope[Order]) == found


@pytest.mark.parametrize("written", [WireFormat.JSON, WireFormat.ENVELOPE])
def test_the_codec_reads_dead_letters_and_keeps_every_header(written: WireFormat) -> None:
    record = dead_letter_writer(written)(WHOLE, "orders")
    decoded = MsgspecCodec(ErrorEnvelope[Order]).decode(record)
    assert isinstance(decoded, DecodeOk)
    found = decoded.message.payload
    assert found.source is not None
    assert Headers.of(found.source.headers).pairs == REPEATED.pairs
    assert found.original_message.payload == Order(4)


def test_the_codec_tells_what_is_no_dead_letter() -> None:
    assert isinstance(MsgspecCodec(ErrorEnvelope[Order]).decode(KafkaRecord("t", None, b"{}")), DecodeError)


def test_an_envelope_whose_headers_are_pairs_is_read_as_before() -> None:
    record = dead_letter_writer(WireFormat.ENVELOPE)(WHOLE, "orders")
    fields = msgspec.msgpack.decode(record.value or b"")
    fields["source"]["headers"] = fields["source"].pop("header_pairs")
    fields["original_message"]["meta"] |= {"headers": [["c", b"3"]], "key": "text"}
    found = dead_letter_reader((Order,), None)(
        msgspec.structs.replace(record, value=msgspec.msgpack.encode(fields), headers={})
    )
    assert found.source is not None
    assert Headers.of(found.source.headers).pairs == REPEATED.pairs
    assert found.original_message is not None
    assert (found.original_message.meta.key, dict(found.original_message.meta.headers)) == (b"text", {"c": b"3"})


@pytest.mark.parametrize("written", [WireFormat.JSON, WireFormat.ENVELOPE])
@pytest.mark.parametrize("payload", [Order(4), Refund(5)])
@pytest.mark.parametrize("labelled", [True, False])
def test_of_several_types_it_is_the_one_that_was_meant(written: WireFormat, payload: Any, labelled: bool) -> None:
    headers = {"x-message-type": loom_message_type(type(payload)).encode()} if labelled else {}
    source = KafkaRecord("orders.raw", b"k", msgspec.json.encode(payload), headers, 3, 7, 99)
    told = f"{type(payload).__module__}.{type(payload).__qualname__}" if labelled else None
    failure = msgspec.structs.replace(
        FAILURE, source=source, payload_type=told, original_message=ErrorMessage(payload, ErrorMessageMeta("m"))
    )
    found = dead_letter_reader((Order, Refund), None)(dead_letter_writer(written)(failure, "orders"))
    assert found.original_message is not None
    assert found.original_message.payload == payload
