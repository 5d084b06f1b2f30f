"""A fork's selector is handed the payload or the message, as its annotation asks."""

from __future__ import annotations

import operator
from typing import Any

import pytest

from loom.streaming import Fork, IntoTopic, Message, Process, Tombstone, compile_flow
from loom.streaming.compiler import Code, CompilationError, CompiledFork
from tests.streaming.orders import CONFIG, Line, Order, PricedOrder, ended, validate


def on_payload(order: Order) -> str:
    return order.country


def on_message(message: Message[Order]) -> Any:
    return message.meta.key


def on_either_message(message: Message[Order] | Message[PricedOrder]) -> Any:
    return message.meta.key


def on_tombstones_too(order: Order | Tombstone) -> str:
    return ""


class ByKey:
    def select(self, message: Message[Order]) -> Any:
        return message.meta.key


class ByLine:
    def select(self, message: Message[Line]) -> Any:
        return message.meta.key


class Caller:
    def __call__(self, order: Order) -> str:
        return order.country


def forked(selector: Any) -> CompiledFork:
    (fork,) = compile_flow(ended(Fork.by(selector, {"x": Process(IntoTopic("a"))})), config=CONFIG).nodes
    assert isinstance(fork, CompiledFork)
    return fork


@pytest.mark.parametrize(
    ("selector", "selects_on", "takes_tombstones"),
    [
        (on_payload, "payload", False),
        (lambda order: order.country, "payload", False),
        (operator.attrgetter("country"), "payload", False),
        (Caller(), "payload", False),
        (validate, "payload", False),
        (on_tombstones_too, "payload", True),
        (on_message, "message", True),
        (on_either_message, "message", True),
        (ByKey(), "message", True),
        (ByKey().select, "message", True),
    ],
)
def test_a_selector_is_handed_what_its_annotation_asks_for(
    selector: Any, selects_on: str, takes_tombstones: bool
) -> None:
    asked = forked(selector).selector
    assert asked is not None
    assert (asked.of, asked.takes_tombstones) == (selects_on, takes_tombstones)


def test_a_selector_is_called_directly() -> None:
    assert called_by(on_payload) is on_payload
    assert called_by(validate) is validate.function
    selector = ByKey()
    assert called_by(selector) == selector.select


def called_by(selector: Any) -> Any:
    asked = forked(selector).selector
    assert asked is not None
    return asked.call


def test_a_selector_for_another_payload_is_refused() -> None:
    with pytest.raises(CompilationError) as caught:
        forked(ByLine())
    (issue,) = caught.value.errors
    assert (issue.code, issue.expected, issue.found) == (Code.TYPE_MISMATCH, "Line", "Order")
