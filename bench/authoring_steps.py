"""Small functions of the kind that authors write, and the choices between them. What each contender calls.

With `validate` and `price` they are ten steps. They are cheap on purpose: what a framework adds for each step and each
branch stands out.
"""

from __future__ import annotations

from bench.orders import CHANNELS, VAT_PERCENT, Order, PricedOrder

CURRENCIES = {"EUR", "SEK", "PLN"}
LARGE = 500_000  # cents


def check_currency(order: Order) -> Order:
    if order.currency not in CURRENCIES:
        raise ValueError(f"order {order.order_id}: cannot be paid in {order.currency}")
    return order


def check_channel(order: Order) -> Order:
    if order.channel not in CHANNELS:
        raise ValueError(f"order {order.order_id}: came in by {order.channel}")
    return order


def check_identity(order: Order) -> Order:
    if not order.order_id or not order.customer:
        raise ValueError("an order needs an id and a customer")
    return order


def where_sold(order: PricedOrder) -> str:
    """The router's key; orders from the phone have no branch of their own."""
    return order.channel


def in_store(order: PricedOrder) -> PricedOrder:
    if order.currency != "EUR":
        raise ValueError(f"order {order.order_id}: the till takes no {order.currency}")
    return order


def in_app(order: PricedOrder) -> PricedOrder:
    if order.quantity > 1_000:
        raise ValueError(f"order {order.order_id}: too many for the app")
    return order


def on_the_web(order: PricedOrder) -> PricedOrder:
    if order.net_cents < 0:
        raise ValueError(f"order {order.order_id}: owes nothing")
    return order


def check_sum(order: PricedOrder) -> PricedOrder:
    if order.net_cents + order.tax_cents != order.total_cents:
        raise ValueError(f"order {order.order_id}: does not add up")
    return order


def check_address(order: PricedOrder) -> PricedOrder:
    if order.country not in VAT_PERCENT:
        raise ValueError(f"order {order.order_id}: nobody delivers to {order.country}")
    return order


def size_of(order: PricedOrder) -> str:
    """The fork's key."""
    return "large" if order.total_cents >= LARGE else "small"
