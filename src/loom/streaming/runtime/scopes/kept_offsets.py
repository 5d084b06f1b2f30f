"""The offsets of what a scope keeps, and the lowest of them for each partition, in whichever order calls are done. Hot path."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush

from loom.streaming.record import TopicPartition
from loom.streaming.runtime.scopes.call import Call

__all__ = ["KeptOffsets"]


class KeptOffsets:
    """By partition the offsets that are kept."""

    def __init__(self) -> None:
        #: the lowest of each partition; shared with the reorder buffer, which reads it
        self.lowest: dict[TopicPartition, int] = {}
        #: (offset, a number, whose it is); what is kept no longer leaves when it is the lowest
        self._heaps: dict[TopicPartition, list[tuple[int, int, Call]]] = {}
        self._number = 0

    def add(self, call: Call) -> None:
        """The inputs of a call are kept."""
        call.is_kept = True
        for flight in call.flights:
            self._number += 1
            partition, offset = flight.partition, flight.offset
            heap = self._heaps.get(partition)
            if heap is None:
                self._heaps[partition] = [(offset, self._number, call)]
                self.lowest[partition] = offset
                continue
            heappush(heap, (offset, self._number, call))
            if heap[0][2] is call:
                self.lowest[partition] = heap[0][0]

    def remove(self, call: Call) -> None:
        """The inputs of a call are kept no longer."""
        call.is_kept = False
        heaps = self._heaps
        for flight in call.flights:
            heap = heaps.get(flight.partition)
            if heap is None or heap[0][2] is not call:
                continue
            while heap and not heap[0][2].is_kept:
                heappop(heap)
            if heap:
                self.lowest[flight.partition] = heap[0][0]
            else:
                del heaps[flight.partition]
                del self.lowest[flight.partition]

    def renew(self, calls: Iterable[Call]) -> None:
        """Partitions have changed: the inputs of these calls, and of no others, are kept."""
        self.lowest.clear()
        self._heaps.clear()
        for call in calls:
            self.add(call)
