"""A header is written when it says something; what is not ours passes through as it came."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.model import LoomFrozenStruct
from loom.streaming import Message, MessageMeta, Tombstone
from loom.streaming.kafka import HeaderPolicy, WireFormat
from loom.streaming.kafka.record_headers import label_function
from tests.streaming.kafka.records import SPAN, TRACE, TRACEPARENT, read, written
from tests.streaming.orders import Order, PricedOrder


class Invoice(LoomFrozenStruct):
    __loom_message_type__ = "shop.invoice"
    __loom_message_version__ = 2

    id: int


def test_a_quiet_record_leaves_without_any_header() -> None:
    assert written(read()) == ()
    assert written(Message(Order(1), MessageMeta("m"))) == ()


def test_ids_are_written_where_a_message_carries_them() -> None:
    message = Message(Order(1), MessageMeta("m", "c", "t", "p", "cause"))
    assert dict(written(message)) == {
        "x-correlation-id": b"c",
        "x-trace-id": b"t",
        "x-parent-trace-id": b"p",
        "x-causation-id": b"cause",
    }


@given(
    pairs=st.permutations(
        [("x-trace-id", b"t"), ("x-correlation-id", b"c"), ("x-causation-id", b"d"), ("own", b"1"), ("own", None)]
    )
)
def test_what_already_says_so_stays_where_it_is(pairs: list[tuple[str, bytes | None]]) -> None:
    assert written(read(*pairs)) == tuple(pairs)


@given(pairs=st.lists(st.tuples(st.sampled_from(["a", "b", "x-own", "X-Trace-Id"]), st.none() | st.binary(max_size=2))))
def test_unknown_headers_pass_through_in_order(pairs: list[tuple[str, bytes | None]]) -> None:
    message = read(*pairs)
    assert written(message) == tuple(pairs)
    assert written(message.with_payload(PricedOrder(1))) == tuple(pairs)
    assert written(message.with_payload(Tombstone())) == tuple(pairs)


def test_an_id_that_a_step_changed_replaces_the_old_one() -> None:
    message = read(("x-correlation-id", b"old"), ("own", b"1"))
    changed = Message(message.payload, MessageMeta("m", "new", headers=message.meta.headers))
    assert written(changed) == (("own", b"1"), ("x-correlation-id", b"new"))


@pytest.mark.parametrize("name", ["x-correlation-id", "x-trace-id", "x-message-type", "content-type", "traceparent"])
@pytest.mark.parametrize("value", [None, b""])
def test_a_header_of_ours_without_a_value_harms_nothing(name: str, value: bytes | None) -> None:
    """A null in place of an id once raised where the record was written."""
    left = written(read((name, value), ("own", b"1")))
    # A label speaks of the payload that came; anything else that nobody has replaced leaves as it came.
    label = name in ("x-message-type", "content-type")
    assert left == ((("own", b"1"),) if label else ((name, value), ("own", b"1")))


def test_an_id_that_a_step_took_away_is_not_written() -> None:
    message = read(("x-correlation-id", b"old"), ("own", b"1"))
    assert written(Message(message.payload, MessageMeta("m", headers=message.meta.headers))) == (("own", b"1"),)


def test_the_type_is_written_where_the_class_names_it() -> None:
    assert dict(written(Message(Invoice(1), MessageMeta("m")))) == {
        "x-message-type": b"shop.invoice",
        "x-message-version": b"2",
    }
    assert written(Message(Order(1), MessageMeta("m"))) == ()


def test_the_type_is_written_where_an_output_may_hold_several() -> None:
    label = label_function(HeaderPolicy.AUTO, "application/json", several_types=True)
    assert label(Order)["x-message-type"] == b"tests.streaming.orders.Order"
    assert label(Order)["x-message-version"] == b"1"
    assert label(Invoice)["x-message-type"] == b"shop.invoice"
    alone = label_function(HeaderPolicy.AUTO, "application/json", several_types=False)
    assert alone(Order)["x-message-type"] is None


INCOMING = (("x-message-type", b"shop.order"), ("x-message-version", b"7"), ("content-type", b"text/plain"))


@pytest.mark.parametrize(
    ("payload", "label"),
    [(PricedOrder(1), {}), (Order(1), {}), (Tombstone(), {}), (Invoice(1), {"shop.invoice", "2"})],
)
def test_the_incoming_label_is_never_carried_over(payload: Any, label: Any) -> None:
    """Outgoing messages once carried the type of the message that came in."""
    left = written(read(*INCOMING).with_payload(payload))
    assert {value.decode() for _, value in left if value is not None} == set(label)


def test_a_label_that_is_right_already_stays_where_it_is() -> None:
    pairs = (("x-message-version", b"2"), ("own", b"1"), ("x-message-type", b"shop.invoice"))
    assert written(read(*pairs, payload=Invoice(1))) == pairs


@pytest.mark.parametrize(
    ("wire_format", "content_type"),
    [
        (WireFormat.JSON, b"application/json"),
        (WireFormat.MSGPACK, b"application/msgpack"),
        (WireFormat.ENVELOPE, b"application/vnd.loom.envelope+msgpack"),
    ],
)
def test_full_writes_everything_that_is_known(wire_format: WireFormat, content_type: bytes) -> None:
    message = read(("x-correlation-id", b"c"), ("x-trace-id", b"t"), ("x-parent-trace-id", b"p"), *INCOMING)
    assert dict(written(message, HeaderPolicy.FULL, wire_format)) == {
        "x-correlation-id": b"c",
        "x-trace-id": b"t",
        "x-parent-trace-id": b"p",
        "x-causation-id": b"orders:0:7",
        "x-message-type": b"tests.streaming.orders.Order",
        "x-message-version": b"1",
        "content-type": content_type,
    }


def test_full_keeps_a_cause_that_is_known_and_invents_none() -> None:
    assert dict(written(read(("x-causation-id", b"c")), HeaderPolicy.FULL))["x-causation-id"] == b"c"
    assert "x-causation-id" not in dict(written(Message(Order(1), MessageMeta("")), HeaderPolicy.FULL))


def test_full_labels_no_tombstone() -> None:
    names = dict(written(read(*INCOMING).with_payload(Tombstone()), HeaderPolicy.FULL)).keys()
    assert names == {"x-causation-id"}


@pytest.mark.parametrize("payload", [Order(1), Invoice(1), Tombstone()])
def test_none_writes_none(payload: Any) -> None:
    message = read(("own", b"1"), ("traceparent", TRACEPARENT), *INCOMING).with_payload(payload)
    assert written(message, HeaderPolicy.NONE) == ()


def test_a_traceparent_passes_through_and_is_not_said_twice() -> None:
    message = read(("traceparent", TRACEPARENT), ("tracestate", b"x=1"))
    assert written(message) == (("traceparent", TRACEPARENT), ("tracestate", b"x=1"))


def test_full_says_the_trace_in_our_own_headers_too() -> None:
    left = dict(written(read(("traceparent", TRACEPARENT)), HeaderPolicy.FULL))
    assert (left["traceparent"], left["x-trace-id"], left["x-parent-trace-id"]) == (
        TRACEPARENT,
        TRACE.encode(),
        SPAN.encode(),
    )


@pytest.mark.parametrize("own", [(), (("x-trace-id", b"own"),), (("x-trace-id", TRACE.encode()),)])
def test_a_trace_that_a_step_changed_replaces_the_traceparent(own: Any) -> None:
    message = read(("traceparent", TRACEPARENT), *own)
    changed = Message(message.payload, MessageMeta("m", trace_id="new", headers=message.meta.headers))
    assert written(changed) == (("x-trace-id", b"new"),)


def test_a_trace_of_our_own_beside_a_traceparent_passes_through_with_it() -> None:
    pairs = (("traceparent", TRACEPARENT), ("x-trace-id", b"own"))
    assert written(read(*pairs)) == pairs


def test_a_header_of_ours_never_says_another_trace_than_the_message() -> None:
    message = read(("traceparent", TRACEPARENT), ("x-trace-id", b"own"), ("x-parent-trace-id", b"own"))
    meta = MessageMeta("m", trace_id=TRACE, parent_trace_id=SPAN, headers=message.meta.headers)
    assert dict(written(Message(message.payload, meta))) == {
        "traceparent": TRACEPARENT,
        "x-trace-id": TRACE.encode(),
        "x-parent-trace-id": SPAN.encode(),
    }


def test_a_broken_traceparent_passes_through_whatever_a_step_does() -> None:
    message = read(("traceparent", b"broken"))
    changed = Message(message.payload, MessageMeta("m", trace_id="new", headers=message.meta.headers))
    assert written(changed) == (("traceparent", b"broken"), ("x-trace-id", b"new"))
