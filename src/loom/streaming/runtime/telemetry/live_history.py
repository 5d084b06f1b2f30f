"""The last 15 minutes of a flow, one sample each five seconds, in rings of a fixed size."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from loom.streaming.runtime.telemetry.live_document import LiveHistory, LiveNode, LiveNodeHistory, LiveNow

__all__ = ["EVERY_S", "History"]

EVERY_S = 5.0
_SAMPLES = 180

_FLOW = (
    "read_per_s",
    "written_per_s",
    "failed_per_s",
    "lag_records",
    "lag_seconds",
    "latency_p95_s",
    "in_flight",
    "buffered",
)
_NODE = ("came_per_s", "failed_per_s")

_Ring = deque[float | None]


class History:
    """The samples of a flow and of its nodes. Used under the lock of whoever looks."""

    def __init__(self, boxes: Iterable[str]) -> None:
        self._last_at: float | None = None
        self._flow: Mapping[str, _Ring] = {name: deque(maxlen=_SAMPLES) for name in (*_FLOW, "ready")}
        self._nodes: Mapping[str, Mapping[str, _Ring]] = {
            box: {name: deque(maxlen=_SAMPLES) for name in _NODE} for box in boxes
        }

    def add(self, at: float, now: LiveNow, nodes: Iterable[LiveNode], *, ready: bool) -> None:
        """Take a sample. `at`: seconds since 1970."""
        self._last_at = at
        for name in _FLOW:
            self._flow[name].append(_short(getattr(now, name)))
        self._flow["ready"].append(float(ready))
        for node in nodes:
            for name, ring in self._nodes[node.id].items():
                ring.append(_short(getattr(node, name)))

    def of_flow(self) -> LiveHistory:
        """The samples of the flow."""
        return LiveHistory(EVERY_S, self._last_at, **{name: tuple(ring) for name, ring in self._flow.items()})

    def of_node(self, box: str) -> LiveNodeHistory:
        """The samples of a node."""
        return LiveNodeHistory(**{name: tuple(ring) for name, ring in self._nodes[box].items()})


def _short(value: float | None) -> float | None:
    """A value as it is drawn: four digits are more than a line of some pixels shows."""
    return None if value is None else float(f"{value:.4g}")
