"""Traces: spans of sampled records, and of runs, sent by OTLP over HTTP from a thread of its own.

Added by `ObservabilityRuntime.from_config` when the configuration has `observability.otel`. Needs the extra `otel`. Names and
attributes are those of the semantic conventions for messaging, version 1.27.0. The standard variables `OTEL_*` work too; what
the configuration says wins.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from loom.core.installed import installed_version
from loom.core.logger import get_logger
from loom.core.observability.event import EventKind, LifecycleEvent, Scope
from loom.core.observability.extras import check_otel
from loom.core.observability.otlp.destination import destination_of, limits_of
from loom.core.observability.otlp.encoding import Envelope
from loom.core.observability.otlp.http_client import HttpClient
from loom.core.observability.otlp.resource import resource_of
from loom.core.observability.otlp.sender import SpanSender
from loom.core.observability.settings import OtelSettings
from loom.core.observability.spans import FinishedSpan, Sampling, SpanBatch, SpanError, SpanRole, SpanShape
from loom.core.tracing import TraceParent, new_place

__all__ = ["OtelObserver"]

_log = get_logger("loom.core.observability")

_SCHEMA = "https://opentelemetry.io/schemas/1.27.0"
_DEFAULT_RATIO = 0.01
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
        MissingExtraError: if the SDK of OpenTelemetry is not installed.
    """

    scopes = frozenset({Scope.POLL_CYCLE, Scope.FLOW})

    def __init__(self, settings: OtelSettings | None = None) -> None:
        check_otel()
        settings = settings or OtelSettings()
        self.sampling = Sampling(_ratio(settings), settings.always_on_error)
        self._service_name = settings.service_name
        destination = destination_of(settings)
        self._sender = SpanSender(lambda: HttpClient(destination), self._envelope, limits_of())
        self._disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"

    @property
    def tracing(self) -> OtelObserver | None:
        """Itself: where the spans of records go. `None` where `OTEL_SDK_DISABLED` is `true`."""
        return None if self._disabled else self

    @property
    def lost(self) -> int:
        """Spans that were lost, because the collector was away, slow or refused them."""
        return self._sender.losses.count

    def on_event(self, event: LifecycleEvent) -> None:
        """Make a span of a run, or of an engine at work, when it is over.

        Args:
            event: what happened.
        """
        if event.kind is EventKind.START or event.duration_ms is None or self._disabled:
            return
        now = time.time_ns()
        shape = SpanShape(f"{event.scope.value} {event.name}", SpanRole.INTERNAL, {"loom.flow": event.name})
        error = None if event.error is None else SpanError(event.error, now)
        self.add(FinishedSpan(shape, new_place(), now - int(event.duration_ms * 1e6), now, error=error))

    def add(self, span: FinishedSpan) -> None:
        """Send a span, soon.

        Args:
            span: one that is over.
        """
        self._sender.add(span)

    def add_all(self, batch: SpanBatch) -> None:
        """Send the spans of a batch, soon.

        Args:
            batch: it is asked for them before this returns.
        """
        self._sender.add_all(batch)

    @property
    def is_asked(self) -> bool:
        """Whether the API of OpenTelemetry is loaded: until it is, nobody can ask it for the current span."""
        return "opentelemetry.trace" in sys.modules

    def enter(self, place: TraceParent, state: str | None = None) -> Any:
        """Make a span the current one of OpenTelemetry's API, so that spans of the author's own become its children.

        Args:
            place: its trace and its id.
            state: the `tracestate` of the trace.

        Returns:
            What `leave` takes.
        """
        from opentelemetry import trace
        from opentelemetry.context import attach

        context = trace.SpanContext(
            int(place.trace_id, 16),
            int(place.parent_id, 16),
            is_remote=False,
            trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
            trace_state=trace.TraceState.from_header([state]) if state else None,
        )
        return attach(trace.set_span_in_context(trace.NonRecordingSpan(context)))

    def leave(self, token: Any) -> None:
        """Make the span before it the current one again.

        Args:
            token: what `enter` returned.
        """
        from opentelemetry.context import detach

        detach(token)

    def close(self) -> None:
        """Send what waits, for a moment. A later span is sent too."""
        if not self._sender.close(_LEAVE):
            _log.warning("spans_abandoned", reason="the collector does not answer")

    def _envelope(self) -> Envelope:
        resource, schema = resource_of(self._service_name)
        return Envelope(resource, schema, "loom.streaming", installed_version(), _SCHEMA)


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
