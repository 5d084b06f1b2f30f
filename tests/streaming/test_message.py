"""A message is immutable; what a step changes of it is a new message that keeps the rest."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from loom.streaming import Message, MessageMeta, Tombstone, loom_message_type
from loom.streaming.kafka import Headers
from loom.streaming.message import loom_message_version
from tests.streaming.orders import Order

META = MessageMeta(
    "orders.raw:0:7",
    correlation_id="c",
    trace_id="t",
    produced_at_ms=12,
    topic="orders.raw",
    partition=0,
    offset=7,
    key=b"k",
    headers=Headers([("a", b"1"), ("b", b"2"), ("a", b"3")]),
)


def test_metadata_needs_an_id_alone() -> None:
    meta = MessageMeta("x")
    others = [name for name in MessageMeta.__struct_fields__ if name not in ("message_id", "headers")]
    assert all(getattr(meta, name) is None for name in others)
    assert not meta.headers


def test_metadata_is_positional_in_the_order_of_the_contract() -> None:
    assert MessageMeta.__struct_fields__ == (
        "message_id",
        "correlation_id",
        "trace_id",
        "parent_trace_id",
        "causation_id",
        "produced_at_ms",
        "message_type",
        "message_version",
        "topic",
        "partition",
        "offset",
        "key",
        "headers",
    )


@pytest.mark.parametrize("change", [lambda m: setattr(m, "payload", 2), lambda m: setattr(m.meta, "key", b"x")])
def test_a_message_cannot_be_changed(change: Callable[[Message[Any]], None]) -> None:
    with pytest.raises(AttributeError, match="immutable"):
        change(Message(1, META))


def test_another_payload_keeps_the_metadata() -> None:
    message = Message(Order(1), META)
    changed = message.with_payload("text")
    assert changed == Message("text", META)
    assert message.payload == Order(1)


@pytest.mark.parametrize("key", [b"other", "other", None])
def test_another_key_keeps_everything_else(key: bytes | str | None) -> None:
    changed = Message(1, META).with_key(key)
    assert changed.meta.key == key
    assert changed.with_key(b"k") == Message(1, META)


def test_added_headers_stand_behind_those_that_were_there() -> None:
    changed = Message(1, META).with_headers({"c": b"4"}, d=b"5")
    assert Headers.of(changed.meta.headers).pairs == (
        ("a", b"1"),
        ("b", b"2"),
        ("a", b"3"),
        ("c", b"4"),
        ("d", b"5"),
    )


def test_an_added_header_replaces_every_pair_of_its_name() -> None:
    changed = Message(1, META).with_headers([("a", b"9"), ("a", None)])
    assert Headers.of(changed.meta.headers).pairs == (("b", b"2"), ("a", b"9"), ("a", None))


def test_headers_can_be_added_where_there_were_none() -> None:
    assert Message(1, MessageMeta("m")).with_headers(a=b"1").meta.headers == {"a": b"1"}


def test_adding_headers_changes_no_other_metadata() -> None:
    changed = Message(1, META).with_headers(c=b"4")
    assert changed.with_headers().meta == changed.meta
    assert (changed.meta.key, changed.meta.offset, changed.meta.trace_id) == (b"k", 7, "t")


@pytest.mark.parametrize(
    "again",
    [Tombstone, lambda: copy.copy(Tombstone()), lambda: copy.deepcopy(Tombstone())],
    ids=["made", "copied", "deep"],
)
def test_there_is_one_tombstone(again: Callable[[], Tombstone]) -> None:
    assert again() is Tombstone()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_tombstone_stays_the_one_when_it_is_pickled(protocol: int) -> None:
    assert pickle.loads(pickle.dumps(Tombstone(), protocol)) is Tombstone()


def test_a_tombstone_shows_what_it_is_and_holds_nothing() -> None:
    assert repr(Tombstone()) == "Tombstone()"
    with pytest.raises(AttributeError):
        Tombstone().note = "x"  # type: ignore[attr-defined]


class Named(Order):
    __loom_message_type__ = "shop.order"
    __loom_message_version__ = 3


def test_a_payload_type_is_called_by_its_place_unless_it_names_itself() -> None:
    assert loom_message_type(Order) == "tests.streaming.orders.Order"
    assert loom_message_type(Named) == "shop.order"
    assert (loom_message_version(Order), loom_message_version(Named)) == (1, 3)


def test_messages_are_no_work_for_the_garbage_collector() -> None:
    message = Message([1], MessageMeta("numbers:0:7", headers={"a": b"1"}))
    assert not gc.is_tracked(message)
    assert not gc.is_tracked(message.meta)
