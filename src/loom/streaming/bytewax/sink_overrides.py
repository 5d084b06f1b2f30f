"""Bytewax sinks of the caller's own, opened for the sink part of the runtime.

A fixed-partitioned sink gets each message in the partition that its own `part_fn` chooses; a dynamic one gets all messages.
"""

from __future__ import annotations

from typing import Any

from bytewax.outputs import DynamicSink, FixedPartitionedSink, Sink, StatefulSinkPartition

from loom.streaming.errors import ErrorEnvelope
from loom.streaming.message import Message
from loom.streaming.runtime.custom_sinks import OpenedSink
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.run_errors import UnshareableSinkError

__all__ = ["is_sink", "open_sink", "refuse_unshareable"]


def is_sink(sink: object) -> bool:
    """Whether it is a sink of Bytewax."""
    return isinstance(sink, Sink)


def refuse_unshareable(sink: object, name: str, layout: Layout) -> None:
    """Raise `UnshareableSinkError` for a `FixedPartitionedSink` in a flow of several processes.

    Each process opens the sinks that it writes to, so every part would have several writers: of a `FileSink` each would
    truncate what the others have written.
    """
    if isinstance(sink, FixedPartitionedSink) and not layout.is_alone:
        raise UnshareableSinkError(
            f"the sink for {name} is a {type(sink).__qualname__}, a FixedPartitionedSink, and the flow has "
            f"{layout.processes} processes: each would open its parts and overwrite what the others write. Use one "
            "process, or a DynamicSink or an IntoSink, which get the number of their process"
        )


def open_sink(sink: Any, name: str, state: Any, layout: Layout) -> OpenedSink:
    """Open a Bytewax sink, of which each process has one part, with the states of its partitions where there are any.

    Raises `TypeError` for one of no known kind.
    """
    if isinstance(sink, FixedPartitionedSink):
        return _OpenedFixed(sink, name, state or {})
    if isinstance(sink, DynamicSink):
        return _OpenedDynamic(sink, name, layout)
    raise TypeError(f"the sink for {name} must be a FixedPartitionedSink or a DynamicSink, not {sink!r}")


class _OpenedDynamic:
    """Has no epoch signal: what it receives is durable when `write_batch` returns."""

    def __init__(self, sink: DynamicSink[Any], name: str, layout: Layout) -> None:
        self._part = sink.build(name, layout.index, layout.processes)

    def write(self, items: list[Any]) -> None:
        self._part.write_batch(items)

    def flush(self) -> None:
        return None

    def close(self) -> None:
        self._part.close()


class _OpenedFixed:
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
