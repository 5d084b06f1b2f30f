"""The counters of several runs, added up."""

from __future__ import annotations

from collections import Counter
from typing import Any

from loom.streaming.metrics import FlowCounts

__all__ = ["added"]


def added(first: FlowCounts, second: FlowCounts) -> FlowCounts:
    """Both together, counter by counter."""
    return FlowCounts(*(_sum(getattr(first, name), getattr(second, name)) for name in FlowCounts.__struct_fields__))


def _sum(first: Any, second: Any) -> Any:
    if isinstance(first, dict):
        total = Counter(first)
        total.update(second)
        return dict(total)
    return first + second
