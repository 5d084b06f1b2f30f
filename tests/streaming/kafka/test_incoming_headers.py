"""Headers that we know become metadata, whatever they hold."""

from __future__ import annotations

import pytest

from tests.streaming.kafka.records import SPAN, TRACE, TRACEPARENT, read


def test_known_headers_become_metadata() -> None:
    meta = read(
        ("x-correlation-id", b"c"),
        ("x-trace-id", b"t"),
        ("x-parent-trace-id", b"p"),
        ("x-causation-id", b"cause"),
        ("x-message-type", b"order"),
        ("x-message-version", b"3"),
    ).meta
    assert (meta.correlation_id, meta.trace_id, meta.parent_trace_id, meta.causation_id) == ("c", "t", "p", "cause")
    assert (meta.message_type, meta.message_version, meta.produced_at_ms, meta.key) == ("order", 3, 99, b"k")


def test_a_record_without_headers_says_nothing() -> None:
    meta = read().meta
    assert (meta.correlation_id, meta.trace_id, meta.message_type, meta.message_version) == (None, None, None, None)


def test_of_a_header_that_repeats_the_last_counts() -> None:
    assert read(("x-trace-id", b"a"), ("x-trace-id", b"b")).meta.trace_id == "b"


@pytest.mark.parametrize("value", [b"", None, b"many", b"-1", b"1.5", "²".encode(), b"9" * 5000])
def test_a_version_that_is_no_number_is_none(value: bytes | None) -> None:
    """A text of thousands of digits once would have raised, and with it ended the flow."""
    assert read(("x-message-version", value)).meta.message_version is None


def test_a_version_of_any_integer_that_kafka_clients_write_is_read() -> None:
    assert read(("x-message-version", b"9" * 18)).meta.message_version == 10**18 - 1
    assert read(("x-message-version", b"9" * 19)).meta.message_version is None


def test_a_traceparent_fills_in_where_no_header_of_ours_speaks() -> None:
    meta = read(("traceparent", TRACEPARENT)).meta
    assert (meta.trace_id, meta.parent_trace_id) == (TRACE, SPAN)
    meta = read(("traceparent", TRACEPARENT), ("x-trace-id", b"own")).meta
    assert (meta.trace_id, meta.parent_trace_id) == ("own", None)
    meta = read(("traceparent", TRACEPARENT), ("x-parent-trace-id", b"own")).meta
    assert (meta.trace_id, meta.parent_trace_id) == (TRACE, "own")


@pytest.mark.parametrize("value", [b"", None, b"00-nonsense", b"\xff\xfe"])
def test_a_broken_traceparent_is_passed_over(value: bytes | None) -> None:
    assert read(("traceparent", value)).meta.trace_id is None


@pytest.mark.parametrize("name", ["x-trace-id", "x-correlation-id", "x-message-type"])
def test_an_id_that_is_no_text_is_read_all_the_same(name: str) -> None:
    assert read((name, b"\xffid")).meta is not None
