"""The group of a transactional run: where it starts, and a check before each commit that no other program has moved it.

One client beside the readers', which reads nothing; used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaException

from loom.streaming.kafka.client_config import kafka_error
from loom.streaming.kafka.consumer import ConsumerClient
from loom.streaming.kafka.errors import SecondInstanceError
from loom.streaming.kafka.offset_metadata import Committed, RunMetadata
from loom.streaming.kafka.outage import Clusters
from loom.streaming.kafka.settings import ConsumerSettings
from loom.streaming.kafka.start_offsets import StartPositions
from loom.streaming.kafka.topic_monitor import TopicState
from loom.streaming.record import TopicPartition

__all__ = ["TransactionGroup"]

#: seconds in which the client works between two requests
_PAUSE = 0.05


class TransactionGroup:
    """`topics` is how the start saw them, and `look` checks again. `waiting` is called between the slices of every wait and may
    raise; `gone` is called with a topic that is gone.
    """

    def __init__(
        self,
        settings: ConsumerSettings,
        topics: Mapping[str, TopicState],
        look: Callable[[], Mapping[str, TopicState]],
        metadata: RunMetadata,
        *,
        waiting: Callable[[str], None],
        gone: Callable[[str, str], None],
        clusters: Clusters | None = None,
    ) -> None:
        self._settings = settings
        self._waiting = waiting
        self._gone = gone
        self._reader = ConsumerClient(settings, gone, metadata, clusters)
        self._reader.waiting = waiting
        self._look_at_topics = look
        #: how the topics were seen last
        self._topics = topics
        #: partitions of a log that is gone: their offsets are no longer sent
        self._dead: set[TopicPartition] = set()
        #: the offsets of a transaction of which it is not known whether it was committed
        self._sent: dict[TopicPartition, int] = {}

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Committed]:
        """The committed offsets of the group."""
        return self._reader.group.committed(partitions)

    def client_metadata(self) -> Any:
        """What ties positions to the group in a transaction; the client's own object."""
        return self._reader.group_metadata()

    def serve(self, wait_s: float) -> None:
        """Let the client work for some seconds; raises what `waiting` raises."""
        self._waiting("the offsets of the group")
        self._reader.serve(wait_s)

    def start(self, partitions: Iterable[TopicPartition], siblings: Iterable[TopicPartition] = ()) -> StartPositions:
        """Where to begin with these partitions; they are checked from now on. `siblings` as for `resolve_start`."""
        if any(state.id is None for state in self._topics.values()):
            self._topics = self._states()
        found = self._reader.resolve(partitions, {}, siblings)
        self._reader.group.found(found)
        return found

    def wrote(self, positions: Mapping[TopicPartition, int]) -> None:
        """These positions were committed with this run's metadata."""
        self._sent = {}
        self._reader.group.wrote(positions)

    def checked(self, positions: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        """The positions that may be sent now; those in a log that is gone are left out.

        Raises `SecondInstanceError` when the group was moved since our last commit, or belongs to another run.
        """
        self._reader.serve(0)
        while (lost := self._reader.group.look()) is None:
            self._waiting("the offsets of the group")
            self._reader.serve(_PAUSE)
        if lost - self._dead:
            self._bury(lost - self._dead)
        if self._dead:
            positions = {p: offset for p, offset in positions.items() if p not in self._dead}
        self._sent = dict(positions)
        return positions

    def settled(self) -> dict[TopicPartition, Committed] | None:
        """Where the group is in the partitions of this run, asked once; `None` while an open transaction hides it."""
        partitions = [partition for partition in self._reader.group.at if partition not in self._dead]
        committed, silent = self._reader.settled(partitions, ())
        return None if silent else committed

    def check_committed(self, committed: Mapping[TopicPartition, Committed]) -> None:
        """Raise `SecondInstanceError` where another instance has committed one of these since our last transaction."""
        self._reader.group.check_committed(committed, self._sent)

    def aborted(self) -> None:
        """The offsets of the last transaction were not committed."""
        self._sent = {}

    def renewed(self, partitions: Iterable[TopicPartition]) -> None:
        """From now on these partitions have another log."""
        for partition in partitions:
            self._dead.discard(partition)
            self._sent.pop(partition, None)
            self._reader.group.leave(partition)

    def close(self) -> None:
        """Close the client; never raises."""
        self._reader.close()

    def _bury(self, lost: set[TopicPartition]) -> None:
        """Offsets were lost: with their topic, or deleted by someone."""
        seen = self._states()
        for partition in sorted(lost):
            before, now = self._topics.get(partition.topic), seen.get(partition.topic)
            if now is not None and (before is None or before.id is None or now.id == before.id):
                raise SecondInstanceError(
                    f"someone deleted the offset of the group {self._settings.group_id!r} in {partition} while this run was "
                    "using it. This one ends, and nothing of its epoch is visible: set the offset at which the flow "
                    "should start, and restart it"
                )
            self._dead.add(partition)
            self._gone(partition.topic, f"the group has lost its offset in {partition}")
        self._topics = {**self._topics, **seen}

    def _states(self) -> Mapping[str, TopicState]:
        while True:
            try:
                return self._look_at_topics()
            except KafkaException as error:
                self._waiting(f"the topics of the source: {kafka_error(error).str()}")
                self._reader.serve(_PAUSE)
