"""The `observability` section of a configuration.

Read by `ObservabilityRuntime.from_config`. A part that is written down is on unless it says `enabled: false`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from loom.core.choices import Declaration

__all__ = [
    "LogSettings",
    "ObservabilityConfig",
    "OtelSettings",
    "PrometheusEndpoint",
    "PrometheusSettings",
    "PushGatewaySettings",
]


class LogSettings(Declaration):
    """Events as log lines, and how this process logs altogether."""

    enabled: bool = True
    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    #: `auto`: for people on a terminal, one JSON object per line elsewhere.
    format: Literal["auto", "console", "json"] = "auto"
    #: How often a flow logs its progress, in milliseconds; 0: never.
    progress_interval_ms: Annotated[int, msgspec.Meta(ge=0)] = 30_000


class OtelSettings(Declaration):
    """Sampled records and runs as OpenTelemetry spans."""

    enabled: bool = True
    #: The address of a collector, such as `http://localhost:4318`; else what `OTEL_EXPORTER_OTLP_ENDPOINT` says.
    endpoint: str | None = None
    protocol: Literal["http"] = "http"
    #: The share that is followed of records that come without a trace; else what `OTEL_TRACES_SAMPLER` says, else 0.01.
    sample_ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    #: A record that fails becomes a span though it was not followed.
    always_on_error: bool = True
    #: The name of the service; else what `OTEL_SERVICE_NAME` says, else `loom`.
    service_name: str | None = None
    #: Sent with each request, for collectors that ask for a key.
    headers: Mapping[str, str] = {}


class PushGatewaySettings(Declaration):
    """Where metrics are pushed to, by processes that are over before they are scraped."""

    url: str
    job: str = "loom"
    #: labels that tell this process from others of the job
    grouping: Mapping[str, str] = {}
    interval_ms: Annotated[int, msgspec.Meta(ge=1)] = 15_000
    timeout_ms: Annotated[int, msgspec.Meta(ge=1)] = 5_000


class PrometheusEndpoint(Declaration):
    """Where metrics can be scraped, and pushed to."""

    #: Of several processes, each adds its number. 0: any free port, which is logged.
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 9100
    bind_address: str = "127.0.0.1"
    path: Annotated[str, msgspec.Meta(pattern="^/")] = "/metrics"
    push_gateway: PushGatewaySettings | None = None
    #: How often the Kafka clients report the bytes that they have sent and received, in milliseconds; 0: never.
    client_statistics_ms: Annotated[int, msgspec.Meta(ge=0)] = 5_000


class PrometheusSettings(Declaration):
    """Counters as Prometheus metrics."""

    enabled: bool = True
    config: PrometheusEndpoint = PrometheusEndpoint()


class ObservabilityConfig(Declaration):
    """The `observability` section; a part that is left out is off.

    >>> ObservabilityConfig(log=LogSettings(format="json")).log.progress_interval_ms
    30000

    Args:
        log: events as log lines.
        otel: traces by OTLP over HTTP; needs the extra `otel`.
        prometheus: metrics, health and readiness over HTTP; needs the extra `prometheus`.
    """

    log: LogSettings | None = None
    otel: OtelSettings | None = None
    prometheus: PrometheusSettings | None = None
