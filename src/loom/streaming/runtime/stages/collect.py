"""The batch of a `CollectBatch`, which keeps records until it is full or its time is up. Hot path."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from loom.core.observability import Scope
from loom.core.observability.runtime import Span
from loom.streaming.compiler.model import StepId
from loom.streaming.message import MessageMeta
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.node_input import Ancestors, Item, NodeInput
from loom.streaming.runtime.stages.reorder_buffer import NO_PARTITION, InFlightInput, ReorderBuffer
from loom.streaming.runtime.stages.stage_io import EndMark

__all__ = ["Collector"]


class Collector:
    """The batch that is being collected at one place of a stage; a node that keeps records (`BufferingNode`)."""

    def __init__(
        self,
        build: StageBuilder,
        max_records: int,
        timeout_ms: int,
        after: NodeInput,
        above: Ancestors,
        gate: ReorderBuffer,
        step_id: StepId,
    ) -> None:
        self._observability = build.observability
        self._step_id = step_id
        #: the batch that is being collected, as observers know it
        self._span: Span | None = None
        self._room = build.stage.room
        self._flush = build.stage.flush
        self._gate = gate
        self._above = above
        self._batch = after.batch
        self._most = max_records
        self._patience = timeout_ms / 1000
        self._emits_on_stop = build.emits_on_stop()
        self._items: list[Item] = []
        self._flights: list[InFlightInput] = []
        self._since = 0.0
        #: by partition, the offset of the oldest record that is kept, or was discarded
        self._oldest: dict[TopicPartition, int] = {}
        gate.watch(self._oldest)

    def take(self, payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        """Keep a record; the one that fills the batch sends it on."""
        items, oldest = self._items, self._oldest
        if not items:
            self._since = self._room.now
            self._span = self._observability.begin(Scope.BATCH_COLLECT, self._step_id)
        items.append((payload, origin, meta, self._above.indexes()))
        flight = self._gate.keep(origin)
        self._flights.append(flight)
        if flight.offset < oldest.get(flight.partition, flight.offset + 1):
            oldest[flight.partition] = flight.offset
        if len(items) >= self._most:
            indexes = items[-1][3]
            self._send()
            # Sending the batch changed the child indexes; restore them for the caller.
            for cell, index in zip(self._above.cells, indexes, strict=True):
                cell.at = index

    def kept(self) -> int:
        return len(self._items)

    def oldest(self) -> Iterable[tuple[TopicPartition, int]]:
        return [(partition, offset) for partition, offset in self._oldest.items() if partition != NO_PARTITION]

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            self._oldest.pop(partition, None)
        # The gate has given them another place by now, by which they still keep their order.
        for flight in self._flights:
            if flight.partition == NO_PARTITION and flight.offset < self._oldest.get(NO_PARTITION, flight.offset + 1):
                self._oldest[NO_PARTITION] = flight.offset

    def discard(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            self._oldest.pop(partition, None)
        left = [
            (item, flight)
            for item, flight in zip(self._items, self._flights, strict=True)
            if flight.partition not in partitions
        ]
        self._items = [item for item, _ in left]
        self._flights = [flight for _, flight in left]

    def credit(self) -> int | None:
        """A collector sends what fills it, so only what is held back after it sets a limit."""
        return self._gate.credit()

    def due(self) -> float | None:
        return self._since + self._patience if self._items else None

    def tick(self, now: float) -> None:
        self._send()
        self._flush()

    def end(self, mark: EndMark) -> None:
        if mark is EndMark.INPUT or self._emits_on_stop:
            if self._items:
                self._send()
                self._flush()
        else:
            # Discarded, not released: the offsets stay where they are, so that these records are read again.
            self._told(discarded=True)
            self._items.clear()
            self._flights.clear()

    def _told(self, *, discarded: bool = False) -> None:
        if self._span is not None:
            records = {"records": len(self._items)}
            self._span.end(meta={**records, "discarded": True} if discarded else records)
            self._span = None

    def _send(self) -> None:
        self._told()
        items, self._items = self._items, []
        flights, self._flights = self._flights, []
        self._oldest.clear()
        self._batch(items)
        release = self._gate.release
        for flight in flights:
            release(flight)
