"""The types of a step are what its annotations and its class's generics say."""

from __future__ import annotations

import operator
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Generic, NewType, TypeAlias, TypeVar

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import BatchStep, ExpandStep, Message, RecordStep, compile_flow, step
from loom.streaming.compiler import CompiledStep
from tests.streaming.orders import CONFIG, Line, Order, Price, PriceAll, PricedOrder, UrgentOrder, flow

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
OrderId = NewType("OrderId", Order)
AnyOrder: TypeAlias = Order | UrgentOrder


class Box(LoomFrozenStruct, Generic[T]):
    content: T


def compiled(*nodes: Any, **options: Any) -> list[CompiledStep]:
    return [
        node for node in compile_flow(flow(*nodes, **options), config=CONFIG).nodes if isinstance(node, CompiledStep)
    ]


def signature(node: Any, **options: Any) -> tuple[str, str, bool]:
    (made,) = compiled(node, **options)
    return str(made.accepts), str(made.returns), made.may_drop


@step
def annotated(order: Order) -> PricedOrder:
    return PricedOrder(order.id)


@step
def droppable(order: Order) -> PricedOrder | None:
    return None


@step
def in_a_message(order: Order) -> Message[PricedOrder] | None:
    return None


@step
def in_a_bare_message(order: Order) -> Message:  # type: ignore[type-arg]
    raise NotImplementedError


@step
def of_any_message(order: Order) -> Message[Any] | None:
    return None


@step
def either(order: Order | PricedOrder) -> Order | PricedOrder:
    return order


@step
def either_in_messages(order: Order) -> Message[Order | None] | Message[PricedOrder]:
    raise NotImplementedError


@step
def drain(order: Order) -> None: ...


@step
def unannotated(order):  # type: ignore[no-untyped-def]
    return order


@step
def anything(order: Any) -> Any:
    return order


@step
def aliased(order: AnyOrder) -> OrderId:
    return OrderId(order)


@step
def with_defaults(order: Order, digits: int = 2, *rest: int, scale: int = 1, **more: int) -> Order:
    return order


@pytest.mark.parametrize(
    ("declared", "accepts", "returns", "may_drop"),
    [
        (annotated, "Order", "PricedOrder", False),
        (droppable, "Order", "PricedOrder", True),
        (in_a_message, "Order", "PricedOrder", True),
        (in_a_bare_message, "Order", "any", False),
        (of_any_message, "Order", "any", True),
        (either, "Order | PricedOrder", "Order | PricedOrder", False),
        (either_in_messages, "Order", "Order | PricedOrder", True),
        (drain, "Order", "nothing", True),
        (anything, "any", "any", False),
        (aliased, "Order | UrgentOrder", "Order", False),
        (with_defaults, "Order", "Order", False),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_functions_annotations_are_its_types(declared: Any, accepts: str, returns: str, may_drop: bool) -> None:
    assert signature(declared) == (accepts, returns, may_drop)


@pytest.mark.parametrize("declared", [unannotated, anything, step(operator.attrgetter("id")), step(lambda x: x)])
def test_what_is_not_annotated_is_open_but_may_not_drop(declared: Any) -> None:
    """`None` drops a record only where its author wrote so; elsewhere a forgotten `return` would lose it silently."""
    assert signature(declared) == ("any", "any", False)


class ByGenerics(RecordStep[Order, PricedOrder]):
    def execute(self, message):  # type: ignore[no-untyped-def]
        return PricedOrder(message.payload.id)


class ByAnnotations(RecordStep):  # type: ignore[type-arg]
    def execute(self, message: Message[Order]) -> PricedOrder:
        return PricedOrder(message.payload.id)


class DropsByGenerics(RecordStep[Order, PricedOrder | None]):
    def execute(self, message: Message[Order]) -> PricedOrder:
        return PricedOrder(message.payload.id)


class DropsByAnnotation(RecordStep[Order, PricedOrder]):
    def execute(self, message: Message[Order]) -> PricedOrder | None:
        return None


class Inherited(Price): ...


class OpenIn(RecordStep[T, PricedOrder], Generic[T]):
    def execute(self, message: Message[T]) -> PricedOrder:
        return PricedOrder(0)


class Swapped(RecordStep[B, A], Generic[A, B]):
    def execute(self, message: Message[B]) -> A:
        raise NotImplementedError


class Boxed(RecordStep[T, Box[T]], Generic[T]):
    def execute(self, message: Message[T]) -> Box[T]:
        return Box(message.payload)


class FilledIn(OpenIn[Order]): ...


class FilledSwapped(Swapped[PricedOrder, Order]): ...


class FilledBoxed(Boxed[Order]): ...


class Twice(FilledSwapped): ...


class HalfOpen(Swapped[PricedOrder, T], Generic[T]): ...


class FilledAtLast(HalfOpen[Order]): ...


class Mixin: ...


class WithMixin(Mixin, Price): ...


class Lines(ExpandStep[Order, Line]):
    def execute(self, message: Message[Order]) -> Iterator[Line]:
        yield Line(message.payload.id)


class LinesByAnnotation(ExpandStep):  # type: ignore[type-arg]
    def execute(self, message: Message[Order]) -> Generator[Line | PricedOrder, None, None]:
        yield Line(message.payload.id)


class Sized(ExpandStep):  # type: ignore[type-arg]
    def execute(self, message: Message[Order]) -> tuple[Line, ...]:
        return ()


class BatchByAnnotation(BatchStep):  # type: ignore[type-arg]
    def execute(self, messages: Sequence[Message[Order]]) -> list[PricedOrder | Exception | None]:  # type: ignore[override]
        return []


@pytest.mark.parametrize(
    ("declared", "accepts", "returns", "may_drop"),
    [
        (ByGenerics, "Order", "PricedOrder", False),
        (ByAnnotations, "Order", "PricedOrder", False),
        (DropsByGenerics, "Order", "PricedOrder", True),
        (DropsByAnnotation, "Order", "PricedOrder", True),
        (Inherited, "Order", "PricedOrder", False),
        (OpenIn, "any", "PricedOrder", False),
        (FilledIn, "Order", "PricedOrder", False),
        (FilledSwapped, "Order", "PricedOrder", False),
        (FilledBoxed, "Order", "Box", False),
        (Twice, "Order", "PricedOrder", False),
        (HalfOpen, "any", "PricedOrder", False),
        (FilledAtLast, "Order", "PricedOrder", False),
        (WithMixin, "Order", "PricedOrder", False),
        (Lines, "Order", "Line", False),
        (LinesByAnnotation, "Order", "Line | PricedOrder", False),
        (Sized, "Order", "Line", False),
        (PriceAll, "Order", "PricedOrder", False),
        (BatchByAnnotation, "Order", "PricedOrder", True),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_classs_generics_are_its_types_however_far_up_they_are_filled_in(
    declared: Any, accepts: str, returns: str, may_drop: bool
) -> None:
    assert signature(declared) == (accepts, returns, may_drop)
    assert signature(declared()) == (accepts, returns, may_drop)
    assert signature(declared.configure()) == (accepts, returns, may_drop)


def test_a_generic_payload_keeps_what_it_is_made_of() -> None:
    (made,) = compiled(FilledBoxed)
    assert made.returns.types == (Box[Order],)
