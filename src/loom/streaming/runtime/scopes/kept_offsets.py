"""The offsets of what a scope keeps, and the lowest of them for each partition, in whichever order calls are done. Hot path.

A call that is kept no longer only says so (`is_kept`); `settle` takes note of all of them at once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable

from loom.streaming.record import TopicPartition
from loom.streaming.runtime.scopes.call import Call

__all__ = ["KeptOffsets"]


class KeptOffsets:
    """By partition the offsets that are kept."""

    def __init__(self) -> None:
        #: the lowest of each partition at the last `settle`; shared with the reorder buffer, which reads it
        self.lowest: dict[TopicPartition, int] = {}
        #: offsets in their order, which is how records arrive, and whose each is; what is kept no longer leaves when it is the
        #: lowest. Two queues and not one of pairs, which the garbage collector would have to know of.
        self._queues: dict[TopicPartition, tuple[deque[int], deque[Call]]] = {}

    def add(self, call: Call) -> None:
        """The inputs of a call are kept."""
        call.is_kept = True
        queues = self._queues
        for flight in call.flights:
            offset, queue = flight.offset, queues.get(flight.partition)
            if queue is not None and offset >= queue[0][-1]:
                queue[0].append(offset)
                queue[1].append(call)
            else:
                self._put(flight.partition, offset, call)

    def settle(self) -> None:
        """Find the lowest again, now that some calls are kept no longer."""
        queues, emptied = self._queues, []
        for partition, (offsets, calls) in queues.items():
            if calls[0].is_kept:
                continue
            while calls and not calls[0].is_kept:
                offsets.popleft()
                calls.popleft()
            if calls:
                self.lowest[partition] = offsets[0]
            else:
                emptied.append(partition)
        for partition in emptied:
            del queues[partition]
            del self.lowest[partition]

    def _put(self, partition: TopicPartition, offset: int, call: Call) -> None:
        """The first of its partition, or one before others."""
        offsets, calls = self._queues.setdefault(partition, (deque(), deque()))
        index = bisect_right(offsets, offset)
        offsets.insert(index, offset)
        calls.insert(index, call)
        self.lowest[partition] = offsets[0]

    def renew(self, calls: Iterable[Call]) -> None:
        """Partitions have changed: the inputs of these calls, and of no others, are kept."""
        self.lowest.clear()
        self._queues.clear()
        for call in calls:
            self.add(call)
