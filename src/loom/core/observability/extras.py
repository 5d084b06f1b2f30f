"""Packages that parts of observability need, which are extras of the distribution. Asked before anything of them is loaded."""

from __future__ import annotations

import importlib.util

from loom.core.errors import LoomError

__all__ = ["MissingExtraError", "check_otel", "check_prometheus"]


class MissingExtraError(LoomError):
    """An optional package that the configuration asks for is not installed."""


def check_prometheus() -> None:
    """Raise `MissingExtraError` where the extra `prometheus` is not installed.

    Raises:
        MissingExtraError: names the extra.
    """
    if importlib.util.find_spec("prometheus_client") is None:
        raise MissingExtraError("prometheus_client is not installed; install loom-streaming[prometheus]")


def check_otel() -> None:
    """Raise `MissingExtraError` where the extra `otel` is not installed.

    Raises:
        MissingExtraError: names the extra.
    """
    for package in ("opentelemetry", "opentelemetry.sdk"):
        try:
            found = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise MissingExtraError(f"{package} is not installed; install loom-streaming[otel]")
