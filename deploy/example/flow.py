"""The flow of the deployment examples: prices of orders, with what fails in a topic of its own."""

from __future__ import annotations

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, step


class Order(LoomFrozenStruct):
    """An order as it comes in."""

    id: int
    pieces: int
    cents: int


class PricedOrder(LoomFrozenStruct):
    """An order with its total."""

    id: int
    total_cents: int


@step
def price(order: Order) -> PricedOrder:
    """Multiply."""
    if order.pieces < 1:
        raise RuleViolation(f"order {order.id} has {order.pieces} pieces")
    return PricedOrder(order.id, order.pieces * order.cents)


flow = StreamFlow(
    "orders",
    FromTopic("orders.raw", Order),
    Process(price),
    IntoTopic("orders.priced", PricedOrder),
    errors=IntoTopic("orders.errors"),
)
