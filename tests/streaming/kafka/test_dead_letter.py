"""A dead letter is the record as it was read, with headers that say what went wrong."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.streaming import ErrorEnvelope, ErrorKind, ErrorMessage, ErrorMessageMeta
from loom.streaming.kafka import Headers, KafkaRecord, WireFormat
from loom.streaming.kafka.dead_letter import dead_letter_writer, error_headers
from tests.streaming.orders import Order

SOURCE = KafkaRecord("orders.raw", b"k", b'{"id": 1}', Headers([("own", b"1"), ("own", None)]), 3, 7, 99)


def failure(**changes: Any) -> ErrorEnvelope[Any]:
    made: ErrorEnvelope[Any] = ErrorEnvelope(
        ErrorKind.TASK,
        "too small",
        "tests.streaming.orders.Order",
        ErrorMessage(Order(1), ErrorMessageMeta("orders.raw:3:7", b"k", {}, "orders.raw", 3, 7)),
        "orders.es.price",
        (1, 0, 2),
        "builtins.ValueError",
        SOURCE,
    )
    return msgspec.structs.replace(made, **changes)


def told(envelope: ErrorEnvelope[Any]) -> dict[str, bytes]:
    headers = error_headers(envelope, "orders")
    return {name: value for name, value in headers.items() if name.startswith("x-error-")}


def test_every_header_of_the_contract_is_written() -> None:
    assert told(failure(index="4", at="/app/orders.py:12", attempts=5)) == {
        "x-error-kind": b"task",
        "x-error-reason": b"too small",
        "x-error-type": b"builtins.ValueError",
        "x-error-flow": b"orders",
        "x-error-step": b"orders.es.price",
        "x-error-topic": b"orders.raw",
        "x-error-partition": b"3",
        "x-error-offset": b"7",
        "x-error-timestamp": b"99",
        "x-error-path": b"1.0.2",
        "x-error-index": b"4",
        "x-error-at": b"/app/orders.py:12",
        "x-error-attempts": b"5",
        "x-error-count": b"1",
    }


def test_a_header_that_would_say_nothing_is_not_written() -> None:
    unplaced = failure(source=KafkaRecord("", None, b"x"), path=(), step_id=None, error_type=None)
    assert told(unplaced).keys() == {"x-error-kind", "x-error-reason", "x-error-flow", "x-error-count"}


def test_the_first_partition_offset_and_place_are_said_though_they_are_zero() -> None:
    first = failure(source=msgspec.structs.replace(SOURCE, partition=0, offset=0), path=(0,), index="0")
    headers = told(first)
    places = [headers[f"x-error-{name}"] for name in ("partition", "offset", "path", "index")]
    assert places == [b"0"] * 4


@pytest.mark.parametrize("wire_format", [WireFormat.JSON, WireFormat.MSGPACK, WireFormat.BYTES])
@pytest.mark.parametrize("value", [b'{"id": 1}', b"\x00\xff", b"", None])
def test_the_record_is_written_as_it_was_read(wire_format: WireFormat, value: bytes | None) -> None:
    source = msgspec.structs.replace(SOURCE, value=value)
    record = dead_letter_writer(wire_format)(failure(source=source), "orders")
    assert (record.key, record.value) == (b"k", value)
    # Without a timestamp of its own: it is that of the writing.
    assert record.timestamp_ms is None
    assert dict(record.headers)["x-error-timestamp"] == b"99"
    assert Headers.of(record.headers).pairs[:2] == (("own", b"1"), ("own", None))


def test_the_count_grows_and_what_an_earlier_failure_said_gives_way() -> None:
    envelope = failure()
    for count in (1, 2, 3):
        headers = error_headers(envelope, "orders")
        assert headers["x-error-count"] == str(count).encode()
        names = [name for name, _ in headers.pairs]
        assert len(names) == len(set(names)) + 1  # "own" stands there twice
        envelope = failure(source=msgspec.structs.replace(SOURCE, headers=headers))
    later = failure(source=envelope.source, path=(), step_id=None, reason="other")
    assert "x-error-step" not in told(later)
    assert "x-error-path" not in told(later)
    assert told(later)["x-error-reason"] == b"other"


@pytest.mark.parametrize("count", [b"", b"many", b"-3", b"9" * 5000, "²".encode(), None])
def test_a_count_that_somebody_else_wrote_begins_anew(count: bytes | None) -> None:
    envelope = failure(source=msgspec.structs.replace(SOURCE, headers=Headers([("x-error-count", count)])))
    assert told(envelope)["x-error-count"] == b"1"


def test_a_reason_is_cut_before_it_makes_the_letter_too_large() -> None:
    assert len(told(failure(reason="x" * 1_000_000))["x-error-reason"]) == 2000


@given(reason=st.text(st.characters(codec=None), max_size=50))
def test_any_reason_can_be_written(reason: str) -> None:
    told(failure(reason=reason))


def test_a_message_that_came_from_no_record_is_told_without_a_place() -> None:
    record = dead_letter_writer(WireFormat.JSON)(failure(source=None), "orders")
    assert (record.key, record.value, record.timestamp_ms) == (None, None, None)
    assert record.headers["x-error-reason"] == b"too small"
    assert "x-error-topic" not in record.headers


def test_an_envelope_holds_the_whole_error() -> None:
    record = dead_letter_writer(WireFormat.ENVELOPE)(failure(), "orders")
    assert record.value is not None
    written = msgspec.msgpack.decode(record.value)
    assert written["kind"] == "task"
    assert written["reason"] == "too small"
    assert written["path"] == [1, 0, 2]
    assert written["original_message"]["payload"] == {"id": 1, "country": "ES"}
    assert written["source"]["value"] == b'{"id": 1}'
    assert written["source"]["headers"] == {"own": b""}
    assert written["source"]["header_pairs"] == [["own", b"1"], ["own", None]]
    assert record.headers["x-error-kind"] == b"task"


def test_an_envelope_holds_a_payload_that_no_format_can_by_its_text() -> None:
    original = ErrorMessage(Unknown(), ErrorMessageMeta("m"))
    record = dead_letter_writer(WireFormat.ENVELOPE)(failure(original_message=original), "orders")
    assert record.value is not None
    assert msgspec.msgpack.decode(record.value)["original_message"]["payload"] == "Unknown()"


def test_an_envelope_leaves_out_a_message_that_cannot_be_encoded_at_all() -> None:
    """It is often the very reason of the error, and must not make a second one of it."""
    original = ErrorMessage(Order(2**70), ErrorMessageMeta("m"))
    failed = failure(original_message=original, reason="half a \ud800 surrogate")
    record = dead_letter_writer(WireFormat.ENVELOPE)(failed, "orders")
    assert record.value is not None
    written = msgspec.msgpack.decode(record.value)
    assert (written["original_message"], written["reason"]) == (None, "half a ? surrogate")
    assert written["source"]["value"] == b'{"id": 1}'


class Unknown:
    def __repr__(self) -> str:
        return "Unknown()"
