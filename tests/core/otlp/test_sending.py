"""Spans reach a collector as its variables say, are sent again where that helps, and are counted where they are lost."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from loom.core.observability import OtelObserver
from loom.core.observability.otlp import delivery
from loom.core.observability.settings import OtelSettings
from loom.core.observability.spans import FinishedSpan, SpanRole, SpanShape
from loom.core.tracing import new_place
from tests.core.otlp.scripted_collector import ScriptedCollector
from tests.support.waiting import LONG_S

SHAPE = SpanShape("told", SpanRole.INTERNAL, {}, inside={"step": SpanShape("step", SpanRole.INTERNAL, {})})
CERTIFICATE = Path(__file__).parents[2] / "data" / "localhost.pem"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_FIRST_WAIT", 0.01)
    for name in [name for name in os.environ if name.startswith("OTEL_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", f"{LONG_S * 1_000:.0f}")


@pytest.fixture
def collector() -> Iterator[ScriptedCollector]:
    with ScriptedCollector().listening() as listening:
        yield listening


def span(name: str = "told") -> FinishedSpan:
    shape = SHAPE if name == "told" else SpanShape(name, SpanRole.INTERNAL, {})
    return FinishedSpan(shape, new_place(), 1, 2)


def sent(collector: ScriptedCollector, *spans: FinishedSpan, **settings: Any) -> OtelObserver:
    """An observer that has sent these spans, or tried to."""
    observer = OtelObserver(OtelSettings(**{"endpoint": collector.endpoint, **settings}))
    for each in spans:
        observer.add(each)
    assert collector.came.acquire(timeout=LONG_S)
    observer.close()
    return observer


def sent_one_by_one(collector: ScriptedCollector, *names: str) -> OtelObserver:
    """An observer that has sent a span of each name in a request of its own."""
    observer = OtelObserver(OtelSettings(endpoint=collector.endpoint))
    for name in names:
        observer.add(span(name))
        assert collector.came.acquire(timeout=LONG_S)
    observer.close()
    return observer


def test_one_connection_carries_all_requests(collector: ScriptedCollector) -> None:
    sent_one_by_one(collector, "a", "b", "c")
    assert collector.names == ["a", "b", "c"]
    assert len(collector.connections) == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_a_collector_cannot_take_now_is_sent_again(status: int) -> None:
    with ScriptedCollector((status, {}), (status, {"Retry-After": "0"})).listening() as collector:
        observer = OtelObserver(OtelSettings(endpoint=collector.endpoint))
        observer.add(span())
        for _ in range(3):
            assert collector.came.acquire(timeout=LONG_S)
        observer.close()
    assert collector.names == ["told"] * 3
    assert observer.lost == 0


def test_what_a_collector_refuses_is_lost_and_said_once() -> None:
    with ScriptedCollector((400, {}), (413, {})).listening() as collector, capture_logs() as lines:
        observer = sent_one_by_one(collector, "a", "b", "c")
    assert collector.names == ["a", "b", "c"]
    assert observer.lost == 2
    assert [(line["event"], line.get("reason"), line.get("lost")) for line in lines] == [
        ("spans_lost", "HTTP 400", None),
        ("spans_sent_again", None, 2),
    ]


def test_it_gives_up_after_some_attempts() -> None:
    with ScriptedCollector(*[(503, {})] * 9).listening() as collector:
        observer = OtelObserver(OtelSettings(endpoint=collector.endpoint))
        observer.add(span())
        for _ in range(6):
            assert collector.came.acquire(timeout=LONG_S)
        observer.close()
    assert (len(collector.requests), observer.lost) == (6, 1)


def test_it_does_not_wait_for_longer_than_is_worth_it() -> None:
    with ScriptedCollector((503, {"Retry-After": "3600"})).listening() as collector:
        observer = sent(collector, span())
    assert (len(collector.requests), observer.lost) == (1, 1)


def test_a_connection_that_was_closed_meanwhile_is_opened_again() -> None:
    with ScriptedCollector((200, {"Connection": "close"})).listening() as collector:
        observer = OtelObserver(OtelSettings(endpoint=collector.endpoint))
        for name in ("a", "b"):
            observer.add(span(name))
            assert collector.came.acquire(timeout=LONG_S)
        observer.close()
    assert (collector.names, observer.lost) == (["a", "b"], 0)


def test_too_many_that_wait_are_counted_with_what_is_inside(
    collector: ScriptedCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "2")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    collector.go.clear()
    observer = OtelObserver(OtelSettings(endpoint=collector.endpoint))
    observer.add(span())
    assert collector.came.acquire(timeout=LONG_S)  # the thread waits for the answer
    with capture_logs() as lines:
        for _ in range(3):
            observer.add(FinishedSpan(SHAPE, new_place(), 1, 4, path=("step", "step"), times=[2, 3]))
        collector.go.set()
        assert collector.came.acquire(timeout=LONG_S)
        observer.close()
    assert observer.lost == 3
    assert collector.names == ["told", *["told", "step", "step"] * 2]
    assert [line["event"] for line in lines if line["event"] == "spans_lost"] == ["spans_lost"]


def test_many_spans_are_several_requests(collector: ScriptedCollector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
    observer = sent(collector, *(span() for _ in range(95)))
    assert len(collector.names) == 95
    assert len(collector.requests) >= 10
    assert observer.lost == 0


def test_a_request_that_the_system_takes_in_parts_arrives_whole(collector: ScriptedCollector) -> None:
    names = [letter * 3_000_000 for letter in "abc"]
    sent(collector, *map(span, names))
    assert sorted(collector.names) == names


def test_a_request_of_more_pieces_than_the_system_takes_arrives_whole(collector: ScriptedCollector) -> None:
    collector.go.clear()
    observer = OtelObserver(OtelSettings(endpoint=collector.endpoint))
    observer.add(span("first"))
    assert collector.came.acquire(timeout=LONG_S)
    for number in range(2_000):
        observer.add(span(f"{number}"))
    collector.go.set()
    observer.close()
    assert sorted(collector.names) == sorted(["first", *map(str, range(2_000))])
    assert (
        max(len(list(scope.spans)) for one in collector.requests for scope in one.resource_spans[0].scope_spans) > 1_024
    )


def test_what_comes_after_a_close_is_sent_too(collector: ScriptedCollector) -> None:
    observer = sent(collector, span("a"))
    observer.add(span("b"))
    observer.close()
    observer.close()
    assert collector.names == ["a", "b"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
def test_a_forked_process_sends_its_own_spans_alone(collector: ScriptedCollector) -> None:
    collector.go.clear()
    observer = OtelObserver(OtelSettings(endpoint=collector.endpoint))
    observer.add(span("a"))
    assert collector.came.acquire(timeout=LONG_S)
    observer.add(span("of the parent"))
    if (child := os.fork()) == 0:
        observer.add(span("of the child"))
        observer.close()
        os._exit(observer.lost)
    assert collector.came.acquire(timeout=LONG_S)
    collector.go.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    observer.close()
    assert sorted(collector.names) == ["a", "of the child", "of the parent"]


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_bodies_are_compressed_where_a_variable_says_so(
    collector: ScriptedCollector, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
    sent(collector, span())
    assert collector.names == ["told"]
    assert collector.headers[0]["content-encoding"] == compression


def test_headers_are_those_of_the_environment_and_of_the_configuration(
    collector: ScriptedCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s%20p, X-Tenant = 7,nothing")
    sent(collector, span(), headers={"x-tenant": "8"})
    (headers,) = collector.headers
    assert (headers["api-key"], headers["x-tenant"]) == ("s p", "8")
    assert headers["content-type"] == "application/x-protobuf"


@pytest.mark.parametrize(
    ("environment", "configured", "path"),
    [
        ({}, "{}", "/v1/traces"),
        ({}, "{}/v1/traces", "/v1/traces"),
        ({}, "{}/base/", "/base/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "{}/all"}, None, "/all/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "{}/just/here?a=b"}, None, "/just/here?a=b"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, "{}", "/v1/traces"),
        ({"HTTP_PROXY": "{}"}, "http://collector.invalid:4318", "http://collector.invalid:4318/v1/traces"),
    ],
)
def test_where_spans_are_sent(
    collector: ScriptedCollector,
    monkeypatch: pytest.MonkeyPatch,
    environment: Mapping[str, str],
    configured: str | None,
    path: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(collector.endpoint))
    sent(collector, span(), endpoint=configured and configured.format(collector.endpoint))
    assert collector.paths == [path]


def test_https_trusts_the_authority_that_a_variable_names(monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    context.load_verify_locations(CERTIFICATE)
    context.verify_mode = ssl.CERT_REQUIRED
    with ScriptedCollector(context=context).listening() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(CERTIFICATE))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(CERTIFICATE))
        sent(collector, span())
        assert collector.names == ["told"]
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_CERTIFICATE")
        distrustful = OtelObserver(OtelSettings(endpoint=collector.endpoint))
        distrustful.add(span())
        distrustful.close()
        assert distrustful.lost == 1


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://collector", "http://", "http://collector:port"])
def test_an_address_that_is_none_is_said(endpoint: str) -> None:
    observer = OtelObserver(OtelSettings(endpoint=endpoint))
    with capture_logs() as lines:
        observer.add(span())
        observer.close()
    (line,) = lines
    assert (line["event"], observer.lost) == ("spans_lost", 1)
    assert "http://HOST:PORT" in line["reason"]


def test_variables_that_say_nothing_sensible_are_ignored_and_said(
    collector: ScriptedCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EXPORTER_OTLP_TIMEOUT", "EXPORTER_OTLP_COMPRESSION", "BSP_SCHEDULE_DELAY"):
        monkeypatch.setenv(f"OTEL_{name}", "much")
    with capture_logs() as lines:
        sent(collector, span())
    assert collector.names == ["told"]
    assert {line["variable"] for line in lines if line["event"] == "otel_variable_ignored"} == {
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "OTEL_EXPORTER_OTLP_COMPRESSION",
        "OTEL_BSP_SCHEDULE_DELAY",
    }


def test_nothing_is_traced_where_the_sdk_is_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert OtelObserver().tracing is None
