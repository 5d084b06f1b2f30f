"""A sink that keeps what it receives, in place of a storage sink or in front of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loom.streaming.nodes.sink import IntoSink, SinkPartition

__all__ = ["KeepingSink"]


class KeepingSink:
    """Hands items to `keep`, and to the real sink where there is one to be opened."""

    def __init__(self, keep: Callable[[list[Any]], None], real: IntoSink | None = None) -> None:
        self._keep = keep
        self._real = real

    def build_partition(
        self,
        config: Any,
        worker_index: int,
        worker_count: int,
        bridge: Any | None = None,
        session_manager: Any | None = None,
    ) -> SinkPartition[Any]:
        """Open the real sink, if any."""
        real = None
        if self._real is not None:
            real = self._real.build_partition(config, worker_index, worker_count, bridge, session_manager)
        return _KeepingPartition(self._keep, real)


class _KeepingPartition:
    def __init__(self, keep: Callable[[list[Any]], None], real: SinkPartition[Any] | None) -> None:
        self._keep = keep
        self._real = real

    def write_batch(self, items: list[Any]) -> None:
        if self._real is not None:
            self._real.write_batch(items)
        self._keep(items)

    def flush(self) -> None:
        if self._real is not None:
            self._real.flush()

    def close(self) -> None:
        if self._real is not None:
            self._real.close()
