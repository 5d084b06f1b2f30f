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
    "refuse_later_observers",
]


class LogSettings(Declaration):
    """Events as log lines, and how this process logs altogether."""

    enabled: bool = True
    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    format: Literal["console", "json"] = "console"
    #: How often a flow logs its progress, in milliseconds; 0: never.
    progress_interval_ms: Annotated[int, msgspec.Meta(ge=0)] = 30_000


class OtelSettings(Declaration):
    """Events as OpenTelemetry spans."""

    enabled: bool = True
    #: Handed to the exporter.
    config: Mapping[str, Any] = {}


class PrometheusEndpoint(Declaration):
    """Where metrics can be scraped."""

    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 9100
    bind_address: str = "127.0.0.1"
    path: str = "/metrics"


class PrometheusSettings(Declaration):
    """Events and counters as Prometheus metrics."""

    enabled: bool = True
    config: PrometheusEndpoint = PrometheusEndpoint()


class ObservabilityConfig(Declaration):
    """The `observability` section; a part that is left out is off.

    >>> ObservabilityConfig(log=LogSettings(format="json")).log.progress_interval_ms
    30000

    Args:
        log: events as log lines.
        otel: not built yet; refused if enabled.
        prometheus: not built yet; refused if enabled.
    """

    log: LogSettings | None = None
    otel: OtelSettings | None = None
    prometheus: PrometheusSettings | None = None


def refuse_later_observers(config: ObservabilityConfig) -> None:
    """Raise `NotSupportedYetError` for an observer that is on and not built yet."""
    for key, part in (("otel", config.otel), ("prometheus", config.prometheus)):
        if part is not None and part.enabled:
            raise NotSupportedYetError(
                f"observability.{key}: not supported yet; set `enabled: false` or leave the section out"
            )
