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

from loom.core.model import LoomFrozenStruct
from loom.streaming.kafka.client_config import CLIENT_LOG, is_transient, kafka_error, make_client
from loom.streaming.kafka.errors import (
    BrokerUnavailableError,
    CommitError,
    KafkaTransportError,
    OffsetOutOfRangeError,
    SecondInstanceError,
    TopicMissingError,
)
from loom.streaming.kafka.record import RecordPlace, TopicPartition
from loom.streaming.kafka.settings import ConsumerSettings
from loom.streaming.kafka.view import OriginView

__all__ = ["CLIENT_RECORDS", "PartitionReader", "StartPositions"]

#: seconds within which the positions to start at must be known
_START = 12.0
#: seconds of one call within that time: no signal is heard meanwhile
_CALL = 2.0
#: seconds that a look at the group may take; it holds up the worker
_LOOK = 1.0
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
)

_error_of = Message.error


class StartPositions(LoomFrozenStruct):
    """Where to begin, and what the group knew of it."""

    offsets: Mapping[TopicPartition, int]
    #: the partitions that the group had no position for
    unknown: tuple[TopicPartition, ...]
    #: what was committed with the positions that the group had
    metadata: Mapping[TopicPartition, str]


class PartitionReader:
    """Reads the partitions given to `start`. Ended by `close`; used by one thread."""

    def __init__(self, settings: ConsumerSettings) -> None:
        self._settings = settings
        #: asked between the slices of a wait whether to go on; what it raises ends the wait
        self.waiting: Callable[[str], None] | None = None
        self._answers: list[tuple[KafkaError | None, list[ClientPartition]]] = []
        self._consumer = make_client(
            Consumer, settings.to_confluent_config() | {"on_commit": self._on_commit, "error_cb": _note_error}
        )
        self._client_partitions: list[ClientPartition] = []
        self._positions: dict[TopicPartition, int] = {}
        self._commit_outstanding = False
        #: what the group holds as far as we know, and what a commit that failed may have left there all the same
        self._group: dict[TopicPartition, int] = {}
        self._attempted: dict[TopicPartition, int] = {}

    def resolve(self, partitions: Iterable[TopicPartition], fallback: Mapping[TopicPartition, int]) -> StartPositions:
        """Where to begin with these partitions.

        The group's position comes first, then `fallback` (a recovery snapshot's), then `auto_offset_reset` as a real
        offset. Raises `OffsetOutOfRangeError` for a position that the log does not hold.
        """
        deadline = time.monotonic() + _START
        wanted = sorted(partitions)
        committed = self._committed([ClientPartition(*partition) for partition in wanted], deadline)
        offsets, unknown = {}, []
        for partition in wanted:
            low, high = self._watermarks(partition, deadline)
            if partition in committed:
                offset = committed[partition].offset
            else:
                unknown.append(partition)
                reset = low if self._settings.auto_offset_reset == "earliest" else high
                offset = fallback.get(partition, reset)
            if not low <= offset <= high:
                raise OffsetOutOfRangeError(
                    f"the group {self._settings.group_id!r} stands at offset {offset} of {partition}, but the log holds "
                    f"{low} to {high}: records are gone, or the topic was made anew. Reset the group's position to one "
                    "that is there, or use another group_id"
                )
            offsets[partition] = offset
        metadata = {partition: found.metadata or "" for partition, found in committed.items()}
        return StartPositions(offsets, tuple(unknown), metadata)

    def start(
        self, partitions: Iterable[TopicPartition], fallback: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        """Resolve where to begin with these partitions and begin there; may be called again with others.

        Returns the positions that the group did not have.
        """
        found = self.resolve(partitions, fallback)
        self._consumer.incremental_assign(_offsets(found.offsets))
        self._client_partitions += [ClientPartition(*partition) for partition in found.offsets]
        self._positions.update(found.offsets)
        self._group.update({p: offset for p, offset in found.offsets.items() if p not in found.unknown})
        return {partition: found.offsets[partition] for partition in found.unknown}

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
        return messages

    def moved(self) -> dict[TopicPartition, int]:
        """The positions that have changed since the last call: the next offset to read of each partition."""
        moved = {}
        for found in self._consumer.position(self._client_partitions):
            if found.offset >= 0:
                partition = TopicPartition(found.topic, found.partition)
                if self._positions.get(partition) != found.offset:
                    self._positions[partition] = moved[partition] = found.offset
        return moved

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
        for found in committed:
            partition = TopicPartition(found.topic, found.partition)
            ours = self._group.get(partition)
            if found.error is not None:
                return False
            if ours is not None and found.offset not in (ours, self._attempted.get(partition)):
                raise SecondInstanceError(
                    f"somebody else moved the group {self._settings.group_id!r} in {partition}: it stands at "
                    f"{found.offset}, and this run left it at {ours}. Two instances of one flow share a group (or it was "
                    "reset by hand): stop one of them. This one ends; what it has not confirmed is read again"
                )
        return True

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Send positions to the group without waiting; `commit_answers` tells what became of them."""
        self._commit_outstanding = True
        self._attempted = dict(positions)
        try:
            self._consumer.commit(offsets=_offsets(positions), asynchronous=True)
        except KafkaException as error:
            self._commit_outstanding = False
            raise _commit_error(kafka_error(error)) from None

    @property
    def commit_outstanding(self) -> bool:
        """Whether a commit has not been answered yet."""
        return self._commit_outstanding

    def serve(self, wait_s: float) -> None:
        """Let the client answer while nothing is to be read: all partitions are held still meanwhile."""
        if self.waiting is not None:
            self.waiting("an answer of the broker")
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
        deadline = time.monotonic() + _START
        while True:
            try:
                answers = self._consumer.commit(offsets=_offsets(positions), asynchronous=False) or []
                problem = next((found.error for found in answers if found.error is not None), None)
            except KafkaException as error:
                problem = kafka_error(error)
            if problem is None:
                self._group.update(positions)
                return
            if not is_transient(problem) or time.monotonic() > deadline:
                raise _commit_error(problem)
            self.serve(0.1)

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
        place = f"{message.topic()}[{message.partition()}]"
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise OffsetOutOfRangeError(
                f"the position in {place} is no longer in the log: {error.str()}. Records were deleted before they "
                "were read (retention), or the topic was made anew; reset the group's position to one that is there"
            )
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
            raise TopicMissingError(f"{place} is gone: {error.str()}")
        if not is_transient(error):
            raise KafkaTransportError(f"reading {place} failed: {error.str()}")
        CLIENT_LOG.warning("reading %s: %s; the client goes on trying", place, error.str())
        return False

    def _committed(self, partitions: list[ClientPartition], deadline: float) -> dict[TopicPartition, ClientPartition]:
        found = self._until(deadline, lambda t: self._consumer.committed(partitions, timeout=t))
        committed = {}
        for partition in found:
            if partition.error is not None:
                raise KafkaTransportError(f"the group's position is not to be had: {partition.error.str()}")
            if partition.offset != OFFSET_INVALID and partition.offset >= 0:
                committed[TopicPartition(partition.topic, partition.partition)] = partition
        return committed

    def _watermarks(self, partition: TopicPartition, deadline: float) -> tuple[int, int]:
        client_partition = ClientPartition(*partition)
        found: tuple[int, int] = self._until(
            deadline, lambda t: self._consumer.get_watermark_offsets(client_partition, timeout=t)
        )
        return found

    def _until(self, deadline: float, call: Any) -> Any:
        """Repeat a call whose fault may pass, until the deadline."""
        while True:
            left = deadline - time.monotonic()
            try:
                return call(max(min(left, _CALL), 0.1))
            except KafkaException as error:
                found = kafka_error(error)
                if not is_transient(found):
                    raise KafkaTransportError(f"the start positions are not to be had: {found.str()}") from None
                if time.monotonic() >= deadline:
                    raise BrokerUnavailableError(
                        f"the start positions of group {self._settings.group_id!r} were not to be had within "
                        f"{_START:.0f} s: {found.str()}"
                    ) from None
            self.serve(0.1)


def _offsets(positions: Mapping[TopicPartition, int]) -> list[ClientPartition]:
    return [ClientPartition(*partition, offset) for partition, offset in positions.items()]


def _commit_error(error: KafkaError) -> CommitError:
    return CommitError(f"positions could not be committed: {error.str()}")


def _note_error(error: KafkaError) -> None:
    CLIENT_LOG.log(20 if is_transient(error) else 40, "client: %s", error.str())
