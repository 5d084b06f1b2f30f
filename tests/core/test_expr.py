"""Expressions are written with operators, show what was written, and refuse what cannot be one."""

from __future__ import annotations

import copy
import enum
import operator
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from loom.core.expr import PathExpression, root, same_expression, structure

order = root("order")
record = root("record", order)


class Country(enum.Enum):
    SPAIN = "ES"


WRITTEN = {
    "order": order,
    "order.address.city": order.address.city,
    "order.tags[0]": order.tags[0],
    "order['x'][-1]": order["x"][-1],
    "order.sku[:2]": order.sku[:2],
    "order.sku[1:9:2]": order.sku[1:9:2],
    "order.prices[order.currency]": order.prices[order.currency],
    "order.country == 'ES'": order.country == "ES",
    "order.country != None": order.country != None,  # noqa: E711
    "order.country == Country.SPAIN": order.country == Country.SPAIN,
    "order.a < order.b": order.a < order.b,
    "(order.a == 1) < order.b": (order.a == 1) < order.b,
    "order.a > 1": operator.lt(1, order.a),
    "order.a >= 1": operator.le(1, order.a),
    "order.a <= 1.5": operator.ge(1.5, order.a),
    "order.a == b'x'": operator.eq(b"x", order.a),
    "order.a.between(1, order.b)": order.a.between(1, order.b),
    "order.a.isin(['x', 1])": order.a.isin(["x", 1]),
    "order.a.isin([])": order.a.isin(()),
    "(order.a == 1) & (order.b == 2)": (order.a == 1) & (order.b == 2),
    "(order.a == 1) & order.b & (order.c == 2)": (order.a == 1) & (order.b & (order.c == 2)),
    "((order.a == 1) & order.b) | ~order.c": ((order.a == 1) & order.b) | ~order.c,
    "order.a | (order.b & order.c)": order.a | order.b & order.c,
    "~(order.a == 1)": ~(order.a == 1),
    "~(order.a | order.b)": ~(order.a | order.b),
    "~order.a.isin([1])": ~order.a.isin([1]),
    "(~order.a).isin([True])": (~order.a).isin([True]),
    "(order.a == 1).between(False, True)": (order.a == 1).between(False, True),
    "(order.a == 1) == (order.b == 2)": (order.a == 1) == (order.b == 2),
    "order.field('isin') == 1": order.field("isin") == 1,
    "order.field('_hidden')": order.field("_hidden"),
    "order.field('class').x": order.field("class").x,
    "order.field('two words')": order.field("two words"),
    "record.meta.key": record.meta.key,
}


@pytest.mark.parametrize(("text", "expression"), WRITTEN.items(), ids=WRITTEN)
def test_an_expression_shows_what_was_written(text: str, expression: Any) -> None:
    assert repr(expression) == text
    names = {"order": order, "record": record, "Country": Country}
    assert same_expression(eval(text, names), expression)


@pytest.mark.parametrize("expression", WRITTEN.values(), ids=WRITTEN)
def test_a_copy_of_an_expression_is_the_same_expression(expression: Any) -> None:
    for made in (copy.copy(expression), copy.deepcopy(expression), pickle.loads(pickle.dumps(expression))):
        assert type(made) is type(expression)
        assert same_expression(made, expression)
        assert hash(structure(made)) == hash(structure(expression))


def test_no_two_of_these_are_the_same_expression() -> None:
    assert len({structure(expression) for expression in WRITTEN.values()}) == len(WRITTEN)


def test_a_part_of_a_root_is_the_same_from_there() -> None:
    assert repr(record.order.country == "ES") == "order.country == 'ES'"
    assert same_expression(record.order, order)
    assert same_expression(record.field("order").id, order.id)


def test_any_attribute_can_be_reached_by_name() -> None:
    assert same_expression(order.field("country"), order.country)
    assert isinstance(order.field("isin"), PathExpression)
    assert same_expression(order.field("isin").isin([1]), order.field("isin").isin((1,)))


def test_what_a_comparison_gives_has_no_fields() -> None:
    with pytest.raises(AttributeError):
        (order.a == 1).b  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(TypeError, match="not subscriptable"):
        (order.a == 1)[0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("a", "b"), [(1, True), (1, 1.0), (0.0, -0.0), ("1", b"1"), ((1,), [1]), ((1,), (True,)), ({1}, {True})]
)
def test_values_that_are_equal_but_not_alike_make_two_expressions(a: Any, b: Any) -> None:
    assert not same_expression(order.a == a, order.a == b)
    assert not same_expression(order.a.isin([a]), order.a.isin([b]))


@pytest.mark.parametrize("value", [float("nan"), [1, [2]], {"a": [1]}, {1, 2}, bytearray(b"x"), slice(1, 2)])
def test_values_that_do_not_hash_or_equal_themselves_can_be_compared_too(value: Any) -> None:
    assert same_expression(order.a == value, order.a == copy.deepcopy(value))
    assert len({structure(order.a == value), structure(order.a == copy.deepcopy(value))}) == 1


def test_same_expression_compares_anything_else_as_it_is() -> None:
    assert same_expression("a", "a")
    assert not same_expression("a", "b")
    assert not same_expression(order, "order")
    assert not same_expression("order", order)


def test_an_expression_is_a_key_that_stands_for_itself() -> None:
    one, other = order.a == 1, order.a == 1
    assert {one: "one", other: "other"}[other] == "other"


def test_a_list_changed_later_changes_no_expression() -> None:
    values = [1, 2]
    equal, within = order.a == values, order.a.isin(values)
    values.append(3)
    assert repr(equal) == "order.a == [1, 2]"
    assert repr(within) == "order.a.isin([1, 2])"


def test_options_are_read_once_and_those_of_a_set_in_a_fixed_order() -> None:
    assert repr(order.a.isin(letter for letter in "cab")) == "order.a.isin(['c', 'a', 'b'])"
    assert repr(order.a.isin({"c", "a", "b"})) == "order.a.isin(['a', 'b', 'c'])"
    assert repr(order.a.isin(Country)) == "order.a.isin([Country.SPAIN])"


def test_a_long_chain_is_a_flat_tree() -> None:
    chain = order.id == 0
    for number in range(1, 5000):
        chain |= order.id == number
    assert repr(chain).endswith("| (order.id == 4999)")


def boolean(text: str) -> str:
    return (
        f"{text} is neither true nor false before there is a record: combine with & | ~ instead of and, or, not (each "
        "comparison in parentheses), and write .isin(…) instead of in, .between(low, high) instead of a < b < c"
    )


def combining(sign: str, value: str) -> str:
    return (
        f"{sign} combines expressions, and {value} is none; {sign} binds more tightly than a comparison, so write "
        f"(a == 1) {sign} (b == 2)"
    )


REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "bool": (lambda: bool(order.a), TypeError, boolean("order.a")),
    "and": (lambda: order.a == 1 and order.b, TypeError, boolean("order.a == 1")),
    "not": (lambda: not order.a, TypeError, boolean("order.a")),
    "chained": (lambda: 1 < order.a < 3, TypeError, boolean("order.a > 1")),
    "within a list": (lambda: order.a in ["ES", "PT"], TypeError, boolean("order.a == 'ES'")),
    "precedence": (lambda: order.a == 1 & order.b, TypeError, combining("&", "1")),
    "or": (lambda: (order.a == 1) | "x", TypeError, combining("|", "'x'")),
    "in": (
        lambda: "x" in order.tags,
        TypeError,
        (
            "order.tags holds nothing before there is a record: to ask whether it is one of some values, write .isin(…); "
            "to look into it, use a function of the record"
        ),
    ),
    "iteration": (
        lambda: list(order.tags),
        TypeError,
        "order.tags cannot be iterated before there is a record: name an item, as in [0], or use a function of the record",
    ),
    "call": (
        lambda: order.country.lower(),
        TypeError,
        (
            "order.country.lower cannot be called before there is a record: an expression compares (== != < <= > >=, isin, "
            "between) and combines (& | ~); for anything else use a function of the record"
        ),
    ),
    "isin text": (
        lambda: order.a.isin("ES"),
        TypeError,
        "isin() takes a collection of values, not 'ES'; write isin(['ES'])",
    ),
    "isin bytes": (
        lambda: order.a.isin(b"ES"),
        TypeError,
        "isin() takes a collection of values, not b'ES'; write isin([b'ES'])",
    ),
    "isin one": (
        lambda: order.a.isin(5),  # type: ignore[arg-type]
        TypeError,
        "isin() takes a collection of values, not 5; compare with == instead",
    ),
    "isin expression": (
        lambda: order.a.isin(order.b),
        TypeError,
        "isin() takes values that are known now, not the expression order.b",
    ),
    "isin of expressions": (
        lambda: order.a.isin(["x", order.b]),
        TypeError,
        "a value that holds the expression order.b cannot be compared; compare its parts one by one",
    ),
    "nested expression": (
        lambda: order.a == {"k": [order.b]},
        TypeError,
        "a value that holds the expression order.b cannot be compared; compare its parts one by one",
    ),
    "slice of expressions": (
        lambda: order.a[: order.b],
        TypeError,
        "a value that holds the expression order.b cannot be compared; compare its parts one by one",
    ),
    "private": (
        lambda: order._a,
        AttributeError,
        "order has no '_a'; for a field of that name write .field('_a')",
    ),
    "field": (
        lambda: order.field(0),  # type: ignore[arg-type]
        TypeError,
        "field() takes the name of an attribute, not 0; an item is written [0]",
    ),
    "setting": (
        lambda: setattr(order, "a", 1),
        AttributeError,
        "order is an expression, which cannot be changed: nothing to set 'a' on",
    ),
    "deleting": (
        lambda: delattr(order, "a"),
        AttributeError,
        "order is an expression, which cannot be changed: nothing to delete 'a' from",
    ),
    "private root": (lambda: root("_a"), ValueError, "a root is named as a public variable is, not '_a'"),
    "nameless root": (lambda: root("a b"), ValueError, "a root is named as a public variable is, not 'a b'"),
    "part": (
        lambda: root("record", order.id),
        TypeError,
        "a part of a root is a root, and order.id is none",
    ),
}


@pytest.mark.parametrize(("attempt", "kind", "text"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_an_expression_is_refused_with_what_to_do(
    attempt: Callable[[], object], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as refused:
        attempt()
    assert str(refused.value) == text


def test_private_names_are_not_swallowed() -> None:
    for name in ("__len__", "__wrapped__", "_repr_html_", "__array__", "__rich__"):
        assert not hasattr(order, name)
