"""Sinks of the caller's own, driven by the sink part of the process, so that each is flushed at the end of an epoch.

Sinks of another package's classes are opened by an adapter, which is loaded only for an object of such a class.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, TypeAlias

from loom.core.async_bridge import AsyncBridge
from loom.streaming.nodes.sink import IntoSink, SinkPartition
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.output_table import CustomOutput, OutputTable

__all__ = ["OpenSink", "OpenedSink", "is_sink", "open_into_sink", "open_sink", "refuse_unshareable"]

#: what knows the sinks of a package's own classes, by the name of the package: a module with `is_sink` and `open_sink`
_ADAPTERS = {"bytewax": "loom.streaming.bytewax.sink_overrides"}


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


def is_sink(sink: object) -> bool:
    """Whether `open_sink` could open it: an object, not a class."""
    if isinstance(sink, type):
        return False
    adapter = _adapter_of(sink)
    return isinstance(sink, IntoSink) or (adapter is not None and bool(adapter.is_sink(sink)))


def refuse_unshareable(outputs: OutputTable, layout: Layout) -> None:
    """Raise `UnshareableSinkError` for a sink of which several processes would overwrite what each other write."""
    for output in outputs.table:
        if isinstance(output, CustomOutput) and (adapter := _adapter_of(output.sink)) is not None:
            adapter.refuse_unshareable(output.sink, output.name, layout)


def open_sink(
    sink: Any,
    name: str,
    config: Any,
    state: Any,
    bridge: Callable[[], AsyncBridge | None],
    layout: Layout = Layout(),  # noqa: B008 - frozen
) -> OpenedSink:
    """Open an `IntoSink` or a Bytewax sink, of which each process has one part. Raises `TypeError` for what is neither."""
    adapter = _adapter_of(sink)
    if adapter is not None and adapter.is_sink(sink):
        opened: OpenedSink = adapter.open_sink(sink, name, state, layout)
        return opened
    if isinstance(sink, IntoSink):
        return open_into_sink(sink, name, config, bridge(), layout)
    raise TypeError(f"the sink for {name} must be a Bytewax sink or an IntoSink, not {sink!r}")


def _adapter_of(sink: object) -> Any:
    """The module that knows objects of this class, if one does. The package itself is loaded, or there were no such object."""
    for base in type(sink).__mro__:
        name = _ADAPTERS.get(base.__module__.partition(".")[0])
        if name is not None:
            return import_module(name)
    return None


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
