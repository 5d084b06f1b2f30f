"""A scope whose service is down, on a broker: the source pauses and says so, nothing is lost, and it goes on by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from loom.core.model import LoomFrozenStruct
from loom.core.observability import ObservabilityRuntime, PrometheusObserver
from loom.core.observability.settings import PrometheusEndpoint
from loom.streaming import (
    CircuitBreaker,
    ContextFactory,
    FromTopic,
    IntoTopic,
    Process,
    StreamFlow,
    StreamingRunner,
    WithAsync,
    step,
)
from loom.streaming.kafka import EmbeddedBroker
from tests.support.kafka_io import read_all
from tests.support.running import config_for, produce

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


def wait(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_while_the_service_is_down_the_source_pauses_and_afterwards_every_record_is_written(
    broker: EmbeddedBroker,
) -> None:
    for topic in ("numbers", "out", "errors"):
        broker.create_topic(topic)
    service = Service()
    service.up.set()

    @step
    async def call(number: Number, client: httpx.AsyncClient) -> Number:
        (await client.get("/")).raise_for_status()
        return number

    scope = WithAsync(
        process=Process(call),
        max_concurrency=4,
        circuit_breaker=CircuitBreaker(failures=3, open_ms=60),
        client=ContextFactory(lambda: httpx.AsyncClient(base_url=service.url)),
    )
    flow = StreamFlow("guarded", FromTopic("numbers", Number), Process(scope), IntoTopic("out"), IntoTopic("errors"))
    # Longer than the watchdog waits, the service is down.
    config = config_for(broker.bootstrap, consumer={"delivery": "at_least_once"})
    config["streaming"]["supervision"] = {"stall_timeout_ms": 700}
    observer = PrometheusObserver(PrometheusEndpoint(port=0))
    runner = StreamingRunner.from_dict(flow, config, observability_runtime=ObservabilityRuntime([observer]))
    failures: list[BaseException] = []

    def run() -> None:
        try:
            runner.run()
        except BaseException as failure:
            failures.append(failure)

    def counts() -> Any:
        assert not failures, failures
        assert runner.metrics is not None
        return runner.metrics.read()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        produce(broker.bootstrap, "numbers", *(b'{"n":%d}' % n for n in range(50)))
        wait(lambda: runner.metrics is not None and counts().written == 50)
        service.up.clear()
        produce(broker.bootstrap, "numbers", *(b'{"n":%d}' % n for n in range(50, COUNT)))
        wait(lambda: counts().open_circuits == {"guarded.with_async": 1})
        answer = httpx.get(f"{observer.address}/readyz")
        assert answer.status_code == 503
        assert "guarded.with_async" in answer.text
        requests = service.requests
        # So many probes take longer than the watchdog waits; each lets one record in at most.
        wait(lambda: service.requests >= requests + 15)
        assert counts().read < 50 + 24 + 20
        assert counts().failed == {}
        service.up.set()
        wait(lambda: counts().durable >= COUNT)
        assert httpx.get(f"{observer.address}/readyz").status_code == 200
    finally:
        runner.shutdown()
        thread.join(30)
        service.close()
    assert not failures, failures
    written = [int(str(record.value).strip("b'{}").partition(":")[2]) for record in read_all(broker.bootstrap, "out")]
    assert sorted(written) == list(range(COUNT))
    assert read_all(broker.bootstrap, "errors") == []
