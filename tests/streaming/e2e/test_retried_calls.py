"""Steps that call a real HTTP server on loopback which is down, fails, closes connections and answers 429: the books balance.

The server's faults are counted in requests and time is the test kit's, so nothing here waits.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import httpx
import pytest

from loom.core.errors import NotFound
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    ErrorKind,
    ErrorRoute,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RecordStep,
    Retry,
    RetryAfter,
    StreamFlow,
    StreamingRunner,
    step,
)
from loom.streaming.kafka import EmbeddedBroker
from loom.streaming.testing import StreamingTestRunner
from tests.support.running import all_done, config_for, produce, run_until
from tests.support.waiting import LONG_S


class Order(LoomFrozenStruct):
    id: int


class Priced(LoomFrozenStruct):
    id: int
    price: int


class Prices:
    """An HTTP service of prices. `faults` says for an id how its first requests end; any other request is answered."""

    def __init__(self) -> None:
        self.faults: dict[int, list[str]] = {}
        #: so many requests from now on find nobody
        self.down_for = 0
        self.requests: list[int] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            silent: ClassVar[bool] = True

            def do_GET(self) -> None:
                service.answer(self, int(self.path.removeprefix("/")))

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler, n: int) -> None:
        self.requests.append(n)
        fault = "down" if len(self.requests) <= self.down_for else None
        if fault is None and self.faults.get(n):
            fault = self.faults[n].pop(0)
        match fault:
            case "down" | "closes":
                request.close_connection = True
                return
            case "busy":
                request.send_response(429)
                request.send_header("Retry-After", "7")
                body = b""
            case "unknown":
                request.send_response(404)
                body = b""
            case "fails":
                request.send_response(503)
                body = b""
            case _:
                request.send_response(200)
                body = str(n * 100).encode()
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def prices() -> Iterator[Prices]:
    service = Prices()
    yield service
    service.close()


class Price(RecordStep[Order, Priced]):
    """What an author would write."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=LONG_S)

    def execute(self, message: Message[Order]) -> Priced:
        order = message.payload
        answer = self._client.get(f"/{order.id}")
        if answer.status_code == 404:
            raise NotFound(f"no price for {order.id}")
        if answer.status_code == 429:
            raise RetryAfter(float(answer.headers["Retry-After"]), "429 Too Many Requests")
        answer.raise_for_status()
        return Priced(order.id, int(answer.text))


def run(prices: Prices, ids: range, policy: Retry, *, batch_size: int = 10) -> StreamingTestRunner:
    flow = StreamFlow(
        "pricing",
        FromTopic("orders", Order),
        Process(Price(prices.url).with_retry(policy)),
        IntoTopic("priced"),
        [ErrorRoute(ErrorKind.TASK, IntoTopic("failed")), ErrorRoute(ErrorKind.BUSINESS, IntoTopic("refused"))],
    )
    runner = StreamingTestRunner.from_flow(flow).with_batch_size(batch_size)
    return runner.with_payloads(Order(n) for n in ids).run()


HTTP = Retry(4, wait_max_ms=60_000, on=(httpx.HTTPError,))


def test_a_service_with_every_kind_of_trouble_answers_in_the_end(prices: Prices) -> None:
    prices.faults = {
        3: ["closes"],
        5: ["fails", "closes"],
        8: ["busy"],
        11: ["unknown"],
        12: ["fails", "busy", "closes"],
        15: ["fails"] * 4,
    }
    runner = run(prices, range(20), HTTP)
    assert [(m.payload.id, m.payload.price) for m in runner.output] == [
        (n, n * 100) for n in range(20) if n not in (11, 15)
    ]
    (task,), (business,) = runner.errors[ErrorKind.TASK], runner.errors[ErrorKind.BUSINESS]
    assert (task.original_message.payload.id, task.attempts) == (15, 4)  # type: ignore[union-attr]
    assert (business.reason, business.attempts) == ("no price for 11", 1)
    assert Counter(prices.requests) == {n: {3: 2, 5: 3, 8: 2, 12: 4, 15: 4}.get(n, 1) for n in range(20)}
    counts = runner.counts
    assert (counts.read, counts.written, counts.failed) == (20, 18, {ErrorKind.TASK: 1, ErrorKind.BUSINESS: 1})
    assert counts.retries == {"pricing.price": 10}


def test_a_service_that_is_down_for_a_while_costs_no_record(prices: Prices) -> None:
    prices.down_for = 40
    runner = run(prices, range(24), Retry(6, on=(httpx.HTTPError,)))
    assert [m.payload.id for m in runner.output] == list(range(24))
    assert len(prices.requests) == 64


def test_a_service_that_stays_down_makes_every_record_an_error_and_loses_none(prices: Prices) -> None:
    prices.down_for = 10_000
    runner = run(prices, range(40), Retry(3, on=(httpx.HTTPError,)))
    failed = runner.errors[ErrorKind.TASK]
    assert [envelope.original_message.payload.id for envelope in failed] == list(range(40))  # type: ignore[union-attr]
    assert {envelope.attempts for envelope in failed} == {3}
    counts = runner.counts
    assert (counts.read, counts.accounted, counts.written, len(runner.output)) == (40, 40, 0, 0)


def test_a_service_that_asks_for_time_is_given_it(prices: Prices) -> None:
    prices.faults = {0: ["busy", "busy"]}
    runner = run(prices, range(1), HTTP)
    assert runner._clock.now == pytest.approx(14.0)
    assert [m.payload.id for m in runner.output] == [0]


def test_the_watchdog_leaves_a_record_alone_that_waits_for_its_next_call(broker: EmbeddedBroker) -> None:
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    produce(broker.bootstrap, "numbers", *(b'{"id":%d}' % n for n in range(3)))
    calls: Counter[int] = Counter()

    @step(retry=Retry(3, wait_initial_ms=3_500, wait_max_ms=3_500))
    def ask(order: Order) -> Order:
        calls[order.id] += 1
        if order.id == 0 and calls[0] < 3:
            raise ConnectionError("down")
        return order

    flow = StreamFlow("patient", FromTopic("numbers", Order), Process(ask), IntoTopic("out"), unrouted="drop")
    config = config_for(broker.bootstrap, consumer={"delivery": "at_least_once"})
    config["streaming"]["supervision"] = {"stall_timeout_ms": 3_000}
    counts = run_until(StreamingRunner.from_dict(flow, config), all_done(3))
    assert (counts.written, counts.retries, calls[0]) == (3, {"patient.ask": 2}, 3)
