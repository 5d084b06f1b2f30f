"""Sinks of one's own: what a storage sink must offer to be written to from a flow.

`StreamingRunner.register_sink` and the sink overrides take them; as nodes of a process they come later.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, runtime_checkable

__all__ = ["IntoSink", "SinkPartition"]

Item = TypeVar("Item")


@runtime_checkable
class SinkPartition(Protocol[Item]):
    """An opened sink, used by one thread."""

    def write_batch(self, items: list[Item]) -> None:
        """Take items; they need not be durable yet."""

    def flush(self) -> None:
        """Called at the end of each epoch: returning means that everything taken so far is durable."""

    def close(self) -> None:
        """Let go. Called once, also after a failure; what was not flushed is read again."""


@runtime_checkable
class IntoSink(Protocol):
    """A declared sink; opens nothing until it is asked for its partition."""

    def build_partition(
        self,
        config: Any,
        worker_index: int,
        worker_count: int,
        bridge: Any | None = None,
        session_manager: Any | None = None,
    ) -> SinkPartition[Any]:
        """Open the partition of this process."""
