"""The work that every contender does: an order comes in as JSON, is checked, priced, and goes out as JSON.

Decode and encode are msgspec's in every contender, and `validate` and `price` are these functions, so that what differs
between them is what each framework adds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from loom.core.model import LoomFrozenStruct


class Order(LoomFrozenStruct):
    """What comes in; some 250 bytes of JSON."""

    order_id: str
    customer: str
    country: str
    currency: str
    sku: str
    quantity: int
    unit_cents: int
    discount_percent: int
    shipping_cents: int
    channel: str
    paid: bool
    placed_at: str
    note: str | None = None


class PricedOrder(LoomFrozenStruct):
    """What goes out."""

    order_id: str
    customer: str
    country: str
    currency: str
    sku: str
    quantity: int
    channel: str
    paid: bool
    net_cents: int
    tax_cents: int
    total_cents: int
    placed_at: str


class KeyedOrder(NamedTuple):
    """An order as a producer writes it: its customer is the key."""

    key: bytes
    value: bytes


VAT_PERCENT = {"ES": 21, "DE": 19, "FR": 20, "IT": 22, "PT": 23, "NL": 21, "PL": 23, "SE": 25}
CHANNELS = ("web", "app", "store", "phone")
NOTES = (None, "leave at the door", "gift", None)
CUSTOMERS = 5_000

decode = msgspec.json.Decoder(Order).decode
encode = msgspec.json.Encoder().encode


def validate(order: Order) -> Order:
    """Refuse what cannot be priced."""
    if order.quantity < 1 or order.unit_cents < 0:
        raise ValueError(f"order {order.order_id}: quantity and price must be positive")
    if not 0 <= order.discount_percent < 100:
        raise ValueError(f"order {order.order_id}: discount of {order.discount_percent} %")
    if order.country not in VAT_PERCENT:
        raise ValueError(f"order {order.order_id}: no tax is known for {order.country}")
    return order


def price(order: Order) -> PricedOrder:
    """Discount, shipping and tax, in whole cents; large orders ship free."""
    goods = order.quantity * order.unit_cents * (100 - order.discount_percent) // 100
    net = goods if goods >= 50_000 else goods + order.shipping_cents
    tax = net * VAT_PERCENT[order.country] // 100
    return PricedOrder(
        order.order_id,
        order.customer,
        order.country,
        order.currency,
        order.sku,
        order.quantity,
        order.channel,
        order.paid,
        net,
        tax,
        net + tax,
        order.placed_at,
    )


def make_orders(count: int) -> Iterator[KeyedOrder]:
    """The same orders at every call: order n is a function of n alone."""
    countries = tuple(VAT_PERCENT)
    for number in range(count):
        mixed = number * 2_654_435_761 % 4_294_967_296  # Knuth's multiplicative hash: neighbours differ in everything
        customer = f"c-{mixed % CUSTOMERS:06d}"
        order = Order(
            order_id=f"{number:010d}",
            customer=customer,
            country=countries[mixed // 7 % len(countries)],
            currency="EUR",
            sku=f"{mixed // 11 % 90_000:05d}-{mixed // 13 % 100:02d}",
            quantity=1 + mixed // 17 % 12,
            unit_cents=99 + mixed // 19 % 250_000,
            discount_percent=(0, 0, 5, 10, 25)[mixed // 23 % 5],
            shipping_cents=495,
            channel=CHANNELS[mixed // 29 % len(CHANNELS)],
            paid=mixed // 37 % 3 > 0,
            placed_at=f"2025-03-{1 + number // 86_400 % 28:02d}T{number // 3_600 % 24:02d}:{number // 60 % 60:02d}:00Z",
            note=NOTES[mixed // 31 % len(NOTES)],
        )
        yield KeyedOrder(customer.encode(), encode(order))
