"""Where one source client stands: written on its worker's thread, read by the watchdog and told to a supervisor.

Once per epoch and per batch; nothing here runs per record.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from loom.streaming.record import TopicPartition

__all__ = ["Standing"]

Positions = Mapping[TopicPartition, int]


class Standing:
    """The positions of one source client.

    `held` tells where the next run would begin with each partition if this one ended now; `moved` is told of changes, and
    `reads` of how far the partitions have been read.
    """

    def __init__(
        self,
        partitions: Collection[TopicPartition],
        held: Callable[[], Positions],
        moved: Callable[[Positions], None] | None,
        reads: Callable[[Positions], None] | None = None,
    ) -> None:
        self._partitions = partitions
        self._held = held
        self._moved = moved
        self._reads = reads
        #: the worker's thread
        self.thread = threading.get_ident()
        #: where the next run would begin
        self.confirmed: dict[TopicPartition, int] = {}
        #: the worker waits in the client for a record
        self.waits = False
        #: when the worker was last called, in monotonic seconds
        self.called_at = 0.0
        #: whether something was handed on that is not durable yet
        self.is_unsettled: Callable[[], bool] = lambda: False
        #: how far this run has read
        self.read: dict[TopicPartition, int] = {}

        #: until when, in monotonic seconds, records from these offsets on are kept on purpose, as of `seen_at`
        self.kept: Mapping[TopicPartition, tuple[int, float]] = {}
        #: until when nothing is read on purpose, since the stage is full; the same
        self.paused_until: float | None = None
        self.seen_at = 0.0

    def keeps(self, kept: Mapping[TopicPartition, tuple[int, float]], paused_until: float | None) -> None:
        """The worker has come by, and this is what its stage keeps."""
        self.kept, self.paused_until, self.seen_at = kept, paused_until, time.monotonic()

    def on_purpose_until(self, partition: TopicPartition, position: int) -> float:
        """Until when a partition may stand at this position; never later than the worker was seen at work."""
        until = self.paused_until or 0.0
        offset, kept_until = self.kept.get(partition, (position + 1, 0.0))
        if offset <= position:
            until = max(until, kept_until)
        return min(until, self.seen_at)

    def joined(self, positions: Positions) -> None:
        """Reading begins at these positions."""
        self.went_on(positions)
        self._note(positions)

    def went_on(self, positions: Positions) -> None:
        """Records before these positions have been read, and nothing has been done with them yet."""
        self.read.update(positions)
        if self._reads is not None and positions:
            self._reads(positions)

    def left(self, partitions: Iterable[TopicPartition]) -> None:
        """Nothing is read of these any more: their topic is gone."""
        for partition in partitions:
            self.read.pop(partition, None)
            self.confirmed.pop(partition, None)

    def look(self) -> None:
        """Something may have been confirmed."""
        self._note(self._held())

    def _note(self, positions: Positions) -> None:
        changed = {
            partition: positions[partition]
            for partition in self._partitions
            if positions.get(partition, -1) >= 0 and positions[partition] != self.confirmed.get(partition)
        }
        if changed:
            self.confirmed.update(changed)
            if self._moved is not None:
                self._moved(changed)
