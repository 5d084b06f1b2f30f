"""The other flows of the module that a flow was loaded from: together they may form a circle that neither shows alone."""

from __future__ import annotations

import sys
from typing import Any

from loom.streaming.flow import StreamFlow

__all__ = ["flows_beside"]


def flows_beside(flow: StreamFlow[Any, Any]) -> tuple[StreamFlow[Any, Any], ...]:
    """The other flows in the module of this one."""
    found: dict[int, StreamFlow[Any, Any]] = {}
    for module in list(sys.modules.values()):
        flows = [value for value in list(getattr(module, "__dict__", {}).values()) if type(value) is StreamFlow]
        if any(value is flow for value in flows):
            found.update({id(value): value for value in flows if value is not flow})
    return tuple(found.values())
