"""The versions that a report of a defect should name."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

__all__ = ["version_line", "versions"]

_PACKAGES = ("loom-streaming", "bytewax", "confluent-kafka")


def versions() -> dict[str, str]:
    """The version of Loom, of Bytewax where it is installed, of the client, and of Python."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**found, "python": platform.python_version()}


def version_line(found: Mapping[str, str]) -> str:
    """All of them in one line.

    >>> version_line({"loom-streaming": "1.0", "bytewax": "0.21.1", "confluent-kafka": "2.11.0", "python": "3.12.1"})
    'loom-streaming 1.0 (bytewax 0.21.1, confluent-kafka 2.11.0, Python 3.12.1)'
    """
    beside = ", ".join(f"{'Python' if name == 'python' else name} {text}" for name, text in list(found.items())[1:])
    return f"loom-streaming {found['loom-streaming']} ({beside})"
