"""The offsets of what a scope keeps, and the lowest of them for each partition, in whichever order calls are done. Hot path.

A call that is kept no longer only says so (`is_kept`); `settle` takes note of all of them at once.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterable
from operator import itemgetter

from loom.streaming.record import TopicPartition
from loom.streaming.runtime.scopes.call import Call

__all__ = ["KeptOffsets"]

_offset_of = itemgetter(0)


class KeptOffsets:
    """By partition the offsets that are kept."""

    def __init__(self) -> None:
        #: the lowest of each partition at the last `settle`; shared with the reorder buffer, which reads it
        self.lowest: dict[TopicPartition, int] = {}
        #: (offset, whose it is) by offset, which is how records arrive; what is kept no longer leaves when it is the lowest
        self._queues: dict[TopicPartition, deque[tuple[int, Call]]] = {}

    def add(self, call: Call) -> None:
        """The inputs of a call are kept."""
        call.is_kept = True
        queues = self._queues
        for flight in call.flights:
            offset, queue = flight.offset, queues.get(flight.partition)
            if queue is not None and offset >= queue[-1][0]:
                queue.append((offset, call))
            else:
                self._put(flight.partition, offset, call)

    def settle(self) -> None:
        """Find the lowest again, now that some calls are kept no longer."""
        queues, emptied = self._queues, []
        for partition, queue in queues.items():
            if queue[0][1].is_kept:
                continue
            while queue and not queue[0][1].is_kept:
                queue.popleft()
            if queue:
                self.lowest[partition] = queue[0][0]
            else:
                emptied.append(partition)
        for partition in emptied:
            del queues[partition]
            del self.lowest[partition]

    def _put(self, partition: TopicPartition, offset: int, call: Call) -> None:
        """The first of its partition, or one before others."""
        queue = self._queues.setdefault(partition, deque())
        insort(queue, (offset, call), key=_offset_of)
        self.lowest[partition] = queue[0][0]

    def renew(self, calls: Iterable[Call]) -> None:
        """Partitions have changed: the inputs of these calls, and of no others, are kept."""
        self.lowest.clear()
        self._queues.clear()
        for call in calls:
            self.add(call)
