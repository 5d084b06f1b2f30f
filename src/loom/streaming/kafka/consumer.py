"""One consumer client for all partitions of one worker: large batches in, positions out. Hot path: `read`.

Partitions are pinned with `assign()`, so that a restarted flow reads at once and the group serves as offset store. The
client never resets an offset by itself; a position that the log does not hold is an error here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as ClientPartition

from loom.streaming.kafka.client_config import CLIENT_LOG, is_transient, kafka_error, make_client
from loom.streaming.kafka.errors import CommitError, KafkaTransportError, SecondInstanceError, TopicMissingError
from loom.streaming.kafka.out_of_range import go_on_at
from loom.streaming.kafka.record import RecordPlace, TopicPartition
from loom.streaming.kafka.settings import ConsumerSettings
from loom.streaming.kafka.sliced import in_slices
from loom.streaming.kafka.start import Committed, StartPositions, committed_positions, log_range, resolve_start
from loom.streaming.kafka.view import OriginView

__all__ = ["CLIENT_RECORDS", "PartitionReader"]

#: seconds within which a commit that is waited for must be answered
_ANSWER = 12.0
#: seconds that a look at the group may take; it holds up the worker
_LOOK = 1.0
#: seconds for which nothing is committed to a group that has lost a position: its topic may have been made anew, which
#: the look at the topics will tell
_SURE = 5.0

_OUT_OF_RANGE = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION})
_TOPIC_GONE = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.INCONSISTENT_TOPIC_ID,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)
#: seconds that closing may take, and when a commit is unanswered anyway
_CLOSE = 3.0
_NO_ANSWER = 0.5


def _place(message: Message) -> RecordPlace:
    return RecordPlace(message.topic(), message.partition(), message.offset())


def _timestamp(message: Message) -> int:
    return message.timestamp()[1]


#: the client's own objects, looked at without converting them
CLIENT_RECORDS = OriginView(
    value=Message.value,
    key=Message.key,
    headers=Message.headers,
    timestamp=_timestamp,
    place=_place,
    expressions={
        "value": "origin.value()",
        "key": "origin.key()",
        "headers": "origin.headers()",
        "timestamp": "origin.timestamp()[1]",
    },
)

_error_of = Message.error


def _raise_missing(topic: str, why: str) -> None:
    raise TopicMissingError(f"{topic} is gone: {why}")


class PartitionReader:
    """Reads the partitions given to `start`. Ended by `close`; used by one thread.

    `gone` is told of a topic that the broker does not know any more, or of which the group has lost its position; by
    default the former is a `TopicMissingError`.
    """

    def __init__(self, settings: ConsumerSettings, gone: Callable[[str, str], None] = _raise_missing) -> None:
        self._settings = settings
        self._gone = gone
        #: asked between the slices of a wait whether to go on; what it raises ends the wait
        self.waiting: Callable[[str], None] | None = None
        self._answers: list[tuple[KafkaError | None, list[ClientPartition]]] = []
        # The end of a partition is said aloud, since the last offsets before it may hold no record (transaction
        # markers, compaction) and the position has to pass them all the same.
        own = {"on_commit": self._on_commit, "error_cb": _note_error, "enable.partition.eof": True}
        self._consumer = make_client(Consumer, settings.to_confluent_config() | own)
        self._client_partitions: list[ClientPartition] = []
        self._positions: dict[TopicPartition, int] = {}
        #: something was read since the last look at the positions
        self._stirred = False
        #: where reading went on because a position was not in the log, until `moved` tells
        self._jumped: dict[TopicPartition, int] = {}
        #: partitions whose log was shorter than our position: reading has gone on in what may be another log
        self._in_another_log: set[TopicPartition] = set()
        #: where we stood in topics that were deleted
        self._left: dict[TopicPartition, int] = {}
        self._commit_outstanding = False
        #: what the group holds as far as we know, and what a commit that failed may have left there all the same
        self._group: dict[TopicPartition, int] = {}
        self._attempted: dict[TopicPartition, int] = {}
        #: when the group was first seen without a position that it had
        self._lost_at: float | None = None

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Committed]:
        """The positions that the group has."""
        return committed_positions(self._consumer, self._settings, partitions, self.serve)

    def resolve(self, partitions: Iterable[TopicPartition], fallback: Mapping[TopicPartition, int]) -> StartPositions:
        """Where to begin with these partitions.

        The group's position comes first, then `fallback` (a recovery snapshot's), then `auto_offset_reset` as a real
        offset. Raises `OffsetOutOfRangeError` for a position that the log does not hold, unless the settings say where
        to go on.
        """
        return resolve_start(self._consumer, self._settings, partitions, fallback, self.serve)

    def start(
        self, partitions: Iterable[TopicPartition], fallback: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        """Resolve where to begin with these partitions and begin there; may be called again with others.

        Returns the positions that the group does not have.
        """
        found = self.resolve(partitions, fallback)
        self._consumer.incremental_assign(_offsets(found.offsets))
        self._client_partitions += [ClientPartition(*partition) for partition in found.offsets]
        self._positions.update(found.offsets)
        # A group that has no position yet has moved as well when it gets one from somebody else.
        self._group.update(dict.fromkeys(found.unknown, OFFSET_INVALID))
        self._group.update({partition: had.offset for partition, had in found.committed.items()})
        return found.unconfirmed

    @property
    def positions(self) -> Mapping[TopicPartition, int]:
        """The next offset to read of each partition, as of the last look."""
        return self._positions

    @property
    def group(self) -> Mapping[TopicPartition, int]:
        """Where the group stands, as far as it has told us; negative for a partition of which it knows nothing."""
        return self._group

    def group_metadata(self) -> Any:
        """What ties positions to the group in a transaction; the client's own object."""
        return self._consumer.consumer_group_metadata()

    def read(self, most: int, wait_s: float) -> Sequence[Message]:
        """At most `most` records; waits up to `wait_s` seconds for the first, and for no second."""
        first = self._consumer.poll(wait_s) if wait_s > 0 else None
        if first is None:
            messages = self._consumer.consume(most, 0)
        else:
            messages = [first, *self._consumer.consume(most - 1, 0)] if most > 1 else [first]
        if any(map(_error_of, messages)):
            messages = [message for message in messages if self._is_record(message)]
        if messages:
            self._stirred = True
        return messages

    def moved(self) -> Mapping[TopicPartition, int]:
        """The positions that have changed since the last call: the next offset to read of each partition."""
        if not self._stirred:
            return {}
        self._stirred = False
        moved, self._jumped = self._jumped, {}
        for found in self._consumer.position(self._client_partitions):
            if found.offset >= 0:
                partition = TopicPartition(found.topic, found.partition)
                if self._positions.get(partition) != found.offset:
                    self._positions[partition] = moved[partition] = found.offset
        return moved

    def lag(self) -> int:
        """Offsets between what was read and the ends of the logs, as far as the client has heard of them. Asks nobody."""
        behind = 0
        for partition, position in self._positions.items():
            try:
                _, end = self._consumer.get_watermark_offsets(ClientPartition(*partition), cached=True)
            except KafkaException:
                continue
            behind += max(end - position, 0)
        return behind

    def leave(self, topic: str) -> None:
        """The topic is gone: read it no more, and answer for its positions no more."""
        for partition in [partition for partition in self._positions if partition.topic == topic]:
            self._left[partition] = self._positions.pop(partition)
            self._group.pop(partition, None)
            self._consumer.incremental_unassign([ClientPartition(*partition)])
        self._client_partitions = [ClientPartition(*partition) for partition in self._positions]

    def begin_anew(self, topic: str) -> None:
        """The topic is another one than that in which our positions were: `on_out_of_range` says where to go on.

        Raises `OffsetOutOfRangeError` under `fail`.
        """
        self.leave(topic)
        for partition in [partition for partition in self._left if partition.topic == topic]:
            position = self._left.pop(partition)
            if partition in self._in_another_log:
                self._in_another_log.discard(partition)
                self._assign(partition, position)
            else:
                log = log_range(self._consumer, self._settings, partition, self.serve)
                self._assign(partition, go_on_at(self._settings, partition, position, log, made_anew=True))
        self._client_partitions = [ClientPartition(*partition) for partition in self._positions]

    def check_group(self) -> bool:
        """Look whether the group still stands where we left it; `False` when the broker does not say in time.

        Raises `SecondInstanceError` when somebody else has moved it. To be asked between an answered commit and the next
        one; whoever is stopped between this look and its commit may still repeat, and never loses.
        """
        try:
            committed = self._consumer.committed(self._client_partitions, timeout=_LOOK)
        except KafkaException as error:
            if is_transient(kafka_error(error)):
                return False
            raise _commit_error(kafka_error(error)) from None
        lost: dict[str, TopicPartition] = {}
        for found in committed:
            partition = TopicPartition(found.topic, found.partition)
            ours = self._group.get(partition)
            if found.error is not None:
                return False
            if found.offset < 0 and ours is not None and ours >= 0:
                # Nobody moves a group to nowhere: the broker forgets the positions of a topic that is deleted.
                lost.setdefault(found.topic, partition)
            elif ours is not None and found.offset not in (ours, self._attempted.get(partition)):
                raise SecondInstanceError(
                    f"somebody else moved the group {self._settings.group_id!r} in {partition}: it stands at "
                    f"{found.offset}, and this run left it at {ours}. Two instances of one flow share a group (or it was "
                    "reset by hand): stop one of them. This one ends; what it has not confirmed is read again"
                )
        if not lost:
            self._lost_at = None
            return True
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
            for topic, partition in lost.items():
                self._gone(topic, f"the group has lost its position in {partition}")
        return now - self._lost_at > _SURE

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Send positions to the group without waiting; `commit_answers` tells what became of them."""
        self._commit_outstanding = True
        self._attempted = dict(positions)
        offsets = _offsets(positions)
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            # Refused at once, which is an answer like those that come later: whether it passes is asked there.
            self._on_commit(kafka_error(error), offsets)

    @property
    def commit_outstanding(self) -> bool:
        """Whether a commit has not been answered yet."""
        return self._commit_outstanding

    def serve(self, wait_s: float) -> None:
        """Let the client answer while nothing is to be read: all partitions are held still meanwhile."""
        self._ask_whether_to_wait()
        self._consumer.pause(self._client_partitions)
        try:
            message = self._consumer.poll(wait_s)
            if message is not None and message.error() is not None:
                self._is_record(message)
        finally:
            self._consumer.resume(self._client_partitions)

    def commit_answers(self) -> dict[TopicPartition, int] | None:
        """The positions that the last commit confirmed, or `None` while there is no news.

        Raises `CommitError` for an answer that waiting does not mend. A transient failure confirms nothing: the same
        or later positions are sent again at the next epoch.
        """
        if not self._answers:
            return None
        confirmed: dict[TopicPartition, int] = {}
        answers, self._answers = self._answers, []
        for error, partitions in answers:
            for found in partitions:
                problem = error or found.error
                if problem is None:
                    partition = TopicPartition(found.topic, found.partition)
                    confirmed[partition] = self._group[partition] = found.offset
                elif problem.code() == KafkaError._NO_OFFSET:
                    # Under the client's auto-commit: nothing has been handed out since the last one.
                    continue
                elif is_transient(problem):
                    CLIENT_LOG.warning("a commit for %s failed and will be repeated: %s", found.topic, problem.str())
                else:
                    raise _commit_error(problem)
        return confirmed

    def commit_now(self, positions: Mapping[TopicPartition, int]) -> None:
        """Confirm positions and wait for the answer; raises `CommitError`."""
        deadline = time.monotonic() + _ANSWER

        def commit() -> KafkaError | None:
            try:
                answers = self._consumer.commit(offsets=_offsets(positions), asynchronous=False) or []
            except KafkaException as error:
                return kafka_error(error)
            return next((found.error for found in answers if found.error is not None), None)

        # One call lasts for 45 s while the broker is away (measured).
        while (problem := in_slices(commit, self._ask_whether_to_wait)) is not None:
            if not is_transient(problem) or time.monotonic() > deadline:
                raise _commit_error(problem)
            self.serve(0.1)
        self._group.update(positions)

    def commit_stored(self) -> None:
        """Under the client's auto-commit: ask for what has been handed out, now rather than at the client's next turn.

        Does not wait; see `commit_outstanding`.
        """
        self._commit_outstanding = True
        try:
            self._consumer.commit(asynchronous=True)
        except KafkaException as error:
            self._commit_outstanding = False
            if kafka_error(error).code() != KafkaError._NO_OFFSET:
                CLIENT_LOG.warning("the last auto-commit failed: %s", kafka_error(error).str())

    def close(self) -> None:
        """Close the client. Confirms nothing of ours; never raises.

        The client's own close() waits for every commit that is on its way, 45 s each while the broker is away (measured),
        and so does letting go of it. Such a client is left to itself, and ends with the process.
        """
        closing = threading.Thread(target=self._close, name="loom-closing", daemon=True)
        closing.start()
        closing.join(_NO_ANSWER if self._commit_outstanding else _CLOSE)
        if closing.is_alive():
            CLIENT_LOG.warning("the broker does not answer; the consumer is left to itself")

    def _ask_whether_to_wait(self) -> None:
        if self.waiting is not None:
            self.waiting("an answer of the broker")

    def _close(self) -> None:
        try:
            self._consumer.close()
        except Exception as error:  # noqa: BLE001 - nothing that close() can say may hide what the run ended with
            CLIENT_LOG.warning("closing the consumer failed: %s", error)

    def _on_commit(self, error: KafkaError | None, partitions: list[ClientPartition]) -> None:
        self._commit_outstanding = False
        self._answers.append((error, partitions))

    def _is_record(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        topic, number, offset = message.topic(), message.partition(), message.offset()
        if is_transient(error):
            CLIENT_LOG.warning("reading %s[%s]: %s; the client goes on trying", topic, number, error.str())
        elif topic is None or number is None or offset is None:
            raise KafkaTransportError(f"reading failed: {error.str()}")
        elif error.code() == KafkaError._PARTITION_EOF:
            self._stirred = self._stirred or self._positions.get(TopicPartition(topic, number)) != offset
        elif error.code() in _OUT_OF_RANGE:
            self._go_on(TopicPartition(topic, number), offset)
        elif error.code() in _TOPIC_GONE:
            self._gone(topic, error.str())
        else:
            raise KafkaTransportError(f"reading {topic}[{number}] failed: {error.str()}")
        return False

    def _go_on(self, partition: TopicPartition, position: int) -> None:
        """Read on where the settings say, since the log does not hold our position. The client stands still there."""
        log = log_range(self._consumer, self._settings, partition, self.serve)
        offset = go_on_at(self._settings, partition, position, log)
        if position > log.high:
            self._in_another_log.add(partition)
        self._consumer.incremental_unassign([ClientPartition(*partition)])
        self._assign(partition, offset)

    def _assign(self, partition: TopicPartition, offset: int) -> None:
        self._consumer.incremental_assign([ClientPartition(*partition, offset)])
        self._positions[partition] = self._jumped[partition] = offset
        self._stirred = True


def _offsets(positions: Mapping[TopicPartition, int]) -> list[ClientPartition]:
    return [ClientPartition(*partition, offset) for partition, offset in positions.items()]


def _commit_error(error: KafkaError) -> CommitError:
    return CommitError(f"positions could not be committed: {error.str()}")


def _note_error(error: KafkaError) -> None:
    CLIENT_LOG.log(20 if is_transient(error) else 40, "client: %s", error.str())
