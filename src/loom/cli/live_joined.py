"""Several processes of a flow as one: counters and rates added up, the worst of what cannot be. Used by `loom top`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import msgspec

from loom.streaming.runtime.telemetry.live_document import (
    LiveDocument,
    LiveHistory,
    LiveNode,
    LiveNow,
    LiveTotals,
)

__all__ = ["joined"]

#: from bad to good
_STATES = ("failed", "stalled", "not ready", "stopping", "running")
#: what is not added up, but the highest of all
_HIGHEST = {"latency_p50_s", "latency_p95_s", "lag_seconds", "batch_s"}
_OF_NODES = (
    "came",
    "left",
    "came_per_s",
    "left_per_s",
    "failed",
    "failed_per_s",
    "dropped",
    "retries",
    "buffered",
    "batch_s",
    "open_circuits",
)


def joined(documents: Sequence[LiveDocument]) -> LiveDocument:
    """One document for all; that of a single process is as it is."""
    first = documents[0]
    if len(documents) == 1:
        return first
    same = all([node.id for node in told.nodes] == [node.id for node in first.nodes] for told in documents)
    errors = [error for told in documents for error in told.errors]
    return msgspec.structs.replace(
        first,
        state=min((told.state for told in documents), key=_rank),
        totals=msgspec.convert(_fields([told.totals for told in documents], LiveTotals.__struct_fields__), LiveTotals),
        now=msgspec.convert(_fields([told.now for told in documents], LiveNow.__struct_fields__), LiveNow),
        nodes=tuple(map(_node, zip(*(told.nodes for told in documents), strict=True))) if same else first.nodes,
        partitions=tuple(part for told in documents for part in told.partitions),
        errors=tuple(sorted(errors, key=lambda error: error.last_at, reverse=True)),
        history=_history([told.history for told in documents]),
    )


def _rank(state: str) -> int:
    return _STATES.index(state) if state in _STATES else 0


def _node(nodes: Sequence[LiveNode]) -> LiveNode:
    estimated = any(node.estimated for node in nodes)
    return msgspec.structs.replace(nodes[0], estimated=estimated, **_fields(nodes, _OF_NODES))


def _history(histories: Sequence[LiveHistory]) -> LiveHistory:
    """The samples that all have, the latest beside the latest."""
    least = min(len(history.ready) for history in histories)
    series = {}
    for name in LiveHistory.__struct_fields__[2:]:
        whole = [getattr(history, name) for history in histories]
        rows = [one[len(one) - least :] for one in whole]
        join = min if name == "ready" else partial(_joined, name)
        series[name] = tuple(map(join, zip(*rows, strict=True)))
    return LiveHistory(histories[0].every_s, histories[0].last_at, **series)


def _fields(of: Sequence[object], names: Iterable[str]) -> dict[str, float | None]:
    return {name: _joined(name, [getattr(one, name) for one in of]) for name in names}


def _joined(name: str, values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return max(known) if name in _HIGHEST else sum(known)
