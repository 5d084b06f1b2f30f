"""Commits the offsets of idle partitions again now and then: a broker deletes old offsets of a group without members.

Asked by the source with each read. Brokers keep positions for a week by default, each partition's from its own last commit;
how long, and so how often, is asked at the start. In a transaction the repetition keeps the transactional id known too.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from loom.streaming.record import TopicPartition
from loom.streaming.runtime.stages.stage_io import Positions

__all__ = ["KeepAlive"]


class KeepAlive:
    """Once in each `interval_s` seconds, the positions that have not moved since the last time."""

    def __init__(self, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._due = clock() + interval_s
        self._moved: set[TopicPartition] = set()

    def still(self, moved: Positions, positions: Positions) -> Positions:
        """Those of `positions` that are to be said again; `moved` are the ones that are said anyway."""
        self._moved.update(moved)
        now = self._clock()
        if now < self._due:
            return {}
        said, self._moved = self._moved, set()
        self._due = now + self._interval_s
        return {partition: offset for partition, offset in positions.items() if partition not in said}
