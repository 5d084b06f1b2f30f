"""Finds the record that kills the process: from how runs ended, where they were, and what they were processing.

Plain bookkeeping for `supervise`, which asks it what the next run should isolate; it knows no process. A record is found
in three steps: runs are killed twice with a partition at the same position; records are read one by one up to the
farthest position read before; a record that was alone in the process kills it twice.
"""

from __future__ import annotations

from loom.cli.supervisor.recorder import RunState, partition_named
from loom.cli.supervisor.restart_policy import End
from loom.core.model import LoomFrozenStruct
from loom.streaming.record import TopicPartitionOffset
from loom.streaming.runtime.supervised import Isolation

__all__ = ["Finding", "Suspicion"]

#: how often a run is killed at one position before its records are isolated, and a record is alone before it is blamed
_TWICE = 2


class Finding(LoomFrozenStruct):
    """What the end of a run has shown."""

    #: the record that kills the process, with how it ended each time
    record: TopicPartitionOffset | None = None
    ends: str = ""
    #: it was to go to the error route and killed the process even so
    refused: bool = False
    #: the end has made the record better known, so it is not to be paid for
    evidence: bool = False


class Suspicion:
    """What is known of records that kill the process, until all that are suspected are past."""

    def __init__(self) -> None:
        self._isolating = False
        #: by partition, where it was when runs were killed, and how many of them in a row
        self._stuck: dict[str, tuple[int, int]] = {}
        #: the open partitions at the last SIGKILL: the first at a position may have been meant for anything
        self._killed_at: dict[str, int] = {}
        self._until: dict[str, int] = {}
        self._alone: dict[str, int] = {}
        #: how the process ended while a record was alone in it
        self._ends: dict[TopicPartitionOffset, list[str]] = {}
        self._fatal: dict[TopicPartitionOffset, str] = {}

    def isolation(self) -> Isolation | None:
        """What the next run is to isolate."""
        if not self._isolating:
            return None
        return Isolation(
            {partition_named(name): offset for name, offset in self._until.items()},
            {partition_named(name): offset for name, offset in self._alone.items()},
            dict(self._fatal),
        )

    def refuse(self, record: TopicPartitionOffset, ends: str) -> None:
        """Let the next runs send a record to the error route without working on it."""
        self._fatal[record] = ends

    def ended(self, end: End, run: RunState) -> Finding:
        """A run has ended; `run` is where it was."""
        open_ = {name: at for name, at in run.committed.items() if run.read.get(name, at) > at}
        if not self._kills(end, open_) or not open_:
            return Finding()
        self._stuck = {
            name: (at, self._stuck[name][1] + 1 if self._stuck.get(name, (None, 0))[0] == at else 1)
            for name, at in open_.items()
        }
        for name in open_:
            self._until[name] = max(run.read[name], self._until.get(name, 0))
        if not self._isolating:
            self._isolating = any(count >= _TWICE for _, count in self._stuck.values())
            return Finding()
        return self._found(end, run, open_)

    def _kills(self, end: End, open_: dict[str, int]) -> bool:
        """Whether the end may be about a record."""
        if not end.killed:
            return end.crashed
        again = any(self._killed_at.get(name) == at for name, at in open_.items())
        self._killed_at = open_
        return again

    def _found(self, end: End, run: RunState, open_: dict[str, int]) -> Finding:
        work = run.at_work
        if work is None:
            return Finding()
        if not work.alone:
            # Whatever was in the process is alone the next time.
            news = any(run.read[name] != self._alone.get(name) for name in open_)
            self._alone.update({name: run.read[name] for name in open_})
            return Finding(evidence=news)
        place = TopicPartitionOffset(*partition_named(work.partition), work.offset)
        ends = self._ends.setdefault(place, [])
        ends.append(end.text)
        if len(ends) < _TWICE:
            return Finding(evidence=True)
        return Finding(place, ", ".join(ends), refused=place in self._fatal, evidence=place not in self._fatal)
