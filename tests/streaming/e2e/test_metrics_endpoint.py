"""What a running flow serves for Prometheus, and how its health and readiness follow what happens to it."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from loom.core.observability import ObservabilityRuntime, OtelObserver, PrometheusObserver
from loom.core.observability.settings import OtelSettings, PrometheusEndpoint, PushGatewaySettings
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner
from loom.streaming.kafka import BrokerUnavailableError, EmbeddedBroker, KafkaRecord, TopicPartition
from loom.streaming.runtime.telemetry.broker_monitor import BrokerMonitor
from loom.streaming.runtime.telemetry.catalogue import METRICS
from tests.core.otlp.scripted_collector import ScriptedCollector
from tests.streaming.e2e.test_progress import Number, positive
from tests.support.apache_kafka import free_port
from tests.support.running import all_done, config_for, produce, run_until
from tests.support.waiting import LONG_S, until

ROOT = Path(__file__).resolve().parents[3]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def flow() -> StreamFlow[Any, Any]:
    return StreamFlow("telling", FromTopic("numbers", Number), Process(positive), IntoTopic("out"), IntoTopic("errors"))


def parsed(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Served:
    """A running flow, as a scraper sees it."""

    def __init__(self, observer: PrometheusObserver, runner: StreamingRunner) -> None:
        self.observer = observer
        self.runner = runner
        self.client = httpx.Client(timeout=LONG_S)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(f"{self.observer.address}{path}", headers=headers)

    def value(self, name: str, **labels: str) -> float | None:
        wanted = {"flow": "telling", **labels}
        return parsed(self.get("/metrics").text).get((f"loom_{name}", tuple(sorted(wanted.items()))))

    def wait(self, condition: Callable[[], bool]) -> None:
        until(condition, lambda: self.get("/metrics").text + self.get("/readyz").text)


@contextmanager
def serving(
    bootstrap: str,
    endpoint: PrometheusEndpoint | None = None,
    of: StreamFlow[Any, Any] | None = None,
    tracing: OtelObserver | None = None,
    **config: Any,
) -> Iterator[Served]:
    """Run the flow in a thread while the block looks at it."""
    observer = PrometheusObserver(endpoint or PrometheusEndpoint(port=0, client_statistics_ms=100))
    settings = config_for(bootstrap, consumer={"delivery": "at_least_once"}, **config)
    observed = ObservabilityRuntime([observer] if tracing is None else [observer, tracing])
    runner = StreamingRunner.from_dict(of or flow(), settings, observability_runtime=observed)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            runner.run()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        until(lambda: observer.address is not None or failures)
        yield Served(observer, runner)
    finally:
        runner.shutdown()
        thread.join(LONG_S)
    assert not failures, failures
    assert observer.address is None, "the endpoint outlived its run"


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in ("numbers", "out", "errors"):
        broker.create_topic(topic)
    return broker.bootstrap


def test_a_scrape_tells_what_the_flow_has_done(bootstrap: str) -> None:
    now_ms = int(time.time() * 1000)
    values = (b'{"n":1}', b'{"n":2}', b'{"n":0}', b'{"n":-1}', b"x")
    produce(bootstrap, "numbers", *(KafkaRecord("numbers", None, value, timestamp_ms=now_ms) for value in values))
    with serving(bootstrap) as served:
        served.wait(lambda: served.value("lag_records", topic="numbers", partition="0") == 0)
        found = parsed(served.get("/metrics").text)
        told = {
            (name.removeprefix("loom_"), *(value for label, value in labels if label != "flow")): value
            for (name, labels), value in found.items()
        }
        assert told["source_records_total", "numbers"] == 5
        assert {outcome: told["records_total", outcome] for outcome in ("written", "dropped", "failed")} == {
            "written": 2,
            "dropped": 1,
            "failed": 2,
        }
        assert told["output_records_total", "out"] == 2
        assert told["output_records_total", "errors"] == told["dead_letters_total", "errors"] == 2
        assert told["errors_total", "wire", "telling.source"] == told["errors_total", "task", "telling.positive"] == 1
        nodes = {key[1]: value for key, value in told.items() if key[0] == "node_records_total"}
        assert nodes == {"ok": 2, "dropped": 1, "error": 1}
        assert told["durable_records_total",] == 4
        assert told["committed_offset", "0", "numbers"] == told["end_offset", "0", "numbers"] == 5
        assert told["lag_seconds", "0", "numbers"] == 0
        assert told["assigned_partitions",] == 4
        assert told["in_flight_records",] == told["buffered_records",] == 0
        assert told["source_batch_records_sum",] == 5
        assert told["node_duration_seconds_count", "telling.positive"] >= 1
        assert told["end_to_end_latency_seconds_count",] >= 2
        assert told["end_to_end_latency_seconds_sum",] < 600
        assert told["epoch_flush_seconds_count",] == told["epochs_total",] >= 1
        assert told["commit_seconds_count",] >= 1
        assert told["ready",] == told["healthy",] == 1
        assert any(name.startswith("process_") for name, _ in found)


def wait_for_bytes(served: Served, bootstrap: str) -> None:
    """Clients report their traffic inside their calls, so something has to be read and written meanwhile."""

    def reported() -> bool:
        produce(bootstrap, "numbers", b'{"n":1}')
        names = (("source_bytes_total", "numbers"), ("output_bytes_total", "out"))
        return all((served.value(name, topic=topic) or 0) > 0 for name, topic in names)

    served.wait(reported)


def test_every_metric_of_the_catalogue_is_served_with_its_labels_and_no_other_is(bootstrap: str) -> None:
    produce(bootstrap, "numbers", b'{"n":1}', b'{"n":-1}')
    with serving(bootstrap) as served:
        served.wait(lambda: served.value("lag_records", topic="numbers", partition="0") == 0)
        wait_for_bytes(served, bootstrap)
        families = {
            family.name: family
            for family in text_string_to_metric_families(served.get("/metrics").text)
            if family.name.startswith("loom_")
        }
    served_names = {name if f.type != "counter" else f"{name}_total" for name, f in families.items()}
    served_names = {
        f"{n}_info" if families.get(n) is not None and families[n].type == "info" else n for n in served_names
    }
    #: told only when it happens, and of spans where there are traces
    rare = {"loom_refused_records_total", "loom_retries_total", "loom_open_circuits", "loom_spans_lost_total"}
    assert served_names | rare == {metric.name for metric in METRICS.values()}
    for metric in METRICS.values():
        family = families.get(metric.name.removesuffix("_total"))
        if family is None:
            continue
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels), sample


def test_spans_that_a_collector_refuses_are_counted(bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    produce(bootstrap, "numbers", b'{"n":1}')
    with ScriptedCollector((400, {})).listening() as collector:
        tracing = OtelObserver(OtelSettings(endpoint=collector.endpoint, sample_ratio=1.0))
        with serving(bootstrap, tracing=tracing) as served:
            # The record and the nodes that it came to: source, step, output.
            served.wait(lambda: served.value("spans_lost_total") == 4)


def test_the_config_alone_starts_the_endpoint_before_the_brokers_are_checked_and_ends_it_with_the_run(
    bootstrap: str,
) -> None:
    produce(bootstrap, "numbers", b'{"n":1}')
    section = {
        "prometheus": {"enabled": True, "config": {"port": 0}},
        "otel": {"endpoint": "http://127.0.0.1:1", "sample_ratio": 1.0},
    }
    config = config_for(bootstrap, consumer={"delivery": "at_least_once"}, observability=section)
    with capture_logs() as lines:
        run_until(StreamingRunner.from_dict(flow(), config), all_done(1))
    events = [line["event"] for line in lines]
    assert events.index("metrics_server_started") < events.index("broker_check_started")
    (started,) = [line for line in lines if line["event"] == "metrics_server_started"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(started["url"])


def test_open_metrics_is_served_to_who_asks_for_it(bootstrap: str) -> None:
    with serving(bootstrap) as served:
        answer = served.get("/metrics", accept="application/openmetrics-text; version=1.0.0")
        assert "application/openmetrics-text" in answer.headers["content-type"]
        assert answer.text.endswith("# EOF\n")
        assert served.get("/nothing").status_code == 404


def test_a_flow_is_healthy_at_once_and_ready_when_it_knows_its_positions(bootstrap: str) -> None:
    with serving(bootstrap) as served:
        assert served.get("/healthz").status_code == 200
        served.wait(lambda: served.get("/readyz").status_code == 200)
        checks = {check["name"]: check["ok"] for check in served.get("/readyz").json()["checks"]}
        assert checks == {"running": True, "assignment": True, "positions": True, "brokers": True}


def test_a_broker_that_is_away_is_visible_as_not_ready_and_in_the_metrics(bootstrap: str) -> None:
    with EmbeddedBroker() as broker:
        for topic in ("numbers", "out", "errors"):
            broker.create_topic(topic)
        with serving(broker.bootstrap) as served:
            served.wait(lambda: served.get("/readyz").status_code == 200)
            assert served.value("broker_reachable", brokers=broker.bootstrap) == 1
            broker.close()
            served.wait(lambda: served.value("broker_reachable", brokers=broker.bootstrap) == 0)
            answer = served.get("/readyz")
            assert answer.status_code == 503
            (missing,) = [check for check in answer.json()["checks"] if not check["ok"]]
            assert missing["name"] == "brokers"
            assert broker.bootstrap in missing["detail"]
            assert served.value("ready") == 0
            assert served.get("/healthz").status_code == 200


class Ends:
    def __init__(self) -> None:
        self.away = False

    def fetch(self, partitions: Any, timeout_s: float) -> dict[TopicPartition, int]:
        if self.away:
            raise BrokerUnavailableError("nobody answers")
        return {TopicPartition("numbers", 0): 7}


def test_the_return_of_a_broker_is_seen_and_what_was_known_is_kept_meanwhile() -> None:
    ends = Ends()
    monitor = BrokerMonitor(lambda: ends, list)
    assert monitor.reachable is None
    states = []
    for ends.away in (False, True, False):
        monitor.ask(ends)
        states.append((monitor.reachable, monitor.reason, dict(monitor.ends)))
    known = {TopicPartition("numbers", 0): 7}
    assert states == [(True, "", known), (False, "nobody answers", known), (True, "", known)]


def test_a_second_process_serves_beside_the_first(bootstrap: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with serving(bootstrap, PrometheusEndpoint(port=port)) as served:
            assert served.get("/healthz").status_code == 200
            assert not str(served.observer.address).endswith(f":{port}")
    assert "metrics_port_taken" in capsys.readouterr().err


def test_processes_of_one_machine_count_their_ports_up(bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("LOOM_PROCESS_ID", "1")
    monkeypatch.setenv("LOOM_PROCESSES", "2")
    with serving(bootstrap, PrometheusEndpoint(port=port - 1)) as served:
        assert served.observer.address == f"http://127.0.0.1:{port}"


def test_a_scraper_that_never_ends_its_request_holds_up_nothing(bootstrap: str) -> None:
    produce(bootstrap, "numbers", b'{"n":1}')
    with serving(bootstrap) as served:
        host, port = str(served.observer.address).removeprefix("http://").split(":")
        stuck = [socket.create_connection((host, int(port))) for _ in range(20)]
        try:
            for connection in stuck:
                connection.sendall(b"GET /metrics HTTP/1.1\r\n")
            metrics = served.runner.metrics
            assert metrics is not None
            until(lambda: metrics.read().durable == 1)
        finally:
            for connection in stuck:
                connection.close()


def test_metrics_are_pushed_to_a_gateway_and_once_more_at_the_end(bootstrap: str) -> None:
    pushed: list[tuple[str, str]] = []

    class Gateway(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            pushed.append((self.path, self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    gateway = HTTPServer(("127.0.0.1", 0), Gateway)
    thread = threading.Thread(target=gateway.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        settings = PushGatewaySettings(
            f"http://127.0.0.1:{gateway.server_port}",
            job="nightly",
            grouping={"instance": "one"},
            interval_ms=3_600_000,
        )
        produce(bootstrap, "numbers", b'{"n":1}')
        with serving(bootstrap, PrometheusEndpoint(port=0, push_gateway=settings)) as served:
            served.wait(lambda: served.value("durable_records_total") == 1)
    finally:
        gateway.shutdown()
        thread.join(LONG_S)
        gateway.server_close()
    ((path, text),) = pushed
    assert path == "/metrics/job/nightly/instance/one"
    assert 'loom_durable_records_total{flow="telling"} 1.0' in text


def test_the_page_lists_every_metric_and_no_other() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    table = page.partition("<!-- metrics: begin -->")[2].partition("<!-- metrics: end -->")[0]
    listed = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", table, re.MULTILINE)
    shown = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in listed}
    assert shown == {m.name: (m.kind.value, m.labels[1:]) for m in METRICS.values()}
