"""The interface between a run and its supervisor, which is `loom run` with `streaming.supervision.restarts`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from loom.core.model import LoomFrozenStruct
from loom.streaming.record import TopicPartition, TopicPartitionOffset

__all__ = ["Isolation", "Supervisor"]


class Isolation(LoomFrozenStruct):
    """The records that a run works on one at a time, since one of them may have killed the process of an earlier run."""

    #: the offset after the last of them, by partition; no other partition is read
    until: Mapping[TopicPartition, int]
    #: the offset after the last of those that are processed alone in any case, however many there are
    alone: Mapping[TopicPartition, int] = {}
    #: records that are not processed again but go to the error route, each with how it ended the process
    fatal: Mapping[TopicPartitionOffset, str] = {}


class Supervisor(Protocol):
    """Receives the progress of a run. It also decides when a stop is forced: a second signal to the run itself does not.

    The methods are called on the workers' threads and must not wait. What they receive must outlive the process.
    """

    @property
    def restarts(self) -> int:
        """How often this process has been started again before."""

    @property
    def isolation(self) -> Isolation | None:
        """Which records are to be processed one at a time; `None`: none, the run is normal."""

    def moved(self, positions: Mapping[TopicPartition, int]) -> None:
        """Where the next run would start in these partitions: at the start, and after each committed epoch."""

    def reads(self, positions: Mapping[TopicPartition, int]) -> None:
        """How far these partitions have been read; called before anything is done with the records."""

    def works_on(self, partition: TopicPartition, offset: int, *, alone: bool) -> None:
        """An isolated record is about to be processed; `alone`: nothing else is in the process."""

    def works_on_nothing(self) -> None:
        """What the record that was alone became is durable."""

    def isolation_over(self) -> None:
        """The isolated records are past: this run ends in order, and the next one is as any other."""
