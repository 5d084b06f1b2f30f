"""Orders to priced orders: fifty look-ups at once on each worker, repeated when they fail, results in the order of the orders.

loom run loom.examples.enrichment.flow:flow --config config.yaml
"""

from __future__ import annotations

import httpx

from loom.core.model import LoomFrozenStruct
from loom.examples.enrichment.client import PriceClient, Prices
from loom.streaming import FromTopic, IntoTopic, Message, Process, RateLimit, RecordStep, Retry, StreamFlow, WithAsync

__all__ = ["flow"]


class Order(LoomFrozenStruct):
    """What somebody wants."""

    id: int
    sku: str
    quantity: int


class PricedOrder(LoomFrozenStruct):
    """What it costs."""

    id: int
    sku: str
    cents: int


class LookUp(RecordStep[Order, PricedOrder]):
    """Ask the service for the price of an order."""

    async def execute(self, message: Message[Order], prices: Prices) -> PricedOrder:
        order = message.payload
        cents = await prices.price_of(order.sku, idempotency_key=message.meta.message_id)
        return PricedOrder(order.id, order.sku, cents * order.quantity)


flow: StreamFlow[Order, PricedOrder] = StreamFlow(
    name="enrichment",
    source=FromTopic("orders", payload=Order),
    process=Process(
        WithAsync(
            process=Process(LookUp),
            max_concurrency=50,
            task_timeout_ms=5_000,
            retry=Retry(attempts=4, wait_max_ms=30_000, on=(httpx.HTTPError,)),
            rate_limit=RateLimit(per_second=500, burst=100),
            prices=PriceClient.from_config("prices"),
        )
    ),
    output=IntoTopic("orders.priced", payload=PricedOrder),
    errors=IntoTopic("orders.errors"),
)
