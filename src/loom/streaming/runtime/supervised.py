"""What a run and whoever starts its process again tell each other; `loom run` with `streaming.supervision.restarts` does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from loom.core.model import LoomFrozenStruct
from loom.streaming.record import TopicPartition, TopicPartitionOffset

__all__ = ["Isolation", "Supervisor"]


class Isolation(LoomFrozenStruct):
    """The records that a run works on one at a time, since one of them may have killed the process of an earlier run."""

    #: the offset behind the last of them, by partition; no other partition is read
    until: Mapping[TopicPartition, int]
    #: the offset behind the last of those that are alone in the process in any case, however many there are
    alone: Mapping[TopicPartition, int] = {}
    #: records that are not worked on again but go to the error route, each with how it ended the process
    fatal: Mapping[TopicPartitionOffset, str] = {}


class Supervisor(Protocol):
    """Is told how a run gets on. It also says when a stop is to be forced: a second signal to the run itself is none.

    The methods are called on the workers' threads and must not wait. What they are told must outlive the process.
    """

    @property
    def isolation(self) -> Isolation | None:
        """Which records are to be worked on one at a time; `None`: none, the run is as any other."""

    def moved(self, positions: Mapping[TopicPartition, int]) -> None:
        """Where the next run would begin with these partitions: at the start, and with each epoch that was confirmed."""

    def reads(self, positions: Mapping[TopicPartition, int]) -> None:
        """How far these partitions have been read; told before anything is done with the records."""

    def works_on(self, partition: TopicPartition, offset: int, *, alone: bool) -> None:
        """An isolated record is about to be worked on; `alone`: nothing else is in the process."""

    def works_on_nothing(self) -> None:
        """What the record that was alone became is durable."""

    def isolation_over(self) -> None:
        """The isolated records are past: this run ends in order, and the next one is as any other."""
