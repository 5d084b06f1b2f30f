"""Steps, selectors and payloads with one mistake each; `test_catalogue.py` names what the compiler says of them."""

from __future__ import annotations

from typing import Any

from loom.core.model import LoomFrozenStruct, LoomStruct
from loom.streaming import BatchExpandStep, CollectBatch, IntoTopic, Message, RecordStep, Router, Step, step
from tests.streaming.orders import Line, Order, PricedOrder, by_country


class NeedsRate(RecordStep[Order, PricedOrder]):
    def __init__(self, rate: float) -> None:
        if rate > 1:
            raise ValueError(f"a rate of {rate}")
        self.rate = rate

    def execute(self, message: Message[Order]) -> PricedOrder:
        return PricedOrder(message.payload.id)


class Bodiless(RecordStep[Order, Order]): ...


class Kindless(Step[Order, Order]):
    def execute(self, message: Message[Order]) -> Order:
        return message.payload


class Stray:
    pass


class Unwritable(LoomFrozenStruct):
    id: int
    stray: Stray


@step
async def fetch(order: Order) -> Order:
    return order


@step
def convert(order: Order, rates: dict[str, float]) -> Order:
    return order


@step
def says_nothing(order: Order):  # type: ignore[no-untyped-def]
    return order


@step
def no_argument() -> Order:
    return Order(1)


@step
def by_name_only(*, order: Order) -> Order:
    return order


@step
def wants_message(message: Message[Order]) -> Order:
    return message.payload


@step
def unresolved(order: Nowhere) -> Order:  # type: ignore[name-defined]  # noqa: F821
    return order


class WantsPayload(RecordStep[Order, Order]):
    def execute(self, order: Order) -> Order:  # type: ignore[override]
        return order


@step
def make_unwritable(order: Order) -> Unwritable:
    return Unwritable(order.id, Stray())


class OpenOrder(LoomStruct):
    id: int


@step
def make_open(order: Order) -> OpenOrder:
    return OpenOrder(order.id)


@step
def make_bytes(order: Order) -> bytes:
    return b""


def two_things(order: Order, rates: dict[str, float]) -> str:
    return order.country


async def by_slow_country(order: Order) -> str:
    return order.country


def by_cents(order: PricedOrder) -> int:
    return order.cents


class ById:
    def partition_key(self, message: Message[Order]) -> str:
        return str(message.payload.id)


ES = IntoTopic[Any]("orders.es")
PT = IntoTopic[Any]("orders.pt")
COLLECT = CollectBatch(10, timeout_ms=100)


class ExpandAll(BatchExpandStep[Order, Line]):
    def execute(self, messages: list[Message[Order]]) -> list[Any]:
        return [[Line(message.payload.id)] for message in messages]


class Parts:
    def expand(self, payload: Order) -> dict[type, list[Any]]:
        return {Line: [Line(payload.id)]}


class PricedParts:
    def expand(self, payload: PricedOrder) -> dict[type, list[Any]]:
        return {}


class Table:
    name = "orders"

    def build_partition(self, config: Any, worker_index: int, worker_count: int, *more: Any) -> Any: ...


@step
def one_line(order: Order) -> Line:
    return Line(order.id)


def on_message(message: Message[Order]) -> list[Order]:
    return []


def of_priced(order: PricedOrder) -> list[Order]:
    return []


def router(**branches: Any) -> Router:
    return Router.by(by_country, branches)


class Labelled(LoomFrozenStruct):
    __loom_message_type__ = "order"


class AlsoLabelled(LoomFrozenStruct):
    __loom_message_type__ = "order"


class Other:
    class Line(LoomFrozenStruct):
        id: int
