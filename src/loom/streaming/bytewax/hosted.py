"""Sinks of the caller's, driven from inside our sink part, so that each has an epoch signal and one order.

A Bytewax fixed-partitioned sink gets `(key, message)` routed by its own `part_fn`; a dynamic one gets the messages; an
`IntoSink` is flushed at the end of each epoch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol

from bytewax.outputs import DynamicSink, FixedPartitionedSink, StatefulSinkPartition

from loom.core.async_bridge import AsyncBridge
from loom.streaming.errors import ErrorEnvelope
from loom.streaming.message import Message
from loom.streaming.nodes.sink import IntoSink, SinkPartition

__all__ = ["HostedSink", "open_hosted"]


class HostedSink(Protocol):
    """A sink of the caller's, opened."""

    def write(self, items: list[Any]) -> None:
        """Take messages or error envelopes."""

    def flush(self) -> Any:
        """Be durable; returns the state to keep in a recovery snapshot."""

    def close(self) -> None:
        """Let go."""


#: Whatever the number of its workers, a process has one sink part, and so one partition of each `IntoSink`. The processes of
#: a plan without an exchange know nothing of each other.
_WORKER_INDEX, _WORKER_COUNT = 0, 1


def open_hosted(sink: Any, name: str, config: Any, state: Any, bridge: Callable[[], AsyncBridge | None]) -> HostedSink:
    """Open a sink. Raises `TypeError` for what is none, or for a partition that is none."""
    if isinstance(sink, FixedPartitionedSink):
        return _HostedFixed(sink, name, state or {})
    if isinstance(sink, DynamicSink):
        return _HostedDynamic(sink, name)
    if isinstance(sink, IntoSink):
        partition: object = sink.build_partition(config, _WORKER_INDEX, _WORKER_COUNT, bridge())
        if not isinstance(partition, SinkPartition):
            raise TypeError(
                f"the sink for {name} built a {type(partition).__qualname__}, which is no SinkPartition: it needs "
                "write_batch(items), flush() and close()"
            )
        for method in ("write_batch", "flush", "close"):
            if inspect.iscoroutinefunction(getattr(partition, method)):
                raise TypeError(
                    f"{type(partition).__qualname__}.{method} of the sink for {name} is async, and nobody would await it; "
                    "make it a plain method that runs what is async on the bridge: bridge.run(…)"
                )
        return _HostedIntoSink(partition)
    raise TypeError(f"the sink for {name} must be a Bytewax sink or an IntoSink, not {sink!r}")


class _HostedDynamic:
    """Has no epoch signal: what it is handed is durable when `write_batch` returns."""

    def __init__(self, sink: DynamicSink[Any], name: str) -> None:
        self._part = sink.build(name, 0, 1)

    def write(self, items: list[Any]) -> None:
        self._part.write_batch(items)

    def flush(self) -> None:
        return None

    def close(self) -> None:
        self._part.close()


class _HostedFixed:
    def __init__(self, sink: FixedPartitionedSink[Any, Any], name: str, states: dict[str, Any]) -> None:
        self._sink = sink
        self._name = name
        self._names = sorted(sink.list_parts())
        self._states = states
        self._open: dict[str, StatefulSinkPartition[Any, Any]] = {}

    def write(self, items: list[Any]) -> None:
        by_part: dict[str, list[Any]] = {}
        for item in items:
            # The engine's own rule: the number that part_fn gives, modulo the parts in sorted order.
            part = self._names[self._sink.part_fn(_key_of(item)) % len(self._names)]
            by_part.setdefault(part, []).append(item)
        for part, values in by_part.items():
            if part not in self._open:
                self._open[part] = self._sink.build_part(self._name, part, self._states.get(part))
            self._open[part].write_batch(values)

    def flush(self) -> dict[str, Any]:
        self._states = self._states | {part: opened.snapshot() for part, opened in self._open.items()}
        return self._states

    def close(self) -> None:
        for opened in self._open.values():
            opened.close()


class _HostedIntoSink:
    def __init__(self, partition: SinkPartition[Any]) -> None:
        self._partition = partition

    def write(self, items: list[Any]) -> None:
        self._partition.write_batch(items)

    def flush(self) -> None:
        self._partition.flush()

    def close(self) -> None:
        self._partition.close()


def _key_of(item: Message[Any] | ErrorEnvelope[Any]) -> str:
    """What a partitioned sink routes by: the record's key, else its id."""
    if isinstance(item, Message):
        key, message_id = item.meta.key, item.meta.message_id
    elif item.original_message is not None:
        key, message_id = item.original_message.meta.key, item.original_message.meta.message_id
    elif item.source is not None:
        key, source = item.source.key, item.source
        message_id = f"{source.topic}:{source.partition}:{source.offset}"
    else:
        key, message_id = None, "undecoded"
    if key is None:
        return message_id
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)
