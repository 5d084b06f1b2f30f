"""The client of the price service: one connection pool and one cache for each worker, opened and closed by the flow's scope."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import monotonic

import httpx

from loom.core.errors import NotFound
from loom.streaming import ContextFactory, RetryAfter

__all__ = ["PriceClient", "Prices"]


class Prices:
    """Asks the service for prices, and remembers them for a while."""

    def __init__(self, http: httpx.AsyncClient, cache_s: float) -> None:
        self._http = http
        self._cache_s = cache_s
        #: by article, its price in cents and until when that is good
        self._known: dict[str, tuple[int, float]] = {}

    async def price_of(self, sku: str, *, idempotency_key: str) -> int:
        """The price of an article in cents.

        Raises `NotFound` for an article that the service does not know, which makes the order a business error, and `RetryAfter`
        when the service asks for a pause. What httpx raises (no connection, a time limit, a status of 500) is worth another
        attempt, and a task error when none is left.
        """
        price, good_until = self._known.get(sku, (0, 0.0))
        if monotonic() < good_until:
            return price
        # The key is the same each time this record is processed, so the service can tell a repeated request.
        answer = await self._http.get(f"/prices/{sku}", headers={"Idempotency-Key": idempotency_key})
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise NotFound(f"no article {sku!r}")
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise RetryAfter(float(answer.headers.get("Retry-After", 1)), "the price service asks for a pause")
        answer.raise_for_status()
        price = int(answer.json()["cents"])
        self._known[sku] = (price, monotonic() + self._cache_s)
        return price


class PriceClient(ContextFactory):
    """Makes a client for each worker; its arguments come from a section of the config."""

    def __init__(self, url: str, timeout_ms: int = 2_000, cache_ms: int = 60_000) -> None:
        self._url = url
        self._timeout_s = timeout_ms / 1000
        self._cache_s = cache_ms / 1000

    def create(self) -> AbstractAsyncContextManager[Prices]:
        """A context that opens the connection pool and closes it."""
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Prices]:
        async with httpx.AsyncClient(base_url=self._url, timeout=self._timeout_s) as http:
            yield Prices(http, self._cache_s)
