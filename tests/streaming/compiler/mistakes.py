"""Steps, selectors and payloads with one mistake each; `test_catalogue.py` names what the compiler says of them."""

from __future__ import annotations

from loom.core.model import LoomFrozenStruct, LoomStruct
from loom.streaming import Message, RecordStep, Step, step
from tests.streaming.orders import Order, PricedOrder


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
