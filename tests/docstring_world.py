"""The names that examples in docstrings take for granted: orders, what is made of them, and a flow."""

from __future__ import annotations

from typing import Any

from loom.core.config import ConfigContext  # noqa: F401
from loom.core.model import LoomFrozenStruct
from loom.streaming import *  # noqa: F403 - whatever an author can write down
from loom.streaming import (
    BatchStep,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RecordStep,
    StreamFlow,
    compile_flow,
)


class Line(LoomFrozenStruct):
    sku: str


class Refund(LoomFrozenStruct):
    id: int


class Order(LoomFrozenStruct):
    id: int
    country: str = "ES"
    lines: tuple[Line, ...] = ()


class OrderPlaced(Order):
    """One of several types on a topic."""


class OrderCancelled(Order):
    """Another."""


class PricedOrder(LoomFrozenStruct):
    id: int


class Price(RecordStep[Order, PricedOrder]):
    def execute(self, message: Message[Order]) -> PricedOrder:
        return PricedOrder(message.payload.id)


class PriceInEuro(Price):
    pass


class PriceInPounds(Price):
    pass


class PriceInDollars(Price):
    pass


class Audit(Price):
    pass


class StoreAll(BatchStep[Order, PricedOrder]):
    def execute(self, messages: list[Message[Order]]) -> list[PricedOrder]:
        return [PricedOrder(message.payload.id) for message in messages]


class SplitOrder:
    def expand(self, order: Order) -> dict[type, list[Any]]:
        return {Line: list(order.lines)}


flow: StreamFlow[Any, Any] = StreamFlow(
    "orders", FromTopic("orders.raw", Order), Process(Price), IntoTopic("orders.priced")
)

CONFIG = {
    "kafka": {
        "consumer": {"brokers": "localhost:9092", "group_id": "orders", "delivery": "at_least_once"},
        "producer": {"brokers": "localhost:9092"},
    }
}


def compiled(*nodes: Any, output: IntoTopic[Any] | None = None, errors: Any = None) -> Any:
    """The plan of a flow with these nodes."""
    process: Any = Process(*nodes)
    return compile_flow(StreamFlow("orders", FromTopic("orders.raw", Order), process, output, errors), config=CONFIG)
