"""The one way out: every result of a process leaves through one sink part, durable at the mark that ends the epoch. Hot path.

Numbered steps of an epoch's end: (1) every producer is flushed and every sink of the caller's is durable, dead letters of
refused records included; (2) the last completed offsets become committable. A failure in (1) ends the run with nothing committed.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from loom.core.async_bridge import AsyncBridge
from loom.core.observability import Scope
from loom.core.observability.runtime import Span
from loom.streaming.failpoints import Failpoint, failpoint
from loom.streaming.metrics import Timings
from loom.streaming.nodes.sink import IntoSink
from loom.streaming.runtime.custom_sinks import OpenedSink, OpenSink
from loom.streaming.runtime.epochs import InFlight
from loom.streaming.runtime.output_table import CustomOutput, OutputTable
from loom.streaming.runtime.producers import RecordWriter
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.stages.stage_io import SourceBatch, StageResults

__all__ = ["SinkPart"]

_slot_of = itemgetter(0)


class SinkPart:
    """Takes the results of all workers of a process; a mark makes them durable and their positions committable.

    Used by one thread.
    """

    def __init__(
        self,
        outlets: OutputTable,
        state: RunState,
        writers: RecordWriter,
        open_sink: OpenSink,
        bridge: Callable[[], AsyncBridge | None],
        states: Mapping[int, Any],
    ) -> None:
        self._state = state
        self._writers = writers
        state.opened(self, "producers", self._close_writers)
        self._hosted: dict[int, OpenedSink] = {}
        self._states = dict(states)
        #: the slot under which a slot's sink was opened: an `IntoSink` in several places has one partition
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
            kept = self._states.get(slot)
            self._hosted[slot] = hosted = open_sink(outlet.sink, outlet.name, outlet.config, kept, bridge)
            state.opened(hosted, f"sink {outlet.name}", hosted.close)
        self._only_topics = not self._hosted
        self._offsets = state.offsets
        self._unflushed = 0
        self._names = outlets.slots.names
        #: results since the last epoch, by slot, where an observer is told of them
        self._unwritten: Counter[int] | None = Counter() if state.observability.listens(Scope.WRITE) else None
        self._timings = state.metrics.part().timings if state.observability.measures is not None else None
        #: timestamps of records that were taken since the last epoch
        self._produced_ms: list[int] = []
        #: whose batches have been taken since the last epoch
        self._unsettled: set[InFlight] = set()
        self._thread = threading.get_ident()

    def write(self, values: list[StageResults]) -> None:
        """Take batches of results, in order; a mark among them ends an epoch."""
        try:
            for results in values:
                if results.batch.attempt != self._state.attempt:
                    continue  # of an epoch that was given up
                if results.results:
                    self._unflushed += len(results.results)
                    if self._unwritten is not None:
                        self._unwritten.update([result[0] for result in results.results])
                    failpoint(Failpoint.BEFORE_PRODUCE)
                    if self._only_topics:
                        self._writers.write(results.results)
                    else:
                        self._deal_out(results.results)
                    failpoint(Failpoint.PRODUCED)
                batch = results.batch
                if batch.gone is not None:
                    self._state.forget(batch.gone)
                if results.safe:
                    self._offsets.complete(results.safe, batch.generation)
                if batch.in_flight is not None:
                    self._take(batch.in_flight, batch)
                if batch.mark is not None:
                    self._end_epoch()
                    self._state.epochs.answer(batch.mark)
            self._writers.serve()
        except BaseException as fault:
            if (ends := self._taken_up_again(fault)) is not None:
                self._state.failed(ends)
                if ends is fault:
                    raise
                raise ends from None

    def snapshot(self) -> dict[int, Any]:
        """The engine ends an epoch of its own. Returns the states of the sinks that have one, by slot."""
        try:
            states = self._end_epoch()
        except BaseException as fault:
            self._state.failed(fault)
            raise
        self._state.epochs.answer(None)
        return states

    def _taken_up_again(self, fault: BaseException) -> BaseException | None:
        """Go on after an epoch that was given up: what is left of this attempt is dropped, and the sources begin again.

        Returns why the run ends, if it does. What fails on the way counts as another attempt.
        """
        recoveries = self._state.recoveries
        while True:
            if recoveries is None or self._hosted or not recoveries.may_go_on(fault):
                return fault
            try:
                self._writers = recoveries.writers(self._writers)
            except BaseException as failed:  # noqa: BLE001 - judged above, or returned
                fault = failed
            else:
                break
        self._offsets.abandon()
        self._unsettled.clear()
        self._produced_ms.clear()
        self._unflushed = 0
        self._state.attempt += 1
        return None

    def _take(self, in_flight: InFlight, batch: SourceBatch) -> None:
        in_flight.taken += 1
        in_flight.taken_records += len(batch.origins)
        in_flight.taken_bytes += batch.bytes
        in_flight.taken_thread = self._thread
        if batch.produced_ms:
            self._produced_ms += batch.produced_ms
        self._unsettled.add(in_flight)

    def _end_epoch(self) -> dict[int, Any]:
        """Make everything that was taken durable, then publish the offsets that are committable with it."""
        spans = self._writes()
        began = time.monotonic()
        try:
            failpoint(Failpoint.BEFORE_FLUSH)
            pending = self._offsets.pending()
            self._writers.flush(pending)
            states = {slot: state for slot, sink in self._hosted.items() if (state := sink.flush()) is not None}
            failpoint(Failpoint.DURABLE)
        except BaseException as error:
            for span in spans:
                span.end(error)
            raise
        for span in spans:
            span.end()
        if self._state.recoveries is not None and pending:
            self._state.recoveries.progressed()
        self._offsets.publish()
        self._state.metrics.durable += self._unflushed
        self._unflushed = 0
        for in_flight in self._unsettled:
            in_flight.settled = in_flight.taken
        self._unsettled.clear()
        if self._timings is not None:
            self._measure(self._timings, began)
        return states

    def _measure(self, timings: Timings, began: float) -> None:
        timings.epochs += 1
        timings.flush_s.observe(time.monotonic() - began)
        now_ms = time.time() * 1000
        for produced_ms in self._produced_ms:
            timings.latency_s.observe(max(now_ms - produced_ms, 0.0) / 1000)
        self._produced_ms.clear()

    def _writes(self) -> list[Span]:
        """What observers are told of this epoch: one write for each output that has something to make durable."""
        if not self._unwritten:
            return []
        begin, names = self._state.observability.begin, self._names
        written, self._unwritten = self._unwritten, Counter()
        spans = [begin(Scope.WRITE, names[slot], meta={"records": count}) for slot, count in written.items()]
        return [span for span in spans if span is not None]

    def close(self) -> None:
        """Release producers and sinks; never raises."""
        for hosted in self._hosted.values():
            self._state.closed(hosted)
        self._state.closed(self)

    def _close_writers(self) -> None:
        self._writers.close()

    def _deal_out(self, results: list[Any]) -> None:
        opened_as = self._opened_as
        slots = set(map(_slot_of, results))
        if len(slots) == 1 and (slot := opened_as.get(*slots)) is not None:
            self._hosted[slot].write([result[1] for result in results])
            return
        to_topics = []
        to_sinks: dict[int, list[Any]] = {}
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
