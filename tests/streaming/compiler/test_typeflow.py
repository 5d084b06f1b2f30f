"""Payload types are followed from the source through every step and branch to every output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import Fork, FromTopic, IntoTopic, Message, Process, RecordStep, Tombstone, compile_flow, step
from loom.streaming.compiler import Code, CompilationError, CompiledStep
from tests.streaming.orders import (
    CONFIG,
    Line,
    Order,
    PricedOrder,
    UrgentOrder,
    by_country,
    ended,
    flow,
    price,
    validate,
)

T = TypeVar("T")


class Box(LoomFrozenStruct, Generic[T]):
    content: T


class HasId(Protocol):
    id: int


def compiled(*nodes: Any, **options: Any) -> list[CompiledStep]:
    return [
        node for node in compile_flow(flow(*nodes, **options), config=CONFIG).nodes if isinstance(node, CompiledStep)
    ]


def fits(*nodes: Any, **options: Any) -> bool:
    found = set()
    try:
        compile_flow(flow(*nodes, **options), config=CONFIG)
    except CompilationError as error:
        found = {issue.code for issue in error.errors}
    assert found <= {Code.TYPE_MISMATCH}
    return not found


@step
def either(order: Order | PricedOrder) -> Order | PricedOrder:
    return order


@step
def drain(order: Order) -> None: ...


@step
def unannotated(order):  # type: ignore[no-untyped-def]
    return order


@step
def anything(order: Any) -> Any:
    return order


class Boxed(RecordStep[T, Box[T]], Generic[T]):
    def execute(self, message: Message[T]) -> Box[T]:
        return Box(message.payload)


class FilledBoxed(Boxed[Order]): ...


@step
def takes_base(order: Order) -> Order:
    return order


@step
def takes_urgent(order: UrgentOrder) -> Order:
    return order


@step
def takes_object(order: object) -> Order:
    return Order(0)


@step
def takes_protocol(order: HasId) -> Order:
    return Order(order.id)


@step
def hurry(order: Order) -> UrgentOrder:
    return UrgentOrder(order.id)


@step
def box_order(order: Order) -> Box[Order]:
    return Box(order)


@step
def open_box(box: Box[Order]) -> Order:
    return box.content


@step
def open_line_box(box: Box[Line]) -> Line:
    return box.content


@step
def open_any_box(box: Box[Any]) -> Line:
    raise NotImplementedError


@step
def open_bare_box(box: Box) -> Line:  # type: ignore[type-arg]
    raise NotImplementedError


@step
def as_dict(order: Order) -> dict[str, int]:
    return {}


@step
def from_mapping(mapping: Mapping[str, int]) -> Order:
    return Order(0)


@step
def from_texts(mapping: Mapping[str, str]) -> Order:
    return Order(0)


@step
def maybe(order: Order) -> Order | None:
    return None


@step
def erase(order: Order) -> PricedOrder | Tombstone:
    return Tombstone()


@step
def takes_priced(order: PricedOrder) -> PricedOrder:
    return order


@step
def takes_erased(order: PricedOrder | Tombstone) -> PricedOrder | Tombstone:
    return order


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([validate, price], True),
        ([price, validate], False),
        ([hurry, takes_base], True),
        ([takes_urgent], False),
        ([hurry, takes_urgent], True),
        ([takes_object], True),
        ([takes_protocol], True),
        ([price, either, validate], False),
        ([either], True),
        ([anything, open_box], True),
        ([unannotated, takes_urgent], True),
        ([box_order, open_box], True),
        ([box_order, open_line_box], False),
        ([box_order, open_any_box], True),
        ([box_order, open_bare_box], True),
        ([FilledBoxed, open_box], True),
        ([FilledBoxed, open_line_box], False),
        ([as_dict, from_mapping], True),
        ([as_dict, from_texts], False),
        ([maybe, validate], True),
        ([erase, takes_priced], True),
        ([erase, takes_erased], True),
        ([drain, takes_urgent], True),
    ],
    ids=lambda value: ",".join(n.__name__ for n in value) if isinstance(value, list) else None,
)
def test_a_step_is_handed_what_it_takes_or_refused(nodes: list[Any], expected: bool) -> None:
    assert fits(*nodes) is expected


def test_the_source_is_checked_against_the_first_step() -> None:
    assert fits(takes_base, source=FromTopic("orders.raw", UrgentOrder))
    assert not fits(takes_urgent, source=FromTopic("orders.raw", Order))


@pytest.mark.parametrize(
    ("payload", "last", "expected"),
    [(Order, hurry, True), (UrgentOrder, validate, False), (None, validate, True), (Order, anything, True)],
)
def test_an_output_that_names_a_payload_is_checked_against_what_arrives(
    payload: Any, last: Any, expected: bool
) -> None:
    assert fits(last, output=IntoTopic("orders.priced", payload)) is expected


def test_an_output_that_takes_one_of_two_types_is_refused_for_the_other() -> None:
    assert not fits(either, output=IntoTopic("orders.priced", Order))
    assert fits(either, output=IntoTopic[Any]("orders.priced", Order | PricedOrder))  # type: ignore[arg-type]


def test_a_tombstone_needs_no_mention_in_an_output() -> None:
    assert fits(erase, output=IntoTopic("orders.priced", PricedOrder))


def test_each_branch_begins_with_what_arrives_at_the_fork() -> None:
    branches = {"a": Process(price, IntoTopic("a", PricedOrder)), "b": Process(validate, IntoTopic("b", Order))}
    declared = ended(validate, Fork.by(by_country, branches, default=Process(IntoTopic("c", Line))))
    with pytest.raises(CompilationError) as caught:
        compile_flow(declared, config=CONFIG)
    (issue,) = caught.value.errors
    assert (issue.path, issue.expected, issue.found) == ((1, 2, 0), "Line", "Order")


def test_an_output_knows_the_types_that_reach_it() -> None:
    fork = Fork.by(by_country, {"a": Process(price, IntoTopic("a")), "b": Process(erase, IntoTopic("b"))})
    plan = compile_flow(ended(fork), config=CONFIG)
    assert plan.terminal_sinks[0, 0, 1].payloads.types == (PricedOrder,)
    assert plan.terminal_sinks[0, 1, 1].payloads.types == (PricedOrder, Tombstone)


def test_a_step_is_handed_tombstones_only_where_it_names_them() -> None:
    assert [node.takes_tombstones for node in compiled(erase, takes_priced)] == [False, False]
    assert [node.takes_tombstones for node in compiled(erase, takes_erased)] == [False, True]
