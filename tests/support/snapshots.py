"""What a start sees of its cluster, changed by a test: the in-process broker tells no limits, grows no topic, has no groups."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from loom.streaming.kafka.cluster_snapshot import ClusterSnapshot, fetch_cluster
from loom.streaming.runtime import preflight

__all__ = ["see_otherwise"]


def see_otherwise(monkeypatch: pytest.MonkeyPatch, **seen: Any) -> None:
    """Starts see these fields of `ClusterSnapshot`, and the rest as it is; a function is given what was seen."""

    def look(*arguments: Any, **more: Any) -> ClusterSnapshot:
        found = fetch_cluster(*arguments, **more)
        return replace(found, **{name: made(found) if callable(made) else made for name, made in seen.items()})

    monkeypatch.setattr(preflight, "fetch_cluster", look)
