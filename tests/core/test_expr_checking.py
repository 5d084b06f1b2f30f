"""An expression is held against the types of its roots: what no value can have or be is said, what is open is accepted."""

from __future__ import annotations

import collections.abc
import datetime
import decimal
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, NewType, Protocol, TypedDict, TypeVar

import msgspec
import pytest

from loom.core.expr import ExpressionProblem, ProblemKind, check_expression, root
from loom.core.model import LoomFrozenStruct

if TYPE_CHECKING:
    from somewhere import Elsewhere  # type: ignore[import-not-found]

T = TypeVar("T")
Cents = NewType("Cents", int)
order = root("order")


class Address(LoomFrozenStruct):
    city: str
    zip: str | None = None


B = TypeVar("B", bound=Address)


class Parcel(LoomFrozenStruct, tag=True):
    weight: int
    size: int


class Letter(LoomFrozenStruct, tag=True):
    weight: int
    stamp: str


class Box(LoomFrozenStruct, Generic[T]):
    content: T


class Boxed(LoomFrozenStruct, Generic[B]):
    address: B


class Labels(TypedDict):
    gift: bool


class Country(enum.Enum):
    SPAIN = "ES"


class Named(Protocol):
    name: str


class Pair(NamedTuple):
    left: int
    right: Address


@dataclass
class Customer:
    name: str
    address: Address | None = None


class Plain:
    """May hold anything."""

    nick: str


class Open(msgspec.Struct, dict=True):
    id: int


class Answering(msgspec.Struct):
    id: int

    def __getattr__(self, name: str) -> int:
        return len(name)


class Intercepting(msgspec.Struct):
    id: int

    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, name)


class Order(LoomFrozenStruct):
    id: int
    country: str
    total: float
    cents: Cents
    raw: bytes
    paid: bool
    note: str | None
    address: Address
    billing: Address | None
    lines: list[Address]
    stops: tuple[Address, ...]
    pair: tuple[int, Address]
    by_city: dict[str, Address]
    headers: collections.abc.Mapping[str, bytes]
    sequence: collections.abc.Sequence[Address]
    tags: set[str]
    freight: Parcel | Letter
    box: Box[Address]
    optional_box: Box[list[Address] | None]
    open_box: Box
    status: Literal["open", "closed"]
    kind: Country
    when: datetime.datetime
    price: decimal.Decimal
    noted: Annotated[Address, "documented"]
    customer: Customer
    named: Pair
    labels: Labels
    anything: Any
    thing: object
    mapping: dict
    protocol: Named
    plain: Plain
    loose: Open
    answering: Answering
    intercepting: Intercepting
    nothing: None

    @property
    def home(self) -> Address:
        return self.address

    def label(self) -> str:
        return self.country


class Unresolved(LoomFrozenStruct):
    id: int
    other: Elsewhere


FINE = [
    order.address.city == "Vigo",
    order.billing.city == "Vigo",
    order.note[0] == "x",
    order.note == None,  # noqa: E711
    order.lines[0].city,
    order.lines[order.id].city,
    order.lines[1:][0].city,
    order.stops[3].city,
    order.pair[1].city,
    order.pair[-1].city,
    order.pair[order.id],
    order.by_city["x"].city,
    order.headers["x"] == b"1",
    order.headers.pairs,
    order.sequence[0].city,
    order.freight.weight == 1,
    order.box.content.city,
    order.optional_box.content[0].city,
    order.open_box.content.whatever,
    order.when.year == 2024,
    order.kind.value == "ES",
    order.kind == "ES",
    order.price > 1,
    order.price == "1",
    order.noted.city,
    order.customer.name,
    order.customer.address.city,
    order.named.right.city,
    order.named[1],
    order.labels["gift"],
    order.labels["other"].x,
    order.anything.x[0].y == 1,
    order.thing.x,
    order.mapping["x"].y,
    order.mapping.x,
    order.protocol.other,
    order.plain.other,
    order.plain.nick == "x",
    order.loose.other,
    order.answering.other,
    order.intercepting.other,
    order.nothing.x == 1,
    order.home.city,
    order.country[:2] == "ES",
    order.raw[0] == 1,
    order.raw[:1] == b"x",
    (order.total == 1) | (order.total == True) | (order.paid < 2),  # noqa: E712
    order.cents.between(1, 2.5),
    order.status.isin(["open"]),
    order.country < order.note,
    order.id.isin([]),
    (order.id == 1) == order.paid,
    order == order,  # noqa: PLR0124
]


@pytest.mark.parametrize("expression", FINE, ids=repr)
def test_what_exists_or_may_exist_is_accepted(expression: Any) -> None:
    assert check_expression(expression, {"order": [Order]}) == []


UNKNOWN: list[tuple[Any, str]] = [
    (order.contry == "ES", "order.contry: Order has no field 'contry'; did you mean 'country'?"),
    (order.qqq, "order.qqq: Order has no field 'qqq'"),
    (order.address.citty.x == 1, "order.address.citty: Address has no field 'citty'; did you mean 'city'?"),
    (order.billing.town, "order.billing.town: Address has no field 'town'"),
    (order.lines[0].citi, "order.lines[0].citi: Address has no field 'citi'; did you mean 'city'?"),
    (order.lines[1:][0].citi, "order.lines[1:][0].citi: Address has no field 'citi'; did you mean 'city'?"),
    (order.lines[order.idd], "order.idd: Order has no field 'idd'; did you mean 'id'?"),
    (order.stops[0].citi, "order.stops[0].citi: Address has no field 'citi'; did you mean 'city'?"),
    (order.pair[1].citi, "order.pair[1].citi: Address has no field 'citi'; did you mean 'city'?"),
    (order.pair[2], "order.pair[2]: tuple[int, Address] has no item 2"),
    (order.by_city["x"].citi, "order.by_city['x'].citi: Address has no field 'citi'; did you mean 'city'?"),
    (order.sequence[0].citi, "order.sequence[0].citi: Address has no field 'citi'; did you mean 'city'?"),
    (
        order.by_city.vigo,
        "order.by_city.vigo: dict[str, Address] has no field 'vigo'; an item is read as order.by_city['vigo']",
    ),
    (order.lines["x"], "order.lines['x']: list[Address] has no item 'x'"),
    (order.tags[0], "order.tags[0]: set[str] has no item 0"),
    (order.freight.stamp, "order.freight.stamp: Parcel has no field 'stamp'"),
    (order.box.content.citi, "order.box.content.citi: Address has no field 'citi'; did you mean 'city'?"),
    (
        order.optional_box.content[0].citi,
        "order.optional_box.content[0].citi: Address has no field 'citi'; did you mean 'city'?",
    ),
    (order.noted.citi, "order.noted.citi: Address has no field 'citi'; did you mean 'city'?"),
    (order.home.citi, "order.home.citi: Address has no field 'citi'; did you mean 'city'?"),
    (order.customer.nam, "order.customer.nam: Customer has no field 'nam'; did you mean 'name'?"),
    (order.customer.address.citi, "order.customer.address.citi: Address has no field 'citi'; did you mean 'city'?"),
    (order.named.rihgt, "order.named.rihgt: Pair has no field 'rihgt'; did you mean 'right'?"),
    (order.when.yaer, "order.when.yaer: datetime has no field 'yaer'; did you mean 'year'?"),
    (order.country.code, "order.country.code: str has no field 'code'"),
    (
        order.country.upper == "ES",
        "order.country.upper: str has no field 'upper', but a method; an expression cannot call it",
    ),
    (order.label == "ES", "order.label: Order has no field 'label', but a method; an expression cannot call it"),
    (order["country"], "order['country']: Order has no item 'country'; a field is read as order.country"),
    (order[0], "order[0]: Order has no item 0"),
    ((order.id == 1) & ~order.contry.isin(["x"]), "order.contry: Order has no field 'contry'; did you mean 'country'?"),
    (order.id.between(0, order.idd), "order.idd: Order has no field 'idd'; did you mean 'id'?"),
    ((order.idd == 1) | (order.idd == 2), "order.idd: Order has no field 'idd'; did you mean 'id'?"),
]


@pytest.mark.parametrize(("expression", "text"), UNKNOWN, ids=lambda value: repr(value))
def test_a_path_that_does_not_exist_is_told_with_who_lacks_it(expression: Any, text: str) -> None:
    (problem,) = check_expression(expression, {"order": [Order]})
    assert str(problem).replace(f"{__name__}.", "") == text
    assert problem.kind is ProblemKind.UNKNOWN_FIELD


INCOMPARABLE: list[tuple[Any, list[str]]] = [
    (order.id == "1", ["order.id == '1': int and str are never equal"]),
    (order.id != "1", ["order.id != '1': int and str are never equal"]),
    (order.id < "1", ["order.id < '1': int and str have no order"]),
    (order.cents >= b"1", ["order.cents >= b'1': int and bytes have no order"]),
    (order.raw == "x", ["order.raw == 'x': bytes and str are never equal"]),
    (order.headers["x"] == "1", ["order.headers['x'] == '1': bytes and str are never equal"]),
    (order.paid == "true", ["order.paid == 'true': bool and str are never equal"]),
    (order.note == 5, ["order.note == 5: str and int are never equal"]),
    (order.status == 1, ["order.status == 1: str and int are never equal"]),
    (order.id < order.country, ["order.id < order.country: int and str have no order"]),
    (
        order.id.isin([1, "2", "3"]),
        ["order.id == '2': int and str are never equal", "order.id == '3': int and str are never equal"],
    ),
    (
        order.id.between("a", "b"),
        ["order.id >= 'a': int and str have no order", "order.id <= 'b': int and str have no order"],
    ),
    ((order.id == 1) == "yes", ["(order.id == 1) == 'yes': bool and str are never equal"]),
    (order.raw[0] == b"x", ["order.raw[0] == b'x': int and bytes are never equal"]),
]


@pytest.mark.parametrize(("expression", "texts"), INCOMPARABLE, ids=lambda value: repr(value))
def test_a_comparison_that_cannot_hold_is_told(expression: Any, texts: list[str]) -> None:
    problems = check_expression(expression, {"order": [Order]})
    assert [str(problem) for problem in problems] == texts
    assert {problem.kind for problem in problems} == {ProblemKind.INCOMPARABLE}


def test_a_problem_is_data_too() -> None:
    assert check_expression(order.address.citty, {"order": [Order]}) == [
        ExpressionProblem(
            kind=ProblemKind.UNKNOWN_FIELD,
            path="order.address.citty",
            found="Address",
            message="Address has no field 'citty'",
            nearest="city",
            remedy="did you mean 'city'?",
        )
    ]


def test_a_field_must_exist_on_each_type_that_may_arrive() -> None:
    one_by_one = check_expression(order.size == 1, {"order": [Parcel, Letter, Address]})
    as_union = check_expression(order.size == 1, {"order": [Parcel | Letter | Address | None]})
    assert [problem.found for problem in one_by_one] == ["Letter", "Address"]
    assert as_union == one_by_one
    assert check_expression(order.weight == 1, {"order": [Parcel, Letter, Any]}) == []


def test_types_differ_between_members() -> None:
    class Texts(LoomFrozenStruct):
        weight: str

    assert check_expression(order.weight == "1", {"order": [Parcel, Texts]}) == []
    (problem,) = check_expression(order.weight == b"1", {"order": [Parcel, Texts]})
    assert problem.message == "int | str and bytes are never equal"


@pytest.mark.parametrize("hint", [Any, object, dict, T, Labels, Named, Plain, "Order", Box["Nowhere"]])
def test_a_root_of_an_open_type_may_hold_anything(hint: Any) -> None:
    assert check_expression(order.content.x == 1, {"order": [hint]}) == []


def test_a_root_that_nothing_is_known_of_may_hold_anything() -> None:
    assert check_expression(order.content.x == 1, {}) == []


def test_a_type_variable_stands_for_its_bound() -> None:
    (problem,) = check_expression(order.address.citi, {"order": [Boxed]})
    assert problem.nearest == "city"


def test_annotations_that_do_not_resolve_still_name_the_fields() -> None:
    assert check_expression(order.other.x == 1, {"order": [Unresolved]}) == []
    assert [p.nearest for p in check_expression(order.othr, {"order": [Unresolved]})] == ["other"]
