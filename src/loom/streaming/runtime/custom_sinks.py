"""Sinks of the caller's own, driven by the sink part of the process, so that each is flushed at the end of an epoch.

An engine adds those of its own classes: it hands the sink part its opener, which calls `open_into_sink` for the rest.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from loom.core.async_bridge import AsyncBridge
from loom.streaming.nodes.sink import IntoSink, SinkPartition
from loom.streaming.runtime.layout import Layout

__all__ = ["OpenSink", "OpenedSink", "open_into_sink"]


class OpenedSink(Protocol):
    """A sink of the caller's, opened."""

    def write(self, items: list[Any]) -> None:
        """Take messages or error envelopes."""

    def flush(self) -> Any:
        """Be durable; returns the state to keep in a recovery snapshot, or `None`."""

    def close(self) -> None:
        """Release what it holds."""


#: opens a sink: given the sink, its name, its config, the state of a recovery snapshot, and what gives the async bridge
OpenSink: TypeAlias = Callable[[Any, str, Any, Any, Callable[[], AsyncBridge | None]], OpenedSink]


def open_into_sink(
    sink: IntoSink,
    name: str,
    config: Any,
    bridge: AsyncBridge | None,
    layout: Layout = Layout(),  # noqa: B008 - frozen
) -> OpenedSink:
    """Open the partition of an `IntoSink`. Raises `TypeError` if what it builds is not a partition.

    Whatever the number of its workers, a process has one sink part, and so one partition of each `IntoSink`.
    """
    partition: object = sink.build_partition(config, layout.index, layout.processes, bridge)
    if not isinstance(partition, SinkPartition):
        raise TypeError(
            f"the sink for {name} built a {type(partition).__qualname__}, which is no SinkPartition: it needs "
            "write_batch(items), flush() and close()"
        )
    for method in ("write_batch", "flush", "close"):
        if inspect.iscoroutinefunction(getattr(partition, method)):
            raise TypeError(
                f"{type(partition).__qualname__}.{method} of the sink for {name} is async and would never be awaited; "
                "make it a plain method that runs what is async on the bridge: bridge.run(…)"
            )
    return _OpenedIntoSink(partition)


class _OpenedIntoSink:
    def __init__(self, partition: SinkPartition[Any]) -> None:
        self._partition = partition

    def write(self, items: list[Any]) -> None:
        self._partition.write_batch(items)

    def flush(self) -> None:
        self._partition.flush()

    def close(self) -> None:
        self._partition.close()
