"""Traces with OpenTelemetry: spans of sampled records, and of runs, sent by OTLP over HTTP from a thread of the SDK's.

Added by `ObservabilityRuntime.from_config` when the configuration has `observability.otel`. Needs the extra `otel`. Names and
attributes are those of the semantic conventions for messaging, version 1.27.0. The standard variables `OTEL_*` work too; what
the configuration says wins.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from loom.core.logger import get_logger
from loom.core.observability.event import EventKind, LifecycleEvent, Scope
from loom.core.observability.extras import check_otel
from loom.core.observability.settings import OtelSettings
from loom.core.observability.spans import Sampling, SpanRole
from loom.core.tracing import TraceParent

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

__all__ = ["OtelObserver"]

_log = get_logger("loom.core.observability")

_SCHEMA = "https://opentelemetry.io/schemas/1.27.0"
_DEFAULT_RATIO = 0.01
_EXPORTERS = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.exporter.otlp.common.http")
#: seconds that the end of a run waits for spans to be sent
_LEAVE = 3.0


class OtelObserver:
    """Sends spans to a collector. A collector that is slow or away loses spans and holds up nothing.

    >>> observer = OtelObserver(OtelSettings(endpoint="http://127.0.0.1:4318", sample_ratio=0.1))
    >>> observer.sampling.ratio
    0.1
    >>> observer.close()

    Args:
        settings: where to, and how much.

    Raises:
        MissingExtraError: if the SDK or the exporter is not installed.
    """

    scopes = frozenset({Scope.POLL_CYCLE, Scope.FLOW})

    def __init__(self, settings: OtelSettings | None = None) -> None:
        check_otel()
        self._settings = settings or OtelSettings()
        self.sampling = Sampling(_ratio(self._settings), self._settings.always_on_error)
        self._lock = threading.Lock()
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None

    @property
    def tracing(self) -> OtelObserver:
        """Itself: where the spans of records go."""
        return self

    def on_event(self, event: LifecycleEvent) -> None:
        """Make a span of a run, or of an engine at work, when it is over.

        Args:
            event: what happened.
        """
        if event.kind is EventKind.START or event.duration_ms is None:
            return
        now = time.time_ns()
        begun = now - int(event.duration_ms * 1e6)
        span = self._ready().start_span(
            f"{event.scope.value} {event.name}", start_time=begun, attributes={"loom.flow": event.name}
        )
        if event.error is not None:
            from opentelemetry.trace import Status, StatusCode

            span.set_status(Status(StatusCode.ERROR, event.error))
        span.end(now)

    def begin(
        self,
        name: str,
        role: SpanRole,
        begun_ns: int,
        attributes: Mapping[str, Any],
        *,
        parent: TraceParent | None = None,
        state: str | None = None,
        links: Sequence[TraceParent] = (),
    ) -> _OtelSpan:
        """Begin a span.

        Args:
            name: by the semantic conventions.
            role: what it does.
            begun_ns: nanoseconds since 1970.
            attributes: by the semantic conventions.
            parent: the span that it continues; `None` begins a trace.
            state: the `tracestate` that came with the parent.
            links: spans that it has to do with.
        """
        from opentelemetry.context import Context
        from opentelemetry.trace import Link, NonRecordingSpan, set_span_in_context

        context = Context()
        if parent is not None:
            context = set_span_in_context(NonRecordingSpan(_context(parent, state)), context)
        tracer = self._ready()
        span = tracer.start_span(
            name,
            context,
            kind=_kind(role),
            attributes=dict(attributes),
            links=[Link(_context(link, None)) for link in links],
            start_time=begun_ns,
        )
        return _OtelSpan(tracer, span)

    def close(self) -> None:
        """Send what waits, for a moment, and let the exporter go. A later span opens another one."""
        with self._lock:
            provider, self._provider, self._tracer = self._provider, None, None
        if provider is None:
            return
        # The exporter retries for as long as it likes where no collector answers.
        closing = threading.Thread(target=provider.shutdown, name="loom-otel-closing", daemon=True)
        closing.start()
        closing.join(_LEAVE)
        if closing.is_alive():
            _log.warning("spans_abandoned", reason="the collector does not answer")

    def _ready(self) -> Tracer:
        tracer = self._tracer
        if tracer is None:
            with self._lock:
                tracer = self._tracer
                if tracer is None:
                    tracer = self._open()
        return tracer

    def _open(self) -> Tracer:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        settings = self._settings
        named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        attributes = (
            {} if named and settings.service_name is None else {"service.name": settings.service_name or "loom"}
        )
        # Which records become spans is decided before one is made, so every one that is made is kept.
        provider = TracerProvider(sampler=ALWAYS_ON, resource=Resource.create(attributes), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=_traces(settings.endpoint), headers=dict(settings.headers) or None)
        # It logs each attempt; what matters is logged once, below.
        for name in _EXPORTERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        telling: Any = _TellingExporter(exporter)
        provider.add_span_processor(BatchSpanProcessor(telling))
        self._provider = provider
        self._tracer = provider.get_tracer("loom.streaming", version("loom-streaming"), schema_url=_SCHEMA)
        return self._tracer


class _TellingExporter:
    """Sends as another exporter does, and logs when that fails, and when it works again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = False

    def export(self, spans: Sequence[Any]) -> Any:
        result = self._exporter.export(spans)
        failing = result.name != "SUCCESS"
        if failing and not self._failing:
            _log.warning(
                "spans_lost", spans=len(spans), note="the collector does not take them; told once until it does"
            )
        elif self._failing and not failing:
            _log.info("spans_sent_again")
        self._failing = failing
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _OtelSpan:
    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        context = span.get_span_context()
        self.place = TraceParent(f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags))

    def child(
        self,
        name: str,
        role: SpanRole,
        begun_ns: int,
        ended_ns: int,
        attributes: Mapping[str, Any],
        error: BaseException | None = None,
    ) -> None:
        from opentelemetry.trace import set_span_in_context

        span = self._tracer.start_span(
            name,
            set_span_in_context(self._span),
            kind=_kind(role),
            attributes=dict(attributes),
            start_time=begun_ns,
        )
        _failed(span, error, ended_ns)
        span.end(ended_ns)

    def end(self, ended_ns: int, error: BaseException | None = None) -> None:
        _failed(self._span, error, ended_ns)
        self._span.end(ended_ns)


def _failed(span: Span, error: BaseException | None, at_ns: int) -> None:
    if error is None:
        return
    from opentelemetry.trace import Status, StatusCode

    span.record_exception(error, timestamp=at_ns)
    span.set_attribute("error.type", f"{type(error).__module__}.{type(error).__qualname__}")
    span.set_status(Status(StatusCode.ERROR, type(error).__qualname__))


def _kind(role: SpanRole) -> Any:
    from opentelemetry.trace import SpanKind

    return {
        SpanRole.CONSUMER: SpanKind.CONSUMER,
        SpanRole.PRODUCER: SpanKind.PRODUCER,
        SpanRole.INTERNAL: SpanKind.INTERNAL,
    }[role]


def _context(place: TraceParent, state: str | None) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags, TraceState

    return SpanContext(
        int(place.trace_id, 16),
        int(place.parent_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(place.flags & 1),
        trace_state=TraceState.from_header([state]) if state else None,
    )


def _traces(endpoint: str | None) -> str | None:
    """The address for traces; `None` leaves it to the environment."""
    if endpoint is None:
        return None
    return endpoint if endpoint.rstrip("/").endswith("/v1/traces") else f"{endpoint.rstrip('/')}/v1/traces"


def _ratio(settings: OtelSettings) -> float:
    """The configuration's, else what the standard variables say, else one in a hundred."""
    if settings.sample_ratio is not None:
        return settings.sample_ratio
    sampler = os.environ.get("OTEL_TRACES_SAMPLER", "").removeprefix("parentbased_")
    if sampler in ("always_on", "always_off"):
        return float(sampler == "always_on")
    if sampler == "traceidratio":
        try:
            return min(max(float(os.environ.get("OTEL_TRACES_SAMPLER_ARG", "1")), 0.0), 1.0)
        except ValueError:
            return 1.0
    return _DEFAULT_RATIO
