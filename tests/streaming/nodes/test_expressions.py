"""`payload` and `msg` speak of a record: compiled for what they need, keys in bytes, held against payload types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from loom.core.expr import Expression, same_expression
from loom.core.model import LoomFrozenStruct
from loom.streaming import Message, MessageMeta, Predicate, Tombstone, msg, payload
from loom.streaming.headers import Headers
from loom.streaming.nodes.expressions import compile_routing_expression, key_as_bytes, unknown_fields
from tests.streaming.orders import Line, Order, PricedOrder

ORDER = Order(7, "ES")


def message(key: bytes | str | None = b"ES", **meta: Any) -> Message[Order]:
    return Message(ORDER, MessageMeta("orders:0:7", key=key, **meta))


TAKES_PAYLOAD: list[tuple[Expression, Any]] = [
    (payload, ORDER),
    (payload.country, "ES"),
    (msg.payload.country, "ES"),
    (payload.country == "ES", True),
    ((payload.id > 7) | payload.country.isin(["PT"]), False),
    (~payload.id.between(1, 7), False),
]
META = {"topic": "orders", "headers": Headers([("x", b"1")])}
TAKES_MESSAGE: list[tuple[Expression, Any]] = [
    (msg.meta.topic, "orders"),
    (msg.meta.topic == "orders", True),
    (msg.meta.headers["x"] == b"1", True),
    ((payload.country == "PT") & (msg.meta.topic == "orders"), False),
    (msg.payload.country == msg.meta.topic, False),
    (msg, message(**META)),
]


@pytest.mark.parametrize(("expression", "answer"), TAKES_PAYLOAD, ids=lambda value: repr(value))
def test_what_asks_for_the_payload_alone_is_handed_the_payload(expression: Expression, answer: Any) -> None:
    compiled = compile_routing_expression(expression)
    assert (compiled.takes, compiled.reads_payload, compiled.is_key) == ("payload", True, False)
    assert compiled.call(ORDER) == answer


@pytest.mark.parametrize(("expression", "answer"), TAKES_MESSAGE, ids=lambda value: repr(value))
def test_what_asks_for_more_is_handed_the_message(expression: Expression, answer: Any) -> None:
    compiled = compile_routing_expression(expression)
    assert (compiled.takes, compiled.is_key) == ("message", False)
    assert compiled.call(message(**META)) == answer


@pytest.mark.parametrize(
    ("expression", "reads"),
    [(msg.meta.topic == "a", False), (msg.meta.key, False), ((msg.meta.key == "a") & payload.id, True)],
    ids=repr,
)
def test_an_expression_tells_whether_it_looks_at_the_payload(expression: Expression, reads: bool) -> None:
    assert compile_routing_expression(expression).reads_payload is reads


KEYS: list[tuple[Expression, bool]] = [
    (msg.meta.key == "ES", True),
    (msg.meta.key == b"ES", True),
    (msg.meta.key == "PT", False),
    (msg.meta.key != "PT", True),
    (msg.meta.key < "F", True),
    (msg.meta.key <= "ES", True),
    (msg.meta.key > "ES", False),
    (msg.meta.key >= "ES", True),
    (msg.meta.key.isin(["PT", "ES"]), True),
    (msg.meta.key.isin({b"PT", "FR"}), False),
    (msg.meta.key.between("A", "F"), True),
    (msg.meta.key[:1] == "E", True),
    (msg.meta.key[1:].isin(["S"]), True),
    (msg.meta.key[0] == ord("E"), True),
    (msg.meta.key == payload.country, True),
    (payload.country == msg.meta.key, True),
    (msg.meta.key.between("A", payload.country), True),
    (~(msg.meta.key == "ES") | (msg.meta.key == "FR"), False),
]


@pytest.mark.parametrize("key", [b"ES", "ES"], ids=["from Kafka", "set by a step"])
@pytest.mark.parametrize(("expression", "answer"), KEYS, ids=lambda value: repr(value))
def test_text_compared_with_a_key_is_encoded(expression: Expression, answer: bool, key: bytes | str) -> None:
    assert compile_routing_expression(expression).call(message(key)) is answer


@pytest.mark.parametrize("text", ["ñandú", "日本", ""])
def test_keys_are_encoded_as_utf_8(text: str) -> None:
    assert compile_routing_expression(msg.meta.key == text).call(message(text.encode("utf-8"))) is True


def test_a_missing_key_is_compared_as_none() -> None:
    assert compile_routing_expression(msg.meta.key == None).call(message(None)) is True  # noqa: E711
    assert compile_routing_expression(msg.meta.key.isin([None, "ES"])).call(message(None)) is True
    assert compile_routing_expression(msg.meta.key == "ES").call(message(None)) is False
    with pytest.raises(TypeError):
        compile_routing_expression(msg.meta.key < "ES").call(message(None))


def test_the_key_as_a_selector_answers_in_bytes_and_says_so() -> None:
    by_key = compile_routing_expression(msg.meta.key)
    assert by_key.is_key
    assert [by_key.call(message(key)) for key in (b"ES", "ES", None)] == [b"ES", b"ES", None]
    assert [key_as_bytes(key) for key in (b"ES", "ES", None, 5)] == [b"ES", b"ES", None, 5]


def test_text_beside_anything_but_a_key_stays_text() -> None:
    assert compile_routing_expression(msg.meta.topic == "orders").call(message(topic="orders")) is True
    assert compile_routing_expression(payload.country.isin(["ES"])).call(ORDER) is True


def test_what_evaluating_raises_is_raised() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        compile_routing_expression(payload.nothing == 1).call(ORDER)
    with pytest.raises(KeyError, match="x"):
        compile_routing_expression(msg.meta.headers["x"] == b"1").call(message())
    with pytest.raises(TypeError):
        compile_routing_expression(payload.country < 1).call(ORDER)


def test_compiled_expressions_are_equal_when_written_alike() -> None:
    one, same, other = map(compile_routing_expression, (msg.meta.key == "a", msg.meta.key == "a", msg.meta.key == "b"))
    assert (one == same, hash(one) == hash(same), one == other, one == "msg.meta.key == 'a'") == (
        True,
        True,
        False,
        False,
    )
    assert same_expression(one.expression, same.expression)


def test_what_is_no_expression_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^True is no expression; one begins at a root"):
        compile_routing_expression(True)  # type: ignore[arg-type]


class Shipment(LoomFrozenStruct):
    order: Order | None
    stops: list[Line]


CHECKED: list[tuple[Expression, list[Any], list[str]]] = [
    (payload.country == "ES", [Order], []),
    (payload.contry, [Order], ["payload.contry: Order has no field 'contry'; did you mean 'country'?"]),
    (msg.payload.contry, [Order], ["payload.contry: Order has no field 'contry'; did you mean 'country'?"]),
    (payload.cents > 0, [Order, PricedOrder], ["payload.cents: Order has no field 'cents'"]),
    (payload.cents > 0, [PricedOrder | None], []),
    (payload.cents > 0, [PricedOrder, Tombstone], []),
    (payload.anything, [], []),
    (payload.anything, [Any], []),
    (payload.order.country == "ES", [Shipment], []),
    (payload.stops[0].skus, [Shipment], ["payload.stops[0].skus: Line has no field 'skus'; did you mean 'sku'?"]),
    (payload.id < "7", [Order], ["payload.id < '7': int and str have no order"]),
    (msg.meta.key == "ES", [Order], []),
    (msg.meta.key == payload.country, [Order], []),
    (msg.meta.key == 5, [Order], ["msg.meta.key == 5: bytes | str and int are never equal"]),
    (msg.meta.headers["x"] == b"1", [], []),
    (msg.meta.headers.pairs, [], []),
    (msg.meta.headers["x"] == "1", [], ["msg.meta.headers['x'] == '1': bytes and str are never equal"]),
    (msg.meta.ofset > 1, [], ["msg.meta.ofset: MessageMeta has no field 'ofset'; did you mean 'offset'?"]),
    (msg.mta.key == "ES", [], ["msg.mta: Message has no field 'mta'; did you mean 'meta'?"]),
    (
        msg.with_key == 1,
        [],
        ["msg.with_key: Message has no field 'with_key', but a method; an expression cannot call it"],
    ),
    (msg["payload"], [], ["msg['payload']: Message has no item 'payload'; a field is read as msg.payload"]),
]


@pytest.mark.parametrize(("expression", "types", "texts"), CHECKED, ids=lambda value: repr(value))
def test_expressions_are_held_against_the_types_that_may_arrive(
    expression: Expression, types: list[Any], texts: list[str]
) -> None:
    assert [str(problem) for problem in unknown_fields(expression, types)] == texts


class IsSpanish:
    def matches(self, message: Message[Order]) -> bool:
        return message.payload.country == "ES"


def test_an_object_with_matches_is_a_predicate() -> None:
    predicate: Predicate[Order] = IsSpanish()
    assert isinstance(predicate, Predicate)
    assert predicate.matches(message())


@pytest.mark.parametrize("other", [payload.country == "ES", lambda order: True, object()])
def test_nothing_else_is_one(other: Callable[..., Any]) -> None:
    assert not isinstance(other, Predicate)
