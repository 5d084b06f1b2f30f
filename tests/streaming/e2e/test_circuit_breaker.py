"""A scope whose service is down, on a broker: the source pauses and says so, nothing is lost, and it goes on by itself.

With retries and no breaker what is read meanwhile goes to the dead letters, and the books balance.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from loom.core.model import LoomFrozenStruct
from loom.core.observability import ObservabilityRuntime, PrometheusObserver
from loom.core.observability.settings import PrometheusEndpoint
from loom.streaming import (
    CircuitBreaker,
    ContextFactory,
    ErrorKind,
    FromTopic,
    IntoTopic,
    Process,
    Retry,
    StreamFlow,
    StreamingRunner,
    WithAsync,
    step,
)
from loom.streaming.kafka import EmbeddedBroker
from loom.streaming.metrics import FlowCounts
from tests.support.kafka_io import read_all
from tests.support.one_way import running
from tests.support.running import config_for, produce
from tests.support.waiting import LONG_S, until

COUNT = 400


class Number(LoomFrozenStruct):
    n: int


class Service:
    """An HTTP service that can be down: it closes every connection."""

    def __init__(self) -> None:
        self.up = threading.Event()
        self.requests = 0
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.requests += 1
                if service.up.is_set():
                    self.send_response(204)
                    self.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@step
async def call(number: Number, client: httpx.AsyncClient) -> Number:
    (await client.get("/")).raise_for_status()
    return number


class Outage:
    """A flow whose scope calls a service, on a broker; a service that goes down and comes back."""

    def __init__(self, broker: EmbeddedBroker, service: Service, **policies: Any) -> None:
        for topic in ("numbers", "out", "errors"):
            broker.create_topic(topic)
        self.bootstrap = broker.bootstrap
        client = ContextFactory(lambda: httpx.AsyncClient(base_url=service.url, timeout=LONG_S))
        scope = WithAsync(process=Process(call), max_concurrency=4, client=client, **policies)
        flow = StreamFlow(
            "guarded", FromTopic("numbers", Number), Process(scope), IntoTopic("out"), IntoTopic("errors")
        )
        config = config_for(broker.bootstrap, consumer={"delivery": "at_least_once"})
        config["streaming"]["supervision"] = {"stall_timeout_ms": 3_000}
        self.observer = PrometheusObserver(PrometheusEndpoint(port=0))
        self.runner = StreamingRunner.from_dict(
            flow, config, observability_runtime=ObservabilityRuntime([self.observer])
        )

    def produce(self, first: int, behind: int) -> None:
        produce(self.bootstrap, "numbers", *(b'{"n":%d}' % n for n in range(first, behind)))

    def counts(self) -> FlowCounts:
        until(lambda: self.runner.metrics is not None)
        assert self.runner.metrics is not None
        return self.runner.metrics.read()

    def readiness(self) -> httpx.Response:
        return httpx.get(f"{self.observer.address}/readyz", timeout=LONG_S)

    def lag(self) -> float:
        told = httpx.get(f"{self.observer.address}/metrics", timeout=LONG_S).text
        return sum(float(n) for n in re.findall(r"^loom_lag_records\{.*\} (\S+)$", told, re.MULTILINE))

    def numbers_in(self, topic: str) -> list[int]:
        return sorted(int(re.findall(rb'"n":(\d+)', r.value or b"")[0]) for r in read_all(self.bootstrap, topic))


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    made.up.set()
    yield made
    made.close()


def test_while_the_service_is_down_the_source_pauses_and_afterwards_every_record_is_written(
    broker: EmbeddedBroker, service: Service
) -> None:
    outage = Outage(broker, service, circuit_breaker=CircuitBreaker(failures=3, open_ms=60))
    with running(outage.runner) as raised:
        outage.produce(0, 50)
        until(lambda: outage.counts().written == 50)
        service.up.clear()
        requests = service.requests
        outage.produce(50, COUNT)
        until(lambda: outage.counts().open_circuits == {"guarded.with_async": 1})
        answer = outage.readiness()
        assert answer.status_code == 503
        assert "guarded.with_async" in answer.text
        # So many probes take longer than the watchdog waits; each lets one record in at most.
        until(lambda: service.requests >= requests + 60)
        read, lag = outage.counts().read, outage.lag()
        most = 50 + 24 + service.requests - requests
        assert most < COUNT
        assert read <= most
        assert lag >= COUNT - most
        assert outage.counts().failed == {}
        service.up.set()
        until(lambda: outage.counts().durable >= COUNT)
        assert outage.readiness().status_code == 200
    assert raised == []
    assert outage.numbers_in("out") == list(range(COUNT))
    assert outage.numbers_in("errors") == []


def test_with_retries_alone_every_record_of_an_outage_ends_in_one_place(
    broker: EmbeddedBroker, service: Service
) -> None:
    policy = Retry(3, wait_initial_ms=5, wait_max_ms=10, wait_jitter_ms=0, on=(httpx.HTTPError,))
    outage = Outage(broker, service, retry=policy)
    with running(outage.runner) as raised:
        outage.produce(0, 50)
        until(lambda: outage.counts().written == 50)
        service.up.clear()
        outage.produce(50, COUNT)
        until(lambda: outage.counts().failed.get(ErrorKind.TASK, 0) >= 100)
        service.up.set()
        until(lambda: outage.counts().durable >= COUNT)
    assert raised == []
    written, failed = outage.numbers_in("out"), outage.numbers_in("errors")
    assert sorted([*written, *failed]) == list(range(COUNT))
    assert len(failed) >= 100
    letters = read_all(outage.bootstrap, "errors")
    assert {dict(letter.headers)["x-error-attempts"] for letter in letters} == {b"3"}
