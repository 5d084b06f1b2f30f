"""Who sends spans, as a resource of OpenTelemetry. Called once by the thread that sends them.

The attributes are those that the SDK for Python finds without further detectors. It is loaded only where a variable names some:
to load it takes as much CPU as to send the spans of a thousand records.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import unquote

from loom.core.logger import get_logger

__all__ = ["resource_of"]

_log = get_logger("loom.core.observability")

_SERVICE = "service.name"
_ATTRIBUTES, _DETECTORS = "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS"
_DEFAULT_SERVICE = "loom"
#: the detectors that the SDK always has, whose work is done here
_USUAL = frozenset({"", "otel", "service_instance"})


def resource_of(service_name: str | None) -> tuple[Mapping[str, Any], str]:
    """The attributes of the process, and the address of the conventions that their names are of, which may be empty.

    Args:
        service_name: that of the configuration, which wins over the environment's.
    """
    wanted = {_SERVICE: service_name} if service_name else {}
    if {name.strip() for name in os.environ.get(_DETECTORS, "").split(",")} <= _USUAL:
        return {**_of_sdk(), _SERVICE: _DEFAULT_SERVICE, **_of_environment(), **wanted}, ""
    from opentelemetry.sdk.resources import Resource

    resource = Resource.create(wanted or {_SERVICE: _of_environment().get(_SERVICE, _DEFAULT_SERVICE)})
    return resource.attributes, resource.schema_url or ""


def _of_sdk() -> dict[str, str]:
    from opentelemetry.sdk.version import __version__ as version

    return {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": version,
        "service.instance.id": _instance_id(os.getpid()),
    }


@cache
def _instance_id(_process: int) -> str:
    """A random id of this process, which a forked one does not share: a UUID of version 4."""
    drawn = int.from_bytes(os.urandom(16), "big")
    drawn = drawn & ~(0xF << 76) & ~(0x3 << 62) | 0x4 << 76 | 0x2 << 62
    digits = f"{drawn:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _of_environment() -> dict[str, str]:
    found = {}
    for item in filter(None, map(str.strip, os.environ.get(_ATTRIBUTES, "").split(","))):
        name, equals, value = item.partition("=")
        if equals:
            found[name.strip()] = unquote(value.strip())
        else:
            _log.warning("otel_variable_ignored", variable=_ATTRIBUTES, value=item)
    if named := os.environ.get("OTEL_SERVICE_NAME"):
        found[_SERVICE] = named
    return {name: value for name, value in found.items() if name and (value or name != _SERVICE)}
