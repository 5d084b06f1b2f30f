"""The one way out: every result of a process leaves through one sink part, durable at the end of the epoch. Hot path.

Numbered steps of an epoch's end: (1) every producer is flushed and every sink of the caller's is durable, dead letters of
refused records included; (2) the last safe positions are frozen. A failure in (1) ends the run with nothing frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from loom.core.async_bridge import AsyncBridge
from loom.streaming.failpoints import Failpoint, failpoint
from loom.streaming.nodes.sink import IntoSink
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.custom_sinks import OpenedSink, OpenSink
from loom.streaming.runtime.output_table import CustomOutput, OutputTable
from loom.streaming.runtime.producers import RecordWriter
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.stages.stage_io import StageResults

__all__ = ["SinkPart"]


class SinkPart:
    """Takes the results of all workers of a process; `flush` makes them durable and their positions committable."""

    def __init__(
        self,
        outlets: OutputTable,
        delivery: RunState,
        writers: RecordWriter,
        open_sink: OpenSink,
        bridge: Callable[[], AsyncBridge | None],
        states: Mapping[int, Any],
    ) -> None:
        self._delivery = delivery
        self._writers = writers
        delivery.opened(self, "producers", writers.close)
        self._hosted: dict[int, OpenedSink] = {}
        self._states = dict(states)
        #: the slot under which a slot's sink was opened: an `IntoSink` that stands in several places has one partition
        self._opened_as: dict[int, int] = {}
        into_sinks: dict[int, int] = {}
        for slot, outlet in enumerate(outlets.table):
            if not isinstance(outlet, CustomOutput):
                continue
            if isinstance(outlet.sink, IntoSink):
                self._opened_as[slot] = into_sinks.setdefault(id(outlet.sink), slot)
                if self._opened_as[slot] != slot:
                    continue
            self._opened_as[slot] = slot
            state = self._states.get(slot)
            self._hosted[slot] = hosted = open_sink(outlet.sink, outlet.name, outlet.config, state, bridge)
            delivery.opened(hosted, f"sink {outlet.name}", hosted.close)
        self._only_topics = not self._hosted
        self._seen: dict[TopicPartition, int] = {}
        self._unflushed = 0

    def write(self, values: list[StageResults]) -> None:
        """Take batches of results, in order."""
        try:
            for batch in values:
                if batch.results:
                    self._unflushed += len(batch.results)
                    failpoint(Failpoint.BEFORE_PRODUCE)
                    if self._only_topics:
                        self._writers.write(batch.results)
                    else:
                        self._deal_out(batch.results)
                    failpoint(Failpoint.PRODUCED)
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

    def flush(self) -> dict[int, Any]:
        """End an epoch. Returns the states of the sinks that have one, by slot."""
        failpoint(Failpoint.BEFORE_FLUSH)
        try:
            self._writers.flush(self._seen)
            states = {slot: state for slot, sink in self._hosted.items() if (state := sink.flush()) is not None}
        except BaseException as fault:
            self._delivery.failed(fault)
            raise
        failpoint(Failpoint.DURABLE)
        self._delivery.frozen.update(self._seen)
        self._delivery.metrics.durable += self._unflushed
        self._seen.clear()
        self._unflushed = 0
        return states

    def close(self) -> None:
        """Release producers and sinks; never raises."""
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
