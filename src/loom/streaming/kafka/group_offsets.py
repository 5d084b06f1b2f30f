"""The offsets of one consumer group, as one source client commits them: check who moved them, commit, take the answers.

Created by the consumer client, on whose client and thread it works. A commit carries the run's metadata.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from loom.core.logger import get_logger
from loom.streaming.kafka.client_config import is_denied, is_transient, kafka_error
from loom.streaming.kafka.cluster_faults import ClusterFaults, denied
from loom.streaming.kafka.errors import CommitError, KafkaTransportError, SecondInstanceError
from loom.streaming.kafka.interruptible import call_interruptibly
from loom.streaming.kafka.offset_metadata import Committed, RunMetadata
from loom.streaming.kafka.patience import Patience, reason_at
from loom.streaming.kafka.settings import ConsumerSettings
from loom.streaming.kafka.start_offsets import StartPositions, committed_positions
from loom.streaming.record import TopicPartition

__all__ = ["HAS_MEMBERS", "TOPIC_GONE", "GroupOffsets"]

_log = get_logger(__name__)

#: seconds that fetching the offsets of the group may take; it blocks the worker
_LOOK = 1.0
#: seconds for which nothing is committed to a group that has lost an offset: its topic may have been recreated, which the
#: check of the topics will report
_SURE = 5.0

#: an error of the protocol that older clients pass on and have no name for
_INCONSISTENT_TOPIC_ID = 103
#: the errors for a topic that is deleted, or was recreated
TOPIC_GONE = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        _INCONSISTENT_TOPIC_ID,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)
#: how a broker refuses the commits of a client that is no member, if the group has members
HAS_MEMBERS = frozenset({KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS})


class GroupOffsets:
    """The offsets of the group in the partitions of one client, as far as we know them.

    `serve` lets the client work for some seconds; `waiting` is called between the slices of a wait and may raise; `gone`
    is called with a topic for which the group has lost an offset.
    """

    def __init__(
        self,
        consumer: Consumer,
        settings: ConsumerSettings,
        *,
        serve: Callable[[float], None],
        waiting: Callable[[], None],
        gone: Callable[[str, str], None],
        metadata: RunMetadata | None = None,
        faults: ClusterFaults | None = None,
    ) -> None:
        self._consumer = consumer
        self._settings = settings
        self.serve = serve
        self._waiting = waiting
        self._gone = gone
        self._metadata = metadata
        self._faults = faults or ClusterFaults(settings.to_confluent_config())
        self._answers: list[tuple[KafkaError | None, list[ClientPartition]]] = []
        self._outstanding = False
        self._at: dict[TopicPartition, int] = {}
        #: what a commit that failed may have written nevertheless
        self._attempted: dict[TopicPartition, int] = {}
        #: partitions whose offset carries our run id, so any other id is that of another run
        self._ours: set[TopicPartition] = set()
        #: when the group was first seen without an offset that it had
        self._lost_at: float | None = None

    @property
    def at(self) -> Mapping[TopicPartition, int]:
        """The offset of the group in each partition; negative if it has none."""
        return self._at

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Committed]:
        """The committed offsets of the group."""
        return committed_positions(self._consumer, self._settings, partitions, self.serve, self._faults)

    def found(self, start: StartPositions) -> None:
        """Note the offsets of the group at the start."""
        # A group without an offset has moved too, if another program commits one.
        for partition in start.offsets:
            had = start.committed.get(partition)
            self._at[partition] = had.offset if had is not None else OFFSET_INVALID

    def check_committed(
        self, committed: Mapping[TopicPartition, Committed], attempted: Mapping[TopicPartition, int]
    ) -> None:
        """Raise `SecondInstanceError` where another instance has committed an offset.

        `attempted` are the offsets of a commit of ours whose answer is not known.
        """
        for partition, had in committed.items():
            ours = self._at.get(partition, OFFSET_INVALID)
            metadata = self._metadata if partition in self._ours else None
            _check_unmoved(self._settings, partition, had, (ours, attempted.get(partition, ours)), metadata)

    def leave(self, partition: TopicPartition) -> None:
        """The log of this partition is gone: its offset is no longer ours."""
        self._at.pop(partition, None)
        self._attempted.pop(partition, None)
        self._ours.discard(partition)

    def check(self) -> bool:
        """Whether another instance has moved the offsets of the group since our last commit; `True` means it has not.

        `False` if the broker does not answer in time, or has just lost an offset. Raises as `look`. To be called between an
        answered commit and the next one; a process that is stopped between this check and its commit may still repeat
        records, and never loses any.
        """
        lost = self.look()
        if lost is None:
            return False
        if not lost:
            self._lost_at = None
            return True
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
            for topic, partition in {partition.topic: partition for partition in lost}.items():
                self._gone(topic, f"the group has lost its offset in {partition}")
        return now - self._lost_at > _SURE

    def look(self) -> set[TopicPartition] | None:
        """The partitions in which the group has lost its offset; `None` if the broker does not answer in time.

        Nobody moves a group to nowhere: the broker forgets the positions of a topic that is deleted. Raises
        `SecondInstanceError` when another instance has moved the group, or has taken it over.
        """
        if not self._at:
            return set()
        try:
            committed = self._consumer.committed([ClientPartition(*partition) for partition in self._at], timeout=_LOOK)
        except KafkaException as error:
            if is_transient(kafka_error(error)):
                return None
            raise self._commit_error(kafka_error(error)) from None
        lost: set[TopicPartition] = set()
        for found in committed:
            partition = TopicPartition(found.topic, found.partition)
            ours = self._at[partition]
            if found.error is not None:
                return None
            if found.offset < 0 <= ours:
                lost.add(partition)
                continue
            had = Committed(found.offset, found.metadata or "")
            metadata = self._metadata if partition in self._ours else None
            _check_unmoved(self._settings, partition, had, (ours, self._attempted.get(partition, ours)), metadata)
            self._at[partition] = found.offset
        return lost

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Send positions to the group without waiting; `commit_answers` tells what became of them."""
        self._outstanding = True
        self._attempted = dict(positions)
        offsets = self._offsets(positions)
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            # Refused at once: handled like an answer that comes later, where temporary errors are recognised.
            self.answered(kafka_error(error), offsets)

    @property
    def commit_outstanding(self) -> bool:
        """Whether a commit is in flight."""
        return self._outstanding

    def answered(self, error: KafkaError | None, partitions: list[ClientPartition]) -> None:
        """The client's callback."""
        self._outstanding = False
        self._answers.append((error, partitions))

    def commit_answers(self) -> dict[TopicPartition, int] | None:
        """The offsets that the last commit wrote, or `None` if there is no answer yet.

        Raises `CommitError` for a permanent error. A temporary one commits nothing: the same or later offsets are sent
        again at the next epoch.
        """
        if not self._answers:
            return None
        confirmed: dict[TopicPartition, int] = {}
        again, why = list[str](), ""
        answers, self._answers = self._answers, []
        for error, partitions in answers:
            for found in partitions:
                problem = error or found.error
                partition = TopicPartition(found.topic, found.partition)
                if problem is None:
                    confirmed[partition] = found.offset
                elif problem.code() == KafkaError._NO_OFFSET:
                    # Under the client's auto-commit: nothing has been read since the last one.
                    continue
                elif is_transient(problem):
                    again.append(str(partition))
                    why = problem.str()
                elif problem.code() in TOPIC_GONE:
                    self._gone(found.topic, f"its offset was refused: {problem.str()}")
                else:
                    raise self._commit_error(problem)
        if again:
            _log.warning("commit_retry", partitions=len(again), first=again[0], reason=why)
        self.wrote(confirmed)
        return confirmed

    def commit_now(self, positions: Mapping[TopicPartition, int]) -> None:
        """Commit offsets and wait for the answer. A topic that is gone is reported to `gone`.

        Raises `CommitError`, and `BrokerUnavailableError` when no coordinator has answered within `start_timeout_ms`.
        """
        patience = Patience(
            "the answer of the group's coordinator to a commit",
            self._settings.start_timeout_ms / 1000,
            lambda: self._faults.explain() or reason_at(self._settings.to_confluent_config()),
        )
        left = dict(positions)

        def commit() -> dict[TopicPartition, KafkaError]:
            try:
                answers = self._consumer.commit(offsets=self._offsets(left), asynchronous=False) or []
            except KafkaException as error:
                return dict.fromkeys(left, kafka_error(error))
            return {TopicPartition(p.topic, p.partition): p.error for p in answers if p.error is not None}

        def waiting() -> None:
            self._waiting()
            patience.spend("no answer yet")

        # One call lasts for 45 s while the broker is away (measured).
        while problems := call_interruptibly(commit, waiting):
            for partition, problem in problems.items():
                if problem.code() in TOPIC_GONE:
                    del left[partition]
                    self._gone(partition.topic, f"its offset was refused: {problem.str()}")
                elif not is_transient(problem):
                    raise self._commit_error(problem)
                else:
                    patience.spend(problem.str())
            if not left:
                break
            self.serve(0.1)
        self.wrote(left)

    def store(self, positions: Mapping[TopicPartition, int]) -> None:
        """Under the client's auto-commit: what it may commit in its own time."""
        try:
            self._consumer.store_offsets(offsets=self._offsets(positions))
        except KafkaException as error:
            raise self._commit_error(kafka_error(error)) from None

    def commit_stored(self) -> None:
        """Under the client's auto-commit: ask for what is stored, now rather than at the client's next turn.

        Does not wait; see `commit_outstanding`.
        """
        self._outstanding = True
        try:
            self._consumer.commit(asynchronous=True)
        except KafkaException as error:
            self._outstanding = False
            if kafka_error(error).code() != KafkaError._NO_OFFSET:
                _log.warning("commit_failed", reason=kafka_error(error).str())

    def wrote(self, positions: Mapping[TopicPartition, int]) -> None:
        """Note that the group is at these offsets, which carry our metadata."""
        self._at.update(positions)
        if self._metadata is not None:
            self._ours.update(positions)

    def _offsets(self, positions: Mapping[TopicPartition, int]) -> list[ClientPartition]:
        metadata = self._metadata
        if metadata is None:
            return [ClientPartition(*partition, offset) for partition, offset in positions.items()]
        return [ClientPartition(*p, offset, metadata.text(p.topic)) for p, offset in positions.items()]

    def _commit_error(self, error: KafkaError) -> KafkaTransportError:
        if error.code() in HAS_MEMBERS:
            return SecondInstanceError(
                f"the broker refuses the commits of the group {self._settings.group_id!r}, because other consumers are "
                f"subscribed with it: {error.str()}. A flow reads by a fixed assignment and does not share its group: "
                "stop those consumers, or give the flow a group_id of its own. What is not committed is read again"
            )
        what = "offsets could not be committed"
        return denied(error, what) if is_denied(error) else CommitError(f"{what}: {error.str()}")


def _check_unmoved(
    settings: ConsumerSettings,
    partition: TopicPartition,
    had: Committed,
    expected: tuple[int, ...],
    metadata: RunMetadata | None,
) -> None:
    """Raise `SecondInstanceError` for a position that this run did not leave there.

    `metadata` is this run's, where the position carries it.
    """
    if metadata is not None and (other := metadata.of_another_run(partition.topic, had.metadata)) is not None:
        raise SecondInstanceError(
            f"another run has taken over the group {settings.group_id!r}: its offset in {partition} was committed by the "
            f"flow {other.flow!r}, run {other.run}, and this is the flow {metadata.flow!r}, run {metadata.run}. "
            "Two instances of one flow share a group, or two flows do: stop one of them, or give each flow a group_id of "
            "its own. This one ends; what it has not committed is read again"
        )
    if had.offset not in expected:
        raise SecondInstanceError(
            f"someone else changed the offsets of the group {settings.group_id!r}: {partition} is at {had.offset}, and this "
            f"run left it at {expected[0]}. The group was reset by hand, or two instances of one flow share it: stop one "
            "of them. This one ends; what it has not committed is read again"
        )
