"""The state of one source client: written on its worker's thread, read by the watchdog and reported to a supervisor.

Once per epoch and per batch; nothing here runs per record.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from loom.streaming.record import TopicPartition
from loom.streaming.runtime.offsets import WorkerOffsets

__all__ = ["Standing"]

Positions = Mapping[TopicPartition, int]


class Standing:
    """One source client, as the watchdog sees it. The supervisor's `moved` is called with the start of the next run,
    whenever that has changed, and `reads` how far the partitions have been read.
    """

    def __init__(
        self,
        offsets: WorkerOffsets,
        moved: Callable[[Positions], None] | None = None,
        reads: Callable[[Positions], None] | None = None,
    ) -> None:
        self.offsets = offsets
        self._moved = moved
        self._reads = reads
        #: the worker's thread
        self.thread = threading.get_ident()
        #: the worker waits in the client for a record
        self.waits = False
        #: when the worker was last called, in monotonic seconds
        self.called_at = 0.0
        #: whether something was passed on that is not durable yet
        self.is_unsettled: Callable[[], bool] = lambda: False
        #: how many records are on their way to the sink part, and how many nodes keep
        self.in_flight: Callable[[], int] = lambda: 0
        self.buffered: Callable[[], int] = lambda: 0
        #: the latter by step id
        self.buffered_by: Callable[[], Mapping[str, int]] = dict
        #: until when, in monotonic seconds, records from these offsets on are kept on purpose, as of `seen_at`
        self.kept: Mapping[TopicPartition, tuple[int, float]] = {}
        #: until when nothing is read on purpose, since the stage is full; the same
        self.paused_until: float | None = None
        self.seen_at = 0.0

    def keeps(self, kept: Mapping[TopicPartition, tuple[int, float]], paused_until: float | None) -> None:
        """Note a sign of life of the worker, and what its stage keeps."""
        self.kept, self.paused_until, self.seen_at = kept, paused_until, time.monotonic()

    def on_purpose_until(self, partition: TopicPartition, position: int) -> float:
        """Until when a partition may stay at this offset; never later than the worker was last seen working."""
        until = self.paused_until or 0.0
        offset, kept_until = self.kept.get(partition, (position + 1, 0.0))
        if offset <= position:
            until = max(until, kept_until)
        return min(until, self.seen_at)

    def joined(self, positions: Positions) -> None:
        """Reading begins at these positions."""
        self.went_on(positions)
        self.look()

    def went_on(self, positions: Positions) -> None:
        """Records before these positions have been read, and nothing has been done with them yet."""
        self.offsets.advance(positions)
        if self._reads is not None and positions:
            self._reads(positions)

    def look(self) -> None:
        """Something may have been committed."""
        if self._moved is None:
            return
        changed = {}
        for row in self.offsets.rows:
            at = row.restart
            if at is not None and at != row.reported:
                row.reported = changed[row.partition] = at
        if changed:
            self._moved(changed)
