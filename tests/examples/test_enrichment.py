"""The enrichment flow against a real HTTP server on loopback that is slow, fails, hangs and closes connections."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import yaml

import loom.examples.enrichment
from loom.examples.enrichment.client import Prices
from loom.examples.enrichment.flow import Order, flow
from loom.streaming import ErrorKind
from loom.streaming.testing import StreamingTestRunner

CONFIG = Path(loom.examples.enrichment.__file__).with_name("config.yaml")


class Shop:
    """A price service: what an article is called says how it is answered."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.at_once = self.most_at_once = 0
        self.closing = threading.Event()
        self._lock = threading.Lock()
        shop = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                shop.answer(self, self.path.rpartition("/")[2])

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler, sku: str) -> None:
        with self._lock:
            self.asked.append((sku, request.headers.get("Idempotency-Key")))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.closing.wait({"slow": 0.05, "hangs": 30.0}.get(sku.partition("-")[0], 0.005))
        with self._lock:
            self.at_once -= 1
        if sku == "closes":
            request.close_connection = True
            return
        status = {"unknown": 404, "fails": 503}.get(sku, 200)
        if sku == "busy" and sum(asked == sku for asked, _ in self.asked) < 3:
            status = 429
        body = json.dumps({"cents": len(sku)}).encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("Retry-After", "20")
        request.end_headers()
        request.wfile.write(body)

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def shop() -> Iterator[Shop]:
    service = Shop()
    yield service
    service.close()


def priced(shop: Shop, *skus: str, **settings: Any) -> StreamingTestRunner:
    config = yaml.safe_load(CONFIG.read_text())
    config["prices"] = {**config["prices"], "url": shop.url, **settings}
    runner = StreamingTestRunner.from_dict(flow, config)
    return runner.with_payloads([Order(n, sku, 2) for n, sku in enumerate(skus)]).run()


def test_orders_are_priced_in_their_order_and_many_at_once(shop: Shop) -> None:
    skus = [f"slow-{n}" if n % 3 == 0 else f"a{n}" for n in range(30)]
    runner = priced(shop, *skus, timeout_ms=60_000)  # however busy the machine is
    assert [message.payload.id for message in runner.output] == list(range(30))
    assert runner.output[1].payload.cents == 2 * len("a1")
    assert shop.most_at_once > 5
    assert {key for _, key in shop.asked} == {f"test-{n}" for n in range(30)}


def test_each_failure_is_a_dead_letter_of_its_order_and_the_others_go_on(shop: Shop) -> None:
    runner = priced(shop, "a", "unknown", "fails", "closes", "hangs", "b", timeout_ms=500)
    assert [message.payload.id for message in runner.output] == [0, 5]
    (unknown,) = runner.errors[ErrorKind.BUSINESS]
    assert unknown.reason == "no article 'unknown'"
    failed = [
        (e.original_message.payload.sku, e.error_type, e.attempts)
        for e in runner.errors[ErrorKind.TASK]
        if e.original_message
    ]
    assert failed == [
        ("fails", "httpx.HTTPStatusError", 4),
        ("closes", "httpx.RemoteProtocolError", 4),
        ("hangs", "httpx.ReadTimeout", 4),
    ]
    assert [json.loads(record.value or b"")["id"] for record in runner.written("orders.errors")] == [1, 2, 3, 4]


def test_an_order_waits_for_as_long_as_the_service_asks_and_keeps_its_place(shop: Shop) -> None:
    runner = priced(shop, "a", "busy", "b")
    assert [message.payload.id for message in runner.output] == [0, 1, 2]
    assert [sku for sku, _ in shop.asked].count("busy") == 3
    # The same key each time.
    assert {key for sku, key in shop.asked if sku == "busy"} == {"test-1"}


def test_a_price_is_asked_for_once_while_it_is_good() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json={"cents": 7})

    async def ask() -> list[int]:
        async with httpx.AsyncClient(base_url="http://shop", transport=httpx.MockTransport(answer)) as http:
            prices = Prices(http, cache_s=60)
            forgetful = Prices(http, cache_s=0)
            return [
                await client.price_of("a", idempotency_key="k") for client in (prices, prices, forgetful, forgetful)
            ]

    assert anyio.run(ask) == [7, 7, 7, 7]
    assert asked == ["/prices/a"] * 3
