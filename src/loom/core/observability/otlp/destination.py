"""Where spans are sent and how, of the configuration and the standard variables. Called once by the observer.

The variables are those of the OpenTelemetry SDK for Python and mean what they mean there: a variable for traces alone
(`OTEL_EXPORTER_OTLP_TRACES_…`) wins over the one for everything (`OTEL_EXPORTER_OTLP_…`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal
from urllib.parse import unquote

from loom.core.installed import installed_version
from loom.core.logger import get_logger
from loom.core.model import LoomFrozenStruct
from loom.core.observability.settings import OtelSettings

__all__ = ["Destination", "Limits", "destination_of", "limits_of"]

_log = get_logger("loom.core.observability")

_PATH = "v1/traces"
_DEFAULT_ENDPOINT = "http://localhost:4318"
_COMPRESSIONS: tuple[Literal["none", "gzip", "deflate"], ...] = ("none", "gzip", "deflate")


class Destination(LoomFrozenStruct):
    """A collector, and how it is spoken to.

    Args:
        url: the whole address that requests are posted to.
        headers: sent with each request; their names are in lower case.
        timeout_s: the longest wait for an answer, in seconds.
        compression: of the body.
        ca_file: the authorities that are trusted, in place of those of the system.
        client_certificate: for collectors that ask for one.
        client_key: where it is not in the same file.
    """

    url: str
    headers: Mapping[str, str]
    timeout_s: float = 10.0
    compression: Literal["none", "gzip", "deflate"] = "none"
    ca_file: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None


class Limits(LoomFrozenStruct):
    """How many spans wait for how long.

    Args:
        waiting: runs and followed records that wait, each with what is inside of it; more are lost.
        at_once: spans in a request, about.
        delay_s: the longest that a span waits to be sent, in seconds.
    """

    waiting: int = 10_000
    at_once: int = 4_096
    delay_s: float = 5.0


def destination_of(settings: OtelSettings) -> Destination:
    """Where the configuration, else the environment says that spans go.

    >>> destination_of(OtelSettings(endpoint="http://collector:4318/")).url
    'http://collector:4318/v1/traces'

    Args:
        settings: the section `observability.otel`.
    """
    headers = {"content-type": "application/x-protobuf", "user-agent": f"loom-streaming/{installed_version()}"}
    headers |= _pairs(_variable("HEADERS") or "")
    headers |= {name.lower(): value for name, value in settings.headers.items()}
    compression = (_variable("COMPRESSION") or "none").strip().lower()
    if compression not in _COMPRESSIONS:
        _log.warning("otel_variable_ignored", variable="OTEL_EXPORTER_OTLP_COMPRESSION", value=compression)
    return Destination(
        _url(settings.endpoint),
        headers,
        _number("OTEL_EXPORTER_OTLP_TIMEOUT", _variable("TIMEOUT"), 10.0),
        next((known for known in _COMPRESSIONS if known == compression), "none"),
        _variable("CERTIFICATE"),
        _variable("CLIENT_CERTIFICATE"),
        _variable("CLIENT_KEY"),
    )


def limits_of() -> Limits:
    """What the variables `OTEL_BSP_…` say, else as many as come of a fast flow in that time."""
    usual = Limits()
    found = {
        name: _number(variable, os.environ.get(variable), default)
        for name, variable, default in (
            ("waiting", "OTEL_BSP_MAX_QUEUE_SIZE", usual.waiting),
            ("at_once", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", usual.at_once),
            ("delay", "OTEL_BSP_SCHEDULE_DELAY", usual.delay_s * 1000),
        )
    }
    return Limits(max(1, int(found["waiting"])), max(1, int(found["at_once"])), found["delay"] / 1000)


def _variable(name: str) -> str | None:
    return os.environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}") or None


def _url(configured: str | None) -> str:
    if configured is None and (exact := os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return exact
    base = (configured or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or _DEFAULT_ENDPOINT).rstrip("/")
    return base if configured and base.endswith(f"/{_PATH}") else f"{base}/{_PATH}"


def _number(variable: str, written: str | None, default: float) -> float:
    try:
        found = float(written) if written else default
    except ValueError:
        found = -1.0
    if 0 < found < 1e9:
        return found
    _log.warning("otel_variable_ignored", variable=variable, value=written)
    return default


def _pairs(written: str) -> dict[str, str]:
    """`name=value` pairs with commas between them, percent-encoded."""
    pairs = (item.partition("=") for item in written.split(","))
    return {unquote(name).strip().lower(): unquote(value).strip() for name, equals, value in pairs if equals}
