"""The small world of these tests: orders that are priced, the steps that do it, and a config under which they compile."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    ExpandStep,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RecordStep,
    StreamFlow,
    step,
)


class Order(LoomFrozenStruct):
    id: int
    country: str = "ES"


class UrgentOrder(Order):
    by: str = "noon"


class PricedOrder(LoomFrozenStruct):
    id: int
    cents: int = 0


class Line(LoomFrozenStruct):
    order: int
    sku: str = ""


class Price(RecordStep[Order, PricedOrder]):
    def __init__(self, currency: str = "EUR", digits: int = 2) -> None:
        self.currency = currency
        self.digits = digits

    def execute(self, message: Message[Order]) -> PricedOrder:
        return PricedOrder(message.payload.id)


class Split(ExpandStep[Order, Line]):
    def execute(self, message: Message[Order]) -> Iterable[Line]:
        return [Line(message.payload.id)]


class PriceAll(BatchStep[Order, PricedOrder]):
    def execute(self, messages: list[Message[Order]]) -> list[PricedOrder]:
        return [PricedOrder(message.payload.id) for message in messages]


@step
def validate(order: Order) -> Order:
    """Let every order through."""
    return order


@step
def price(order: Order) -> PricedOrder:
    return PricedOrder(order.id)


def by_country(order: Order) -> str:
    return order.country


RAW = FromTopic("orders.raw", payload=Order)
PRICED = IntoTopic("orders.priced")

CONFIG: dict[str, Any] = {
    "kafka": {
        "consumer": {"brokers": ["localhost:9092"], "group_id": "orders", "delivery": "at_least_once"},
        "producer": {"brokers": ["localhost:9092"]},
    }
}


def config(**kafka: Any) -> dict[str, Any]:
    """The config of these tests, with entries of its `kafka` section overlaid (`None` removes a key)."""
    made = deepcopy(CONFIG)
    section = made["kafka"]
    for name, changes in kafka.items():
        entry = section.setdefault(name, {})
        for key, value in changes.items():
            if value is None:
                entry.pop(key, None)
            else:
                entry[key] = value
    return made


def flow(*nodes: Any, **options: Any) -> StreamFlow[Any, Any]:
    """A flow of these nodes from `orders.raw` to `orders.priced`, with every error routed."""
    options = {"output": PRICED, "errors": IntoTopic("orders.errors"), **options}
    return StreamFlow("orders", options.pop("source", RAW), Process(*nodes), **options)


def ended(*nodes: Any, **options: Any) -> StreamFlow[Any, Any]:
    """A flow whose process has its own end."""
    return flow(*nodes, output=None, **options)
