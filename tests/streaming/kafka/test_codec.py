"""What is written in a wire format is read back: payload, key, every header pair, tombstones and the time."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.model import LoomFrozenStruct
from loom.streaming import Message, MessageMeta, Tombstone
from loom.streaming.kafka import (
    DecodeError,
    DecodeOk,
    HeaderPolicy,
    Headers,
    KafkaRecord,
    MessageDescriptor,
    MessageEnvelope,
    MessageMetadata,
    MsgspecCodec,
    WireFormat,
)
from tests.streaming.orders import Order, PricedOrder


class Parcel(LoomFrozenStruct):
    id: int
    note: str | None = None
    weight: float = 0.0
    tags: tuple[str, ...] = ()
    counts: dict[str, int] = {}
    order: Order | None = None
    seal: bytes = b""


STRUCT_FORMATS = [WireFormat.JSON, WireFormat.MSGPACK, WireFormat.ENVELOPE]
PARCELS = st.builds(
    Parcel,
    id=st.integers(-(2**63), 2**64 - 1),
    note=st.none() | st.text(),
    weight=st.floats(allow_nan=False, allow_infinity=False),
    tags=st.lists(st.text(), max_size=3).map(tuple),
    counts=st.dictionaries(st.text(), st.integers(-(2**63), 2**63 - 1), max_size=3),
    order=st.none() | st.builds(Order, st.integers(0, 9)),
    seal=st.binary(max_size=8),
)
# To a client a header name is a C string.
NAMES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=6).map(
    lambda name: f"h-{name}"
)
HEADERS = st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=8)), max_size=5).map(Headers)
METAS = st.builds(
    MessageMeta,
    message_id=st.just("orders:0:7"),
    key=st.none() | st.binary(max_size=8),
    headers=HEADERS,
    produced_at_ms=st.none() | st.integers(1, 2**62),
)


def there_and_back(codec: MsgspecCodec[Any], message: Message[Any]) -> Message[Any]:
    record = codec.encode("orders", message)
    assert record.topic == "orders"
    decoded = codec.decode(msgspec.structs.replace(record, partition=0, offset=7))
    assert isinstance(decoded, DecodeOk)
    return decoded.message


@pytest.mark.parametrize("wire_format", STRUCT_FORMATS)
@given(payload=PARCELS, meta=METAS)
def test_a_payload_comes_back_with_its_key_headers_and_time(
    wire_format: WireFormat, payload: Parcel, meta: MessageMeta
) -> None:
    back = there_and_back(MsgspecCodec(Parcel, wire_format), Message(payload, meta))
    assert back.payload == payload
    assert (back.meta.key, back.meta.produced_at_ms) == (meta.key, meta.produced_at_ms)
    assert Headers.of(back.meta.headers).pairs == Headers.of(meta.headers).pairs
    assert (back.meta.message_id, back.meta.topic, back.meta.partition, back.meta.offset) == (
        "orders:0:7",
        "orders",
        0,
        7,
    )


@given(payload=st.binary(), meta=METAS)
def test_bytes_are_written_as_they_are(payload: bytes, meta: MessageMeta) -> None:
    codec = MsgspecCodec(bytes, WireFormat.BYTES)
    assert codec.encode("orders", Message(payload, meta)).value == payload
    back = there_and_back(codec, Message(payload, meta))
    assert (back.payload, back.meta.key, back.meta.headers) == (payload, meta.key, meta.headers)


@pytest.mark.parametrize("wire_format", [*WireFormat, None])
@given(meta=METAS)
def test_a_tombstone_is_a_value_of_its_own(wire_format: WireFormat | None, meta: MessageMeta) -> None:
    codec = MsgspecCodec(bytes if wire_format is WireFormat.BYTES else Order, wire_format)
    assert codec.encode("orders", Message(Tombstone(), meta)).value is None
    back = there_and_back(codec, Message(Tombstone(), meta))
    assert back.payload is Tombstone()
    assert (back.meta.key, back.meta.headers) == (meta.key, meta.headers)


@pytest.mark.parametrize("wire_format", STRUCT_FORMATS)
def test_a_generic_payload_comes_back_as_what_it_was(wire_format: WireFormat) -> None:
    back = there_and_back(MsgspecCodec(list[Order], wire_format), Message([Order(1)], MessageMeta("m")))
    assert back.payload == [Order(1)]


def test_a_text_key_is_written_as_utf_8() -> None:
    record = MsgspecCodec(Order).encode("orders", Message(Order(1), MessageMeta("m", key="ñ")))
    assert record.key == "ñ".encode()


def test_json_is_the_bare_payload_that_every_tool_reads() -> None:
    record = MsgspecCodec(Order).encode("orders", Message(Order(1, "PT"), MessageMeta("m")))
    assert record.value is not None
    assert json.loads(record.value) == {"id": 1, "country": "PT"}


def test_msgpack_is_the_bare_payload() -> None:
    record = MsgspecCodec(Order, WireFormat.MSGPACK).encode("orders", Message(Order(1, "PT"), MessageMeta("m")))
    assert record.value is not None
    assert msgspec.msgpack.decode(record.value) == {"id": 1, "country": "PT"}


def test_an_envelope_is_one_map_of_metadata_and_payload() -> None:
    meta = MessageMeta("orders:0:7", "corr", "trace", "parent", "cause", 99)
    record = MsgspecCodec(Order, WireFormat.ENVELOPE).encode("orders", Message(Order(1), meta))
    assert record.value is not None
    written = msgspec.msgpack.decode(record.value)
    assert list(written) == ["meta", "payload"]
    assert written["payload"] == {"id": 1, "country": "ES"}
    assert (
        written["meta"].items()
        >= {
            "message_id": "orders:0:7",
            "correlation_id": "corr",
            "trace_id": "trace",
            "parent_trace_id": "parent",
            "causation_id": "cause",
            "produced_at_ms": 99,
        }.items()
    )
    assert written["meta"]["descriptor"] == {
        "message_type": "tests.streaming.orders.Order",
        "message_version": 1,
        "content_type": "application/vnd.loom.envelope+msgpack",
        "schema_ref": None,
    }


def test_an_envelope_carries_the_ids_without_any_header() -> None:
    codec = MsgspecCodec(Order, WireFormat.ENVELOPE, headers=HeaderPolicy.NONE)
    meta = MessageMeta("orders:0:7", "corr", "trace", "parent", "cause", 99)
    record = codec.encode("orders", Message(Order(1), meta))
    assert record.headers == {}
    decoded = codec.decode(msgspec.structs.replace(record, timestamp_ms=None))
    assert isinstance(decoded, DecodeOk)
    back = decoded.message.meta
    assert (back.correlation_id, back.trace_id, back.parent_trace_id) == ("corr", "trace", "parent")
    assert (back.causation_id, back.produced_at_ms) == ("cause", 99)
    assert (back.message_type, back.message_version) == ("tests.streaming.orders.Order", 1)


def enveloped(**meta: Any) -> bytes:
    return msgspec.msgpack.encode(MessageEnvelope(MessageMetadata(**meta), Order(1)))


def test_what_an_envelope_says_wins_over_the_headers_and_they_fill_in_the_rest() -> None:
    headers = Headers([("x-trace-id", b"of the header"), ("x-correlation-id", b"c"), ("x-message-version", b"4")])
    value = enveloped(trace_id="of the envelope", descriptor=MessageDescriptor("order", 2))
    decoded = MsgspecCodec(Order, WireFormat.ENVELOPE).decode(KafkaRecord("orders", None, value, headers, 0, 7, 5))
    assert isinstance(decoded, DecodeOk)
    meta = decoded.message.meta
    assert (meta.trace_id, meta.correlation_id, meta.produced_at_ms) == ("of the envelope", "c", 5)
    assert (meta.message_type, meta.message_version, meta.message_id) == ("order", 2, "orders:0:7")


def test_an_envelope_that_says_nothing_leaves_everything_to_the_headers() -> None:
    names = ("correlation-id", "trace-id", "parent-trace-id", "causation-id", "message-type")
    headers = Headers([*((f"x-{name}", name.encode()) for name in names), ("x-message-version", b"4")])
    decoded = MsgspecCodec(Order).decode(KafkaRecord("orders", b"k", enveloped(), headers, 0, 7, 5))
    assert isinstance(decoded, DecodeOk)
    meta = decoded.message.meta
    ids = (meta.correlation_id, meta.trace_id, meta.parent_trace_id, meta.causation_id, meta.message_type)
    assert ids == names
    assert (meta.message_version, meta.key, meta.headers) == (4, b"k", headers)


def test_the_headers_of_an_envelope_stand_behind_those_of_the_record() -> None:
    value = enveloped(headers=(("b", b"2"), ("a", None)))
    decoded = MsgspecCodec(Order).decode(KafkaRecord("orders", None, value, Headers([("a", b"1")])))
    assert isinstance(decoded, DecodeOk)
    assert Headers.of(decoded.message.meta.headers).pairs == (("a", b"1"), ("b", b"2"), ("a", None))


def test_the_headers_of_an_envelope_may_be_a_map() -> None:
    value = msgspec.msgpack.encode({"meta": {"headers": {"b": b"2"}}, "payload": {"id": 1}})
    decoded = MsgspecCodec(Order).decode(KafkaRecord("orders", None, value, Headers([("a", b"1")])))
    assert isinstance(decoded, DecodeOk)
    assert Headers.of(decoded.message.meta.headers).pairs == (("a", b"1"), ("b", b"2"))


CONTENT_TYPE = {"media_type": "application/msgpack", "encoding": None}
SCHEMA_REF = {"namespace": "shop", "name": "order", "version": "1"}


def described_by_objects(message_type: str) -> bytes:
    descriptor = {
        "message_type": message_type,
        "message_version": 2,
        "content_type": CONTENT_TYPE,
        "schema_ref": SCHEMA_REF,
    }
    return msgspec.msgpack.encode({"meta": {"descriptor": descriptor, "trace_id": "t"}, "payload": {"id": 7}})


@pytest.mark.parametrize("wire_format", [None, WireFormat.ENVELOPE])
def test_an_envelope_whose_descriptor_holds_objects_is_read(wire_format: WireFormat | None) -> None:
    decoded = MsgspecCodec(Order, wire_format).decode(KafkaRecord("orders", None, described_by_objects("order")))
    assert isinstance(decoded, DecodeOk)
    meta = decoded.message.meta
    assert decoded.message.payload == Order(7)
    assert (meta.message_type, meta.message_version, meta.trace_id) == ("order", 2, "t")


def test_the_objects_of_an_envelope_are_kept() -> None:
    opened = msgspec.msgpack.decode(described_by_objects("order"), type=MessageEnvelope[Order])
    assert (opened.meta.descriptor.content_type, opened.meta.descriptor.schema_ref) == (CONTENT_TYPE, SCHEMA_REF)


@given(payload=PARCELS, meta=METAS)
def test_a_consumer_on_its_default_recognises_an_envelope(payload: Parcel, meta: MessageMeta) -> None:
    record = MsgspecCodec(Parcel, WireFormat.ENVELOPE).encode("orders", Message(payload, meta))
    decoded = MsgspecCodec(Parcel).decode(record)
    assert isinstance(decoded, DecodeOk)
    assert decoded.message.payload == payload


def test_a_consumer_with_a_format_reads_that_alone() -> None:
    value = enveloped()
    assert isinstance(MsgspecCodec(Order, WireFormat.JSON).decode(KafkaRecord("o", None, value)), DecodeError)
    assert isinstance(
        MsgspecCodec(Order, WireFormat.ENVELOPE).decode(KafkaRecord("o", None, b'{"id": 1}')), DecodeError
    )


def test_unknown_fields_are_ignored() -> None:
    decoded = MsgspecCodec(Order).decode(KafkaRecord("orders", None, b'{"id": 1, "new": {"x": []}}'))
    assert decoded == DecodeOk(Message(Order(1), MessageMeta("orders:None:None", topic="orders", headers=Headers())))


def test_what_does_not_decode_is_data_that_holds_the_record() -> None:
    headers = Headers([("a", b"1"), ("a", None)])
    decoded = MsgspecCodec(Order).decode(KafkaRecord("orders", b"k", b'{"id": "one"}', headers))
    assert decoded == DecodeError("Expected `int`, got `str` - at `$.id`", b'{"id": "one"}', "orders", b"k", headers)


class Refusing(LoomFrozenStruct):
    def __post_init__(self) -> None:
        raise LookupError


def test_an_error_that_says_nothing_is_told_by_its_name() -> None:
    decoded = MsgspecCodec(Refusing).decode(KafkaRecord("orders", None, b"{}"))
    assert isinstance(decoded, DecodeError)
    assert decoded.error == "LookupError"


@pytest.mark.parametrize(("wire_format", "named"), [(WireFormat.ENVELOPE, "object"), (WireFormat.JSON, "JSON")])
def test_a_value_of_another_format_is_told_in_the_formats_own_words(wire_format: WireFormat, named: str) -> None:
    decoded = MsgspecCodec(Order, wire_format).decode(KafkaRecord("orders", None, b"\x01"))
    assert isinstance(decoded, DecodeError)
    assert named in decoded.error


@pytest.mark.parametrize(
    ("wire_format", "payload"),
    [
        (WireFormat.JSON, object()),
        (WireFormat.BYTES, "text"),
        (WireFormat.BYTES, PricedOrder(1)),
        (WireFormat.MSGPACK, object()),
    ],
)
def test_what_a_format_cannot_hold_is_raised(wire_format: WireFormat, payload: Any) -> None:
    codec: MsgspecCodec[Any] = MsgspecCodec(bytes if wire_format is WireFormat.BYTES else Order, wire_format)
    with pytest.raises(TypeError):
        codec.encode("orders", Message(payload, MessageMeta("m")))
