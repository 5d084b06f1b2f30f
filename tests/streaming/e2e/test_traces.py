"""Spans of records, as a collector receives them by OTLP over HTTP, and the trace that goes on with their results."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.trace import SpanContext, TraceFlags, get_current_span

from loom.core.log_context import current_log_context
from loom.core.observability import ObservabilityRuntime, OtelObserver
from loom.core.observability.settings import OtelSettings
from loom.streaming import (
    BatchStep,
    CollectBatch,
    ForEach,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    StreamFlow,
    StreamingRunner,
    step,
)
from loom.streaming.kafka import EmbeddedBroker, Headers, KafkaRecord
from tests.streaming.e2e.test_progress import Number
from tests.support.running import all_done, config_for, content, produce, run_until
from tests.support.waiting import LONG_S

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{SPAN}-01".encode(), f"00-{TRACE}-{SPAN}-00".encode()
SEEN: list[Any] = []


@step
def twice(number: Number) -> Number:
    SEEN.append(dict(current_log_context()))
    if number.n < 0:
        raise ValueError("negative")
    return Number(2 * number.n)


@step
def plus_one(number: Number) -> Number:
    return Number(number.n + 1)


class Together(BatchStep[Number, Number]):
    def execute(self, messages: list[Message[Number]]) -> list[Number]:
        return [message.payload for message in messages]


class Collector:
    """Takes what an exporter sends, and parses it."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.paths: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.paths.add(self.path)
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def records(self) -> list[Span]:
        return [span for span in self.spans if span.kind == Span.SPAN_KIND_CONSUMER]

    def below(self, span: Span) -> list[Span]:
        found = [other for other in self.spans if other.parent_span_id == span.span_id]
        return sorted(found, key=lambda other: other.start_time_unix_nano)

    @contextmanager
    def listening(self) -> Iterator[Collector]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._thread.join(LONG_S)
            self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector().listening() as listening:
        yield listening


def attributes(span: Span) -> dict[str, Any]:
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in span.attributes}


def run(
    broker: EmbeddedBroker,
    settings: OtelSettings,
    process: Process,
    *records: KafkaRecord,
    producer: dict[str, Any] | None = None,
) -> dict[str, list[dict[str, bytes]]]:
    """Run records through a flow; the headers that stand in its topics then, by topic."""
    for topic in ("numbers", "out", "errors"):
        broker.create_topic(topic)
    produce(broker.bootstrap, "numbers", *records)
    SEEN.clear()
    flow = StreamFlow("telling", FromTopic("numbers", Number), process, IntoTopic("out"), IntoTopic("errors"))
    config = config_for(broker.bootstrap, consumer={"delivery": "at_least_once"}, producer=producer or {})
    runtime = ObservabilityRuntime([OtelObserver(settings)])
    run_until(StreamingRunner.from_dict(flow, config, observability_runtime=runtime), all_done(len(records)))
    found = content(broker.bootstrap, "out", "errors")
    return {topic: [dict(Headers.of(record.headers or ())) for record in held] for topic, held in found.items()}


def record(n: int, *headers: tuple[str, bytes]) -> KafkaRecord:
    return KafkaRecord("numbers", b"k", b'{"n":%d}' % n, dict(headers), 0)


def test_a_sampled_record_is_a_span_with_a_child_for_each_node(broker: EmbeddedBroker, collector: Collector) -> None:
    settings = OtelSettings(endpoint=collector.endpoint, sample_ratio=1.0, service_name="shop")
    run(broker, settings, Process(twice, plus_one), record(1))
    assert collector.paths == {"/v1/traces"}
    (span,) = collector.records()
    assert span.name == "process numbers"
    about = attributes(span)
    assert about["messaging.system"] == "kafka"
    assert about["messaging.operation.type"] == "process"
    assert about["messaging.destination.name"] == "numbers"
    assert about["messaging.destination.partition.id"] == "0"
    assert about["messaging.kafka.offset"] == 0
    assert about["messaging.consumer.group.name"] == "readers"
    children = collector.below(span)
    assert [child.name for child in children] == ["telling.source", "telling.twice", "telling.plus_one", "send out"]
    assert children[-1].kind == Span.SPAN_KIND_PRODUCER
    for child in children:
        assert child.trace_id == span.trace_id
        assert span.start_time_unix_nano <= child.start_time_unix_nano <= child.end_time_unix_nano
        assert child.end_time_unix_nano <= span.end_time_unix_nano
    resource = collector.requests[0].resource_spans[0]
    assert resource.scope_spans[0].schema_url == "https://opentelemetry.io/schemas/1.27.0"
    named = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert named["service.name"] == "shop"
    assert {"flow telling", "poll_cycle telling"} <= {span.name for span in collector.spans}


def test_a_trace_goes_on_through_the_flow(broker: EmbeddedBroker, collector: Collector) -> None:
    headers = (("traceparent", SAMPLED), ("tracestate", b"vendor=x"), ("own", b"1"))
    settings = OtelSettings(endpoint=collector.endpoint, sample_ratio=0.0)
    written = run(broker, settings, Process(twice), record(1, *headers), record(2))
    (span,) = collector.records()
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.trace_state) == (TRACE, SPAN, "vendor=x")
    first, second = written["out"]
    assert first["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01".encode()
    assert (first["tracestate"], first["own"]) == (b"vendor=x", b"1")
    assert second == {}
    # Also inside `execute`, for its log lines.
    assert [(line.get("trace_id"), line.get("span_id")) for line in SEEN] == [(TRACE, span.span_id.hex()), (None, None)]


def test_a_span_of_the_authors_own_is_a_child_of_that_of_its_record(
    broker: EmbeddedBroker, collector: Collector
) -> None:
    seen: list[SpanContext] = []

    @step
    def looks(number: Number) -> Number:
        seen.append(get_current_span().get_span_context())
        return number

    settings = OtelSettings(endpoint=collector.endpoint, sample_ratio=0.0)
    headers = (("traceparent", SAMPLED), ("tracestate", b"vendor=x"))
    run(broker, settings, Process(looks), record(1, *headers), record(2))
    (span,) = collector.records()
    followed, other = seen
    assert (f"{followed.trace_id:032x}", f"{followed.span_id:016x}") == (TRACE, span.span_id.hex())
    assert (followed.trace_flags, followed.trace_state.to_header()) == (TraceFlags.SAMPLED, "vendor=x")
    assert not other.is_valid


def test_who_began_a_trace_decides_that_it_is_not_sampled(broker: EmbeddedBroker, collector: Collector) -> None:
    settings = OtelSettings(endpoint=collector.endpoint, sample_ratio=1.0)
    written = run(broker, settings, Process(twice), record(1, ("traceparent", NOT_SAMPLED)))
    assert collector.records() == []
    assert written["out"][0]["traceparent"] == NOT_SAMPLED


def test_a_record_that_fails_is_a_span_though_it_was_not_sampled(broker: EmbeddedBroker, collector: Collector) -> None:
    settings = OtelSettings(endpoint=collector.endpoint, sample_ratio=0.0)
    run(broker, settings, Process(twice), record(1), record(-1, ("traceparent", NOT_SAMPLED)), record(3))
    (span,) = collector.records()
    assert span.trace_id.hex() == TRACE
    assert attributes(span)["messaging.kafka.offset"] == 1
    assert span.status.code == span.status.STATUS_CODE_ERROR
    (child,) = collector.below(span)
    (event,) = child.events
    told = {a.key: a.value.string_value for a in event.attributes}
    assert (child.name, event.name, told["exception.message"]) == ("telling.twice", "exception", "negative")


def test_errors_alone_can_be_left_out(broker: EmbeddedBroker, collector: Collector) -> None:
    settings = OtelSettings(endpoint=collector.endpoint, sample_ratio=0.0, always_on_error=False)
    run(broker, settings, Process(twice), record(-1))
    assert collector.records() == []


def test_a_sampled_record_that_fails_says_where_and_its_dead_letter_carries_the_trace(
    broker: EmbeddedBroker, collector: Collector
) -> None:
    settings = OtelSettings(endpoint=collector.endpoint, sample_ratio=1.0)
    written = run(broker, settings, Process(plus_one, twice), record(-7))
    (span,) = collector.records()
    assert span.status.code == span.status.STATUS_CODE_ERROR
    failed = [child.name for child in collector.below(span) if child.status.code == child.status.STATUS_CODE_ERROR]
    assert failed == ["telling.twice"]
    assert span.span_id.hex().encode() in written["errors"][0]["traceparent"]


def test_a_batch_is_a_span_that_is_linked_to_those_of_its_records(broker: EmbeddedBroker, collector: Collector) -> None:
    settings = OtelSettings(endpoint=collector.endpoint, sample_ratio=1.0)
    process = Process(twice, CollectBatch(3, timeout_ms=60_000), Together, ForEach())
    written = run(broker, settings, process, record(1), record(2), record(3))
    records = {span.span_id for span in collector.records()}
    assert len(records) == 3
    (batch,) = [span for span in collector.spans if span.links]
    assert batch.name == "telling.together"
    assert {link.span_id for link in batch.links} == records
    assert {headers["traceparent"].split(b"-")[2].decode() for headers in written["out"]} == {
        span.hex() for span in records
    }


def test_order_and_results_are_those_of_a_flow_that_is_not_traced(broker: EmbeddedBroker, collector: Collector) -> None:
    settings = OtelSettings(endpoint=collector.endpoint, sample_ratio=0.3)
    numbers = list(range(200))
    run(broker, settings, Process(plus_one), *(record(n) for n in numbers))
    found = content(broker.bootstrap, "out")["out"]
    assert [held.value for held in found] == [b'{"n":%d}' % (n + 1) for n in numbers]
    sampled = [held for held in found if dict(Headers.of(held.headers or ())).get("traceparent")]
    assert len(sampled) == len(collector.records())
    assert 15 < len(sampled) < 120


@pytest.mark.parametrize("others", [(), (("own", b"1"),)], ids=["no headers", "headers in the batch"])
def test_each_result_of_a_followed_record_names_the_span_of_it(
    broker: EmbeddedBroker, collector: Collector, others: tuple[tuple[str, bytes], ...]
) -> None:
    settings = OtelSettings(endpoint=collector.endpoint, sample_ratio=1.0)
    written = run(broker, settings, Process(plus_one, twice), record(1), record(-7), record(3, *others), record(4))
    spans = {attributes(span)["messaging.kafka.offset"]: span for span in collector.records()}
    expected = [f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01".encode() for _, span in sorted(spans.items())]
    failed = expected.pop(1)
    assert [headers["traceparent"] for headers in written["out"]] == expected
    assert [headers["traceparent"] for headers in written["errors"]] == [failed]
    assert [headers.get("own") for headers in written["out"]] == [None, dict(others).get("own"), None]


def test_headers_none_keeps_the_trace_from_results_too(broker: EmbeddedBroker, collector: Collector) -> None:
    settings = OtelSettings(endpoint=collector.endpoint, sample_ratio=1.0)
    written = run(broker, settings, Process(twice), record(1), producer={"headers": "none"})
    assert written["out"] == [{}]
    assert len(collector.records()) == 1


def test_the_standard_variables_work_too(
    broker: EmbeddedBroker, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-the-environment")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "1.0")
    run(broker, OtelSettings(), Process(twice), record(1))
    assert len(collector.records()) == 1
    named = {a.key: a.value.string_value for a in collector.requests[0].resource_spans[0].resource.attributes}
    assert named["service.name"] == "from-the-environment"


def test_a_collector_that_is_away_holds_up_nothing(broker: EmbeddedBroker) -> None:
    written = run(broker, OtelSettings(endpoint="http://127.0.0.1:1", sample_ratio=1.0), Process(twice), record(1))
    assert len(written["out"]) == 1
