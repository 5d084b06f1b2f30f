"""Keeps order and count if nodes keep records beyond their batch. Hot path of such flows, and of no others.

Every input is followed until nothing of it is kept any more; only then is it counted. A result of a record that comes
after a kept one of its partition is held back if the order of its output, or the transaction, requires it: what has left
is then a prefix of the source.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from heapq import heappop, heappush
from itertools import repeat
from typing import Any

import msgspec

from loom.streaming.errors import ErrorKind
from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.metrics import Counts
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.stages.node_input import Indexes
from loom.streaming.runtime.stages.stage_io import Result

__all__ = ["InFlightInput", "ReorderBuffer"]

_ORIGIN = 5
#: Results held back beyond which the source is given no more credit. They hold their values in memory.
_MOST_HELD = 20_000
_NONE_YET = object()
#: the partition for records without a position, in the order of arrival
NO_PARTITION = TopicPartition("", -1)


class InFlightInput(msgspec.Struct, eq=False, gc=False):
    """One input in flight. A struct, since one is made for each record; in no cycle, so the collector need not know of it."""

    #: held, so that its id stays unique
    origin: Any
    partition: TopicPartition
    offset: int
    sequence: int
    #: how many records made of it are kept
    kept: int = 0
    wrote: bool = False
    failed: ErrorKind | None = None


#: a result behind its place in the order: by input, by place among the children of that, by when it was made
_Ranked = tuple[int, Indexes, int, Result]


class ReorderBuffer:
    """Follows inputs, and lets results through in order."""

    def __init__(self, view: RecordAccessor, counts: Counts) -> None:
        self._place = view.coordinates or view.place
        self._counts = counts
        self._flights: dict[int, InFlightInput] = {}
        self._sequence = 0
        #: one object for each partition
        self._partitions: dict[tuple[str, int], TopicPartition] = {}
        self._touched: list[InFlightInput] = []
        #: slots whose results wait for kept records before them; `None`: all
        self._slots: frozenset[int] | None = frozenset()
        #: what each node that keeps records holds back, by partition the offset of the oldest
        self._bars: list[dict[TopicPartition, int]] = []
        #: by partition a heap, so that a batch does not touch results that must keep waiting
        self._held: dict[TopicPartition, list[tuple[int, _Ranked]]] = {}
        self._holds = 0
        self._number = 0

    def hold(self, slots: frozenset[int] | None) -> None:
        """Which slots wait."""
        self._slots = slots

    def watch(self, oldest: dict[TopicPartition, int]) -> None:
        """A node that keeps records, by the mapping in which it says from where on."""
        self._bars.append(oldest)

    def credit(self) -> int:
        """How many more results may be held back."""
        return _MOST_HELD - self._holds

    def arrive(self, origins: Sequence[Any]) -> None:
        """Records that the stage is about to work on."""
        place, flights, sequence, touched = self._place, self._flights, self._sequence, self._touched.append
        partitions, partition = self._partitions, NO_PARTITION
        last_topic: Any = _NONE_YET
        last_number: Any = _NONE_YET
        for origin in origins:
            sequence += 1
            topic, number, offset = place(origin)
            if number == last_number and topic == last_topic and offset is not None:
                # Records come in stretches of one partition.
                flight = InFlightInput(origin, partition, offset, sequence)
            elif topic is None or number is None or offset is None:
                flight = InFlightInput(origin, NO_PARTITION, sequence, sequence)
            else:
                known = partitions.get((topic, number))
                if known is None:
                    known = partitions[topic, number] = TopicPartition(topic, number)
                partition, last_topic, last_number = known, topic, number
                flight = InFlightInput(origin, partition, offset, sequence)
            flights[id(origin)] = flight
            touched(flight)
        self._sequence = sequence

    def oldest_unfinished(self) -> int:
        """Which input, counted from 1 in the order of arrival, is the first that has not left; the next to arrive if none."""
        first = next(iter(self._flights.values()), None)
        return first.sequence if first is not None else self._sequence + 1

    def keep(self, origin: Any) -> InFlightInput:
        """A record made of this input is kept."""
        flight = self._flights[id(origin)]
        flight.kept += 1
        return flight

    def release(self, flight: InFlightInput) -> None:
        """It is kept no longer."""
        flight.kept -= 1
        self._touched.append(flight)

    def release_all(self, flights: Sequence[InFlightInput]) -> None:
        """They are kept no longer."""
        touched = self._touched.append
        for flight in flights:
            flight.kept -= 1
            touched(flight)

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """The logs of these partitions are gone: what is in flight from them counts as records without a position."""
        for flight in self._flights.values():
            if flight.partition in partitions:
                flight.partition, flight.offset = NO_PARTITION, flight.sequence
        for partition in partitions & self._held.keys():
            for _, ranked in self._held.pop(partition):
                heappush(self._held.setdefault(NO_PARTITION, []), (ranked[0], ranked))

    def discard(self, partitions: Collection[TopicPartition]) -> None:
        """These partitions are another's now: nothing of them is in flight any more, and no result of them leaves."""
        for flight in [flight for flight in self._flights.values() if flight.partition in partitions]:
            del self._flights[id(flight.origin)]
        for partition in partitions & self._held.keys():
            self._holds -= len(self._held.pop(partition))

    def passed(
        self, results: list[Result], children: list[Indexes] | None, failed: list[tuple[Any, ErrorKind]]
    ) -> list[Result]:
        """What may leave now, in order; counts the inputs that are done."""
        flights = self._flights
        if failed:
            for origin, kind in failed:
                flight = flights[id(origin)]
                flight.failed = flight.failed or kind
            failed.clear()
        bars = self._lowest()
        leaving = self._released(bars)
        slots, number, leave = self._slots, self._number, leaving.append
        for result, child in zip(results, repeat(()) if children is None else children):  # noqa: B905 - one may be endless
            flight = flights[id(result[_ORIGIN])]
            flight.wrote = True
            number += 1
            ranked = (flight.sequence, child, number, result)
            if slots is None or result[0] in slots:
                partition = flight.partition
                bar = bars.get(partition)
                if bar is not None and flight.offset >= bar:
                    heappush(self._held.setdefault(partition, []), (flight.offset, ranked))
                    self._holds += 1
                    continue
            leave(ranked)
        self._number = number
        leaving.sort()
        if self._touched:
            self._settle()
        return [ranked[3] for ranked in leaving]

    def _released(self, bars: Mapping[TopicPartition, int]) -> list[_Ranked]:
        """What was held back and no longer comes after a kept record."""
        released: list[_Ranked] = []
        for partition, heap in list(self._held.items()):
            bar = bars.get(partition)
            while heap and (bar is None or heap[0][0] < bar):
                released.append(heappop(heap)[1])
            if not heap:
                del self._held[partition]
        self._holds -= len(released)
        return released

    def _lowest(self) -> dict[TopicPartition, int]:
        if len(self._bars) == 1:
            return self._bars[0]
        lowest: dict[TopicPartition, int] = {}
        for bar in self._bars:
            for partition, offset in bar.items():
                if offset < lowest.get(partition, offset + 1):
                    lowest[partition] = offset
        return lowest

    def _settle(self) -> None:
        counts, forget, written = self._counts, self._flights.pop, 0
        for flight in self._touched:
            if flight.kept or forget(id(flight.origin), None) is None:
                continue
            if flight.failed is not None:
                counts.inputs_failed[flight.failed] += 1
            elif flight.wrote:
                written += 1
            else:
                counts.inputs_dropped += 1
        counts.inputs_written += written
        self._touched.clear()
