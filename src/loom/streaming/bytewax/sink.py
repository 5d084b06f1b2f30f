"""The one way out: every result of a process leaves through one sink part, durable at the end of the epoch. Hot path.

Numbered steps of an epoch's end: (1) every producer is flushed and every hosted sink is durable, dead letters of refused
records included; (2) the last safe positions are frozen. A failure in (1) ends the run with nothing frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from loom.core.async_bridge import AsyncBridge
from loom.streaming.bytewax.delivery import Delivery
from loom.streaming.bytewax.hosted import HostedSink, open_hosted
from loom.streaming.bytewax.outlets import HostedOutlet, Outlets
from loom.streaming.bytewax.stages.outcome import StageResults
from loom.streaming.bytewax.writers import Writers
from loom.streaming.kafka.record import TopicPartition
from loom.streaming.nodes.sink import IntoSink
from loom.streaming.points import Point, reached

__all__ = ["SLOT", "OutputSink"]

#: Partition names are part of the recovery store, so their number is fixed whatever the layout: one slot per process
#: that a cluster may have. Only this process's slot is ever written to; the others open nothing.
_SLOTS = 64
SLOT = "00"


class OutputSink(FixedPartitionedSink[StageResults, Any]):
    """Builds the part through which this process writes."""

    def __init__(
        self,
        outlets: Outlets,
        delivery: Delivery,
        make_writers: Callable[[], Writers],
        bridge: Callable[[], AsyncBridge | None],
    ) -> None:
        self._outlets = outlets
        self._delivery = delivery
        self._make_writers = make_writers
        self._bridge = bridge

    def list_parts(self) -> list[str]:
        return [f"{slot:02d}" for slot in range(_SLOTS)]

    def part_fn(self, item_key: str) -> int:
        return int(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> _OutputPart:
        return _OutputPart(self._outlets, self._delivery, self._make_writers(), self._bridge, resume_state or {})


class _OutputPart(StatefulSinkPartition[StageResults, Any]):
    def __init__(
        self,
        outlets: Outlets,
        delivery: Delivery,
        writers: Writers,
        bridge: Callable[[], AsyncBridge | None],
        states: Mapping[int, Any],
    ) -> None:
        self._delivery = delivery
        self._writers = writers
        delivery.opened(self, "producers", writers.close)
        self._hosted: dict[int, HostedSink] = {}
        self._states = dict(states)
        #: the slot under which a slot's sink was opened: an `IntoSink` that stands in several places has one partition
        self._opened_as: dict[int, int] = {}
        into_sinks: dict[int, int] = {}
        for slot, outlet in enumerate(outlets.table):
            if not isinstance(outlet, HostedOutlet):
                continue
            if isinstance(outlet.sink, IntoSink):
                self._opened_as[slot] = into_sinks.setdefault(id(outlet.sink), slot)
                if self._opened_as[slot] != slot:
                    continue
            self._opened_as[slot] = slot
            state = self._states.get(slot)
            self._hosted[slot] = hosted = open_hosted(outlet.sink, outlet.name, outlet.config, state, bridge)
            delivery.opened(hosted, f"sink {outlet.name}", hosted.close)
        self._only_topics = not self._hosted
        self._seen: dict[TopicPartition, int] = {}
        self._unflushed = 0

    def write_batch(self, values: list[StageResults]) -> None:
        try:
            for batch in values:
                if batch.results:
                    self._unflushed += len(batch.results)
                    reached(Point.BEFORE_PRODUCE)
                    if self._only_topics:
                        self._writers.write(batch.results)
                    else:
                        self._deal_out(batch.results)
                    reached(Point.PRODUCED)
                if batch.gone is not None:
                    for partition in batch.gone.partitions:
                        self._seen.pop(partition, None)
                    self._delivery.forget(batch.gone)
                if batch.safe:
                    self._seen.update(batch.safe)
            self._writers.serve()
        except BaseException as fault:
            self._delivery.failed(fault)
            raise

    def snapshot(self) -> dict[int, Any]:
        reached(Point.BEFORE_FLUSH)
        try:
            self._writers.flush(self._seen)
            states = {slot: state for slot, sink in self._hosted.items() if (state := sink.flush()) is not None}
        except BaseException as fault:
            self._delivery.failed(fault)
            raise
        reached(Point.DURABLE)
        self._delivery.frozen.update(self._seen)
        self._delivery.metrics.durable += self._unflushed
        self._seen.clear()
        self._unflushed = 0
        return states

    def close(self) -> None:
        for hosted in self._hosted.values():
            self._delivery.closed(hosted)
        self._delivery.closed(self)

    def _deal_out(self, results: list[Any]) -> None:
        to_topics = []
        to_sinks: dict[int, list[Any]] = {}
        opened_as = self._opened_as
        for result in results:
            slot = opened_as.get(result[0])
            if slot is None:
                to_topics.append(result)
            else:
                to_sinks.setdefault(slot, []).append(result[1])
        if to_topics:
            self._writers.write(to_topics)
        for slot, items in to_sinks.items():
            self._hosted[slot].write(items)
