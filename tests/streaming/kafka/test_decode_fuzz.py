"""Whatever bytes a broker hands over, decoding answers with a message or an error, and raises nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loom.core.model import LoomFrozenStruct
from loom.streaming import Message, MessageMeta
from loom.streaming.kafka import DecodeError, DecodeOk, Headers, KafkaRecord, MsgspecCodec, WireFormat
from tests.streaming.orders import Order


class Loose(LoomFrozenStruct):
    """A payload that takes anything, so that decoding goes as deep as the bytes do."""

    id: int | float = 0
    body: Any = None
    children: "list[Loose]" = []  # noqa: UP037


CODECS: dict[str, MsgspecCodec[Any]] = {
    "default": MsgspecCodec(Loose),
    "json": MsgspecCodec(Loose, WireFormat.JSON),
    "msgpack": MsgspecCodec(Loose, WireFormat.MSGPACK),
    "envelope": MsgspecCodec(Loose, WireFormat.ENVELOPE),
    "any": MsgspecCodec(Any, WireFormat.MSGPACK),  # type: ignore[arg-type]
    "order": MsgspecCodec(Order),
}
STRUCT_FORMATS = [WireFormat.JSON, WireFormat.MSGPACK, WireFormat.ENVELOPE]

DEEP = 200_000
ODDITIES = {
    "nothing": b"",
    "deep JSON lists": b"[" * DEEP,
    "deep closed JSON lists": b"[" * DEEP + b"]" * DEEP,
    "a deep JSON body": b'{"body": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep JSON children": b'{"children": [' * DEEP + b"]}" * DEEP,
    "a deep msgpack list": b"\x91" * DEEP + b"\xc0",
    "a deep msgpack map": b"\x81\xa1a" * DEEP + b"\xc0",
    "a deep envelope": b"\x82\xa4meta\x80\xa7payload\x81\xa4body" + b"\x91" * DEEP + b"\xc0",
    "an envelope that ends": b"\x82",
    "an envelope of nothing": b"\x82\xa4meta\x80\xa7payload\xc0",
    "an envelope without a payload": b"\x82\xa4meta\x80\xa4meta\x80",
    "an envelope of other keys": b"\x82\x01\x02\x03\x04",
    "an envelope with trailing bytes": b"\x82\xa4meta\x80\xa7payload\x80\xc0",
    "a huge msgpack array": b"\xdd\xff\xff\xff\xff",
    "a huge msgpack map": b"\xdf\xff\xff\xff\xff\x01",
    "a huge msgpack text": b"\xdb\xff\xff\xff\xffabc",
    "a number of 5,000 digits": b'{"id": ' + b"9" * 5000 + b"}",
    "a number of a million digits": b'{"body": ' + b"9" * 1_000_000 + b"}",
    "a number with a huge exponent": b'{"id": 1e999999}',
    "a negative number beyond 64 bits": b'{"id": -99999999999999999999999}',
    "not a number": b'{"id": NaN}',
    "invalid UTF-8": b'{"body": "\xff\xfe"}',
    "half a surrogate": b'{"body": "\\ud800"}',
    "a byte order mark": b'\xef\xbb\xbf{"id": 1}',
    "a null byte": b"\x00",
    "msgpack's unused byte": b"\xc1",
    "a truncated ext type": b"\xc9\x00\x00\x00\x05\x01",
    "a timestamp out of range": b"\xd7\xff" + b"\xff" * 8,
    "a list": b"[]",
    "a text": b'"x"',
    "null": b"null",
}


def decoded(codec: MsgspecCodec[Any], value: bytes, headers: Headers | None = None) -> DecodeOk[Any] | DecodeError:
    found = codec.decode(KafkaRecord("orders", b"k", value, headers or Headers(), 0, 7))
    assert isinstance(found, DecodeOk | DecodeError)
    if isinstance(found, DecodeError):
        assert found.error
        assert (found.raw, found.topic, found.key) == (value, "orders", b"k")
    return found


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("value", ODDITIES.values(), ids=ODDITIES)
def test_an_oddity_is_a_message_or_an_error(codec: MsgspecCodec[Any], value: bytes) -> None:
    decoded(codec, value)


@pytest.mark.parametrize("codec", [CODECS[name] for name in ("default", "json", "envelope", "order")])
@pytest.mark.parametrize(
    "oddity", [name for name in ODDITIES if "envelope" in name or ("deep" in name and "body" not in name)]
)
def test_what_is_no_record_of_ours_is_an_error(codec: MsgspecCodec[Any], oddity: str) -> None:
    assert isinstance(decoded(codec, ODDITIES[oddity]), DecodeError)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@given(value=st.binary(max_size=60))
@example(value=b"\x82\x82\x82")
def test_arbitrary_bytes_are_a_message_or_an_error(codec: MsgspecCodec[Any], value: bytes) -> None:
    decoded(codec, value)
    decoded(codec, b"\x82" + value)
    decoded(codec, b"\x82\xa4meta" + value)


JSON_TEXTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "body", "children", "x"]), inner)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@given(body=JSON_TEXTS)
def test_well_formed_values_of_any_type_are_a_message_or_an_error(codec: MsgspecCodec[Any], body: Any) -> None:
    try:
        values = [msgspec.json.encode(body), msgspec.msgpack.encode(body)]
    except OverflowError:  # msgpack's integers have 64 bits
        values = [msgspec.json.encode(body)]
    for value in values:
        decoded(codec, value)


@pytest.mark.parametrize("wire_format", STRUCT_FORMATS)
@given(data=st.data(), body=st.lists(st.text(max_size=4), max_size=4))
def test_a_record_that_was_cut_off_is_an_error(wire_format: WireFormat, data: st.DataObject, body: list[str]) -> None:
    codec: MsgspecCodec[Any] = MsgspecCodec(Loose, wire_format)
    value = codec.encode("orders", Message(Loose(1, body), MessageMeta("m"))).value
    assert value is not None
    cut = data.draw(st.integers(0, len(value) - 1))
    assert isinstance(decoded(codec, value[:cut]), DecodeError)


@given(
    pairs=st.lists(
        st.tuples(
            st.sampled_from(["x-message-version", "x-message-type", "x-trace-id", "traceparent", "content-type", ""]),
            st.none() | st.binary(max_size=20) | st.just(b"9" * 5000),
        )
    )
)
def test_arbitrary_headers_harm_no_message(pairs: list[tuple[str, bytes | None]]) -> None:
    found = decoded(CODECS["order"], b'{"id": 1}', Headers(pairs))
    assert isinstance(found, DecodeOk)
    assert Headers.of(found.message.meta.headers).pairs == tuple(pairs)
    CODECS["order"].encode("out", found.message)
