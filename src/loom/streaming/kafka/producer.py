"""One producer client: writes asynchronously, sees every failed delivery, is durable when `flush` returns. Hot path: `write`.

The client's queue bounds what is in flight, in records and in bytes; when it is full, `write` waits for deliveries. A
record that the broker refuses for good goes to the dead letters of its topic, alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from loom.core.model import LoomFrozenStruct
from loom.streaming.kafka.client_config import CLIENT_LOG, is_transient, kafka_error, make_client
from loom.streaming.kafka.errors import DeliveryFailedError, KafkaTransportError, TransactionAbortedError
from loom.streaming.kafka.headers import HeaderPairs
from loom.streaming.kafka.placement import partition_of
from loom.streaming.kafka.record import TopicPartition
from loom.streaming.kafka.transactions import State, Transactions
from loom.streaming.points import Point, reached

__all__ = ["Lane", "OutgoingRecord", "Refusal", "TopicWriter", "fitting"]

_ANY_PARTITION = -1
#: seconds of one wait on the broker; between two the caller's `waiting` is asked whether to go on
_SLICE = 0.1
#: what a record costs beyond its key, value and headers, in bytes; a batch adds 61 (Kafka protocol, record batch v2)
_OVERHEAD = 90
#: what a header costs beyond its name and value: two lengths
_HEADER_OVERHEAD = 4

#: refusals that no repetition mends
_REFUSED_FOR_GOOD = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.POLICY_VIOLATION,
        KafkaError.INVALID_TIMESTAMP,
    }
)


class OutgoingRecord(LoomFrozenStruct):
    """A record on its way out. `origin` is what it was made of, for its dead letter."""

    topic: str
    value: bytes | None
    key: bytes | None
    timestamp_ms: int
    headers: HeaderPairs | None
    origin: Any


class Refusal(LoomFrozenStruct):
    """A record that will never be accepted, and why."""

    record: OutgoingRecord
    reason: str


class Lane(NamedTuple):
    """One topic on the fast way: values of more than `limit` bytes leave it."""

    topic: str
    limit: int
    #: how many partitions keys are spread over; 0: as many as the client knows of
    partitions: int


_NO_LIMIT = 1 << 40

#: asked between two slices of a wait: raises when there is no more time
Waiting = Callable[[str], None]


class TopicWriter:
    """Writes records to the topics of one cluster. Used by one thread.

    `refused` is called with each record that the broker refuses for good; it may write the dead letter with `write_one`,
    or raise. Records of a refused produce batch are sent again one at a time, so that only the guilty one is refused;
    they may stand behind later ones.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        max_message_bytes: Mapping[str, int],
        tracked_topics: Iterable[str],
        refused: Callable[[Refusal], None],
        waiting: Waiting,
        transactions: Transactions | None = None,
        partition_counts: Mapping[str, int] | None = None,
    ) -> None:
        #: topics whose partition count is held on to, so that keys stay where they are though the topic grows
        self._counts = dict(partition_counts or {})
        self._limits = {topic: limit - _OVERHEAD for topic, limit in max_message_bytes.items()}
        self._tracked = frozenset(tracked_topics)
        self._refused = refused
        self._waiting = waiting
        self._fatal: str | None = None
        #: a record of the transaction that was not delivered, which no successor need suffer from
        self._late: str | None = None
        self._failed: list[OutgoingRecord] = []
        self._transactions = transactions
        if transactions is None:
            properties = fitting(config, max_message_bytes) | {"error_cb": self._on_error}
            self._producer = make_client(Producer, properties)
        else:
            self._producer = transactions.producer
        self._produce = self._producer.produce

    def write(
        self, topic: str, value: bytes | None, key: bytes | None, timestamp_ms: int, headers: Any, origin: Any
    ) -> None:
        """Hand one record to the client. Waits while the client's queue is full."""
        limit = self._limits.get(topic)
        if limit is not None and (size := _size(value, key, headers)) > limit:
            record = OutgoingRecord(topic, value, key, timestamp_ms, headers, origin)
            self._refused(Refusal(record, f"the record has {size} bytes; {topic} takes {limit + _OVERHEAD}"))
            return
        partition = _placed(key, self._counts.get(topic, 0))
        delivered: Any = self._on_delivery
        if topic in self._tracked:
            # The record is kept with its delivery report, for its dead letter; other topics need no such object.
            kept = OutgoingRecord(topic, value, key, timestamp_ms, headers, origin)
            delivered = _tracking(self._on_tracked, kept)
        while True:
            try:
                if headers is None:
                    self._produce(topic, value, key, partition, delivered, None, timestamp_ms)
                else:
                    self._produce(topic, value, key, partition, delivered, None, timestamp_ms, _listed(headers))
                return
            except BufferError:
                # Full: deliveries make room, and are served by poll().
                self._waiting(f"room in the producer's queue ({len(self._producer)} records in flight)")
                self._poll(_SLICE)
                self._check()
            except KafkaException as error:
                found = kafka_error(error)
                if found.code() not in _REFUSED_FOR_GOOD:
                    raise self._broken(found, f"{topic} cannot be written") from None
                self._refused(Refusal(OutgoingRecord(topic, value, key, timestamp_ms, headers, origin), found.str()))
                return

    def lane(self, topic: str) -> Lane:
        """What `write_all` must know of one topic, looked up once."""
        limit = self._limits.get(topic, _NO_LIMIT) if topic not in self._tracked else -1
        return Lane(topic, limit, self._counts.get(topic, 0))

    def write_all(
        self, results: Iterable[tuple[int, Any, bytes | None, int | None, Any, Any]], lanes: Sequence[Lane]
    ) -> None:
        """Hand many records to the client: (lane index, value, key, timestamp, headers, origin) each."""
        if self._transactions is not None:
            self._transactions.begin()
            reached(Point.IN_TRANSACTION)
        produce, delivered, careful = self._produce, self._on_delivery, self.write
        for index, value, key, timestamp_ms, headers, origin in results:
            topic, limit, count = lanes[index]
            if (len(value) if value is not None else 0) > limit:
                # Too large, or a topic whose refused records are kept: the careful way sorts it out.
                careful(topic, value, key, timestamp_ms or 0, headers, origin)
                continue
            partition = _placed(key, count) if count else _ANY_PARTITION
            try:
                if headers is None:
                    produce(topic, value, key, partition, delivered, None, timestamp_ms or 0)
                else:
                    produce(topic, value, key, partition, delivered, None, timestamp_ms or 0, _listed(headers))
            except (BufferError, KafkaException):
                careful(topic, value, key, timestamp_ms or 0, headers, origin)

    def serve(self) -> None:
        """Let the client report deliveries; raises `DeliveryFailedError` when one failed and has nowhere to go."""
        self._poll(0)
        self._check()

    def flush(self) -> int:
        """Wait until everything written is durable. Returns how many records were resent one at a time.

        Raises `DeliveryFailedError` when a record could not be written.
        """
        resent = 0
        while True:
            while (left := self._flush_slice()) > 0:
                self._check()
                self._waiting(f"{left} records that the broker has not acknowledged")
            self._check()
            if not self._failed:
                return resent
            failed, self._failed = self._failed, []
            CLIENT_LOG.warning("a produce batch was refused; resending its %d records one at a time", len(failed))
            for record in failed:
                self._resend(record)
            resent += len(failed)

    def commit(self, positions: Mapping[TopicPartition, int], group: Any) -> None:
        """The end of an epoch in a transaction: what was written and these positions become visible together."""
        transactions = self._transactions
        assert transactions is not None
        if transactions.state is State.READY and not positions:
            return
        transactions.begin()
        self.flush()
        reached(Point.FLUSHED)
        transactions.commit(positions, group)

    def close(self) -> None:
        """Let the client go. What was not flushed is given up; never raises."""
        try:
            self._producer.purge()
            self._producer.flush(0)
        except Exception as error:  # noqa: BLE001 - closing may not hide what the run ended with
            CLIENT_LOG.warning("closing the producer failed: %s", error)

    def _resend(self, record: OutgoingRecord) -> None:
        """Once more, alone in its produce batch: what fails now is refused for itself."""
        answers: list[KafkaError | None] = []

        def deliver(error: KafkaError | None, _: Message) -> None:
            answers.append(error)

        self._produce(
            record.topic,
            record.value,
            record.key,
            _placed(record.key, self._counts.get(record.topic, 0)),
            deliver,
            None,
            record.timestamp_ms,
            _listed(record.headers or ()),
        )
        while (left := self._flush_slice()) > 0:
            self._check()
            self._waiting(f"{left} records that the broker has not acknowledged")
        # Only failures are reported, so no answer is a good one.
        problem = answers[0] if answers else None
        if problem is not None:
            if problem.code() not in _REFUSED_FOR_GOOD:
                raise DeliveryFailedError(f"{record.topic} cannot be written: {problem.str()}")
            self._refused(Refusal(record, problem.str()))

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            place = f"{message.topic()}[{message.partition()}] with the key {message.key()!r}"
            hint = ". A dlq on that IntoTopic would take such records" if error.code() in _REFUSED_FOR_GOOD else ""
            self._not_delivered(error, f"a record for {place} was not delivered: {error.str()}{hint}")

    def _on_tracked(self, error: KafkaError, record: OutgoingRecord) -> None:
        # What stands in a transaction cannot be mended there, only given up with it.
        if error.code() in _REFUSED_FOR_GOOD and self._transactions is None:
            self._failed.append(record)
        else:
            place = f"{record.topic} with the key {record.key!r}"
            self._not_delivered(error, f"a record for {place} was not delivered: {error.str()}")

    def _not_delivered(self, error: KafkaError, what: str) -> None:
        if self._transactions is not None and error.code() not in _REFUSED_FOR_GOOD:
            # It says nothing of the record, but of the transaction, or of a broker that was away for longer than one lasts.
            self._late = self._late or what
        else:
            self._fatal = self._fatal or what

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = self._fatal or f"the producer failed for good: {error.str()}"
        CLIENT_LOG.log(20 if is_transient(error) else 40, "client: %s", error.str())

    def _poll(self, wait_s: float) -> None:
        try:
            self._producer.poll(wait_s)
        except KafkaException as error:
            # The client raises a fatal error from whichever call serves its events.
            raise self._broken(kafka_error(error), "nothing can be written any more") from None

    def _flush_slice(self) -> int:
        try:
            return self._producer.flush(_SLICE)
        except KafkaException as error:
            raise self._broken(kafka_error(error), "what was written cannot be made durable") from None

    def _broken(self, error: KafkaError, what: str) -> KafkaTransportError:
        """What a refused call means; in a transaction it is the transaction that says so, or the record that broke it."""
        if self._transactions is not None:
            failed = self._transactions.failed(error)
            if isinstance(failed, TransactionAbortedError) and self._fatal is not None:
                return DeliveryFailedError(self._fatal)
            return failed
        return DeliveryFailedError(f"{what}: {error.str()}")

    def _check(self) -> None:
        if self._transactions is not None and (failure := self._transactions.failure()) is not None:
            raise failure
        if self._fatal is not None:
            raise DeliveryFailedError(self._fatal)
        if self._late is not None and self._transactions is not None:
            raise self._transactions.given_up(self._late)


def fitting(config: Mapping[str, Any], max_message_bytes: Mapping[str, int]) -> dict[str, Any]:
    """A producer's properties, fitted to the largest records that its topics take."""
    properties = dict(config)
    if max_message_bytes:
        # A batch is refused as one record would be, so it must fit the tightest topic; and the client must not
        # refuse by itself what a topic takes.
        properties.setdefault("message.max.bytes", max(1_000_000, *max_message_bytes.values()))
        properties.setdefault("batch.size", max(1, min(1_000_000, *max_message_bytes.values())))
    return properties


def _placed(key: bytes | None, count: int) -> int:
    """The partition of a key among so many; without a count, or a key, it is the client that chooses."""
    return partition_of(key, count) if count and key is not None else _ANY_PARTITION


def _tracking(on_failure: Callable[[KafkaError, OutgoingRecord], None], record: OutgoingRecord) -> Any:
    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            on_failure(error, record)

    return delivered


def _size(value: bytes | None, key: bytes | None, headers: Any) -> int:
    """What a record's own parts take in its batch."""
    size = len(value or b"") + len(key or b"")
    if headers:
        size += sum(len(name) + len(content or b"") + _HEADER_OVERHEAD for name, content in _listed(headers))
    return size


def _listed(headers: Iterable[tuple[str, bytes | None]] | Mapping[str, bytes]) -> list[tuple[str, Any]]:
    pairs = getattr(headers, "pairs", headers)
    return list(pairs.items() if isinstance(pairs, Mapping) else pairs)
