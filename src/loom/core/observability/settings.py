"""The `observability` section of a configuration.

Read by `ObservabilityRuntime.from_config`. A part that is written down is on unless it says `enabled: false`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from loom.core.choices import Declaration
from loom.core.errors import NotSupportedYetError

__all__ = [
    "LogSettings",
    "ObservabilityConfig",
    "OtelSettings",
    "PrometheusEndpoint",
    "PrometheusSettings",
    "PushGatewaySettings",
    "refuse_later_observers",
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
    """Events as OpenTelemetry spans."""

    enabled: bool = True
    #: Handed to the exporter.
    config: Mapping[str, Any] = {}


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
        otel: not built yet; refused if enabled.
        prometheus: metrics, health and readiness over HTTP; needs the extra `prometheus`.
    """

    log: LogSettings | None = None
    otel: OtelSettings | None = None
    prometheus: PrometheusSettings | None = None


def refuse_later_observers(config: ObservabilityConfig) -> None:
    """Raise `NotSupportedYetError` for an observer that is on and not built yet."""
    if config.otel is not None and config.otel.enabled:
        raise NotSupportedYetError(
            "observability.otel: not supported yet; set `enabled: false` or leave the section out"
        )
