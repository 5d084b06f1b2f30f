"""The offsets of what a scope keeps, and the lowest of them for each partition, in whichever order calls are done. Hot path."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Any

from loom.streaming.record import TopicPartition
from loom.streaming.runtime.scopes.call import Call

__all__ = ["KeptOffsets"]

_ALIVE = 2


class KeptOffsets:
    """By partition the offsets that are kept."""

    def __init__(self) -> None:
        #: the lowest of each partition; shared with the reorder buffer, which reads it
        self.lowest: dict[TopicPartition, int] = {}
        self._heaps: dict[TopicPartition, list[list[Any]]] = {}
        self._number = 0

    def add(self, call: Call) -> None:
        """The inputs of a call are kept."""
        for flight in call.flights:
            self._number += 1
            mark = [flight.offset, self._number, True, flight.partition]
            call.marks.append(mark)
            heap = self._heaps.setdefault(flight.partition, [])
            heappush(heap, mark)
            if flight.offset < self.lowest.get(flight.partition, flight.offset + 1):
                self.lowest[flight.partition] = flight.offset

    def remove(self, call: Call) -> None:
        """The inputs of a call are kept no longer."""
        for mark in call.marks:
            mark[_ALIVE] = False
        for partition in {mark[3] for mark in call.marks}:
            heap = self._heaps[partition]
            while heap and not heap[0][_ALIVE]:
                heappop(heap)
            if heap:
                self.lowest[partition] = heap[0][0]
            else:
                del self._heaps[partition]
                self.lowest.pop(partition, None)
        call.marks.clear()

    def renew(self, calls: Iterable[Call]) -> None:
        """Partitions have changed: the inputs of these calls, and of no others, are kept."""
        self.lowest.clear()
        self._heaps.clear()
        for call in calls:
            call.marks.clear()
            self.add(call)
