"""One producer client: writes asynchronously, sees every failed delivery, is durable when `flush` returns. Hot path: `write`.

The client's queue bounds what is in flight, in records and in bytes; when it is full, `write` waits for deliveries. A
record that the broker refuses permanently goes to the `dlq` of its output, alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from loom.core.counted import counted
from loom.core.logger import get_logger
from loom.streaming.failpoints import Failpoint, failpoint
from loom.streaming.formats.format import WholeErrors
from loom.streaming.headers import Headers
from loom.streaming.kafka.client_config import is_denied, kafka_error, make_client, raised_by
from loom.streaming.kafka.cluster_faults import ClusterFaults, denied
from loom.streaming.kafka.dead_letter import shortened
from loom.streaming.kafka.errors import DeliveryFailedError, KafkaTransportError, TransactionAbortedError
from loom.streaming.kafka.limits import (
    MESSAGE_MAX_BYTES,
    RECORD_OVERHEAD,
    TimestampLimits,
    producer_properties,
    record_size,
)
from loom.streaming.kafka.outage import Clusters
from loom.streaming.kafka.partitioner import partition_of
from loom.streaming.kafka.transactions import State, Transactions
from loom.streaming.kafka.undelivered import (
    NEIGHBOUR_REFUSED,
    REFUSED_FOR_GOOD,
    OutgoingRecord,
    Refusal,
    Undelivered,
    failure_of,
)
from loom.streaming.record import NO_TIMESTAMP, TopicPartition

__all__ = ["TopicTarget", "TopicWriter"]

_log = get_logger(__name__)

_ANY_PARTITION = -1
#: where a result holds what it was made of
_ORIGIN = 5
#: seconds of one wait for the broker; between two the caller's `waiting` is called, which may raise
_SLICE = 0.1
#: bytes of a record that the fast way leaves to key and headers, which it does not measure
_UNMEASURED = 65_536


class TopicTarget(NamedTuple):
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

    `refused` is called with each record that will never be accepted; it may write a dead letter with `write`, or raise.
    Records of a refused produce batch to a topic of `tracked_topics` are sent again one at a time, so that only the one
    at fault is refused; they may end up after later ones. `dead_letters` are topics of dead letters, which are
    shortened to fit, and how each writes whole `ErrorEnvelope`s.
    `place` names what a record was made of. Records over `max_message_bytes` are refused before they are sent, unless the
    config sets the client's own `message.max.bytes`: then the broker decides, which sees them compressed.
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
        timestamp_limits: Mapping[str, TimestampLimits] | None = None,
        compacted: Iterable[str] = (),
        dead_letters: Mapping[str, WholeErrors | None] | None = None,
        place: Callable[[Any], object] = lambda _: "the caller",
        clusters: Clusters | None = None,
    ) -> None:
        #: topics whose partition count is held on to, so that keys stay where they are though the topic grows
        self._counts = dict(partition_counts or {})
        limits = {} if MESSAGE_MAX_BYTES in config else max_message_bytes
        self._limits = {topic: limit - RECORD_OVERHEAD for topic, limit in limits.items()}
        self._timestamps = dict(timestamp_limits or {})
        self._compacted = frozenset(compacted)
        self._dead_letters = dict(dead_letters or {})
        self._tracked = frozenset(tracked_topics) | self._dead_letters.keys()
        self._refused = refused
        self._waiting = waiting
        self._undelivered = Undelivered(in_transaction=transactions is not None, tracked=self._tracked, place=place)
        self._failed: list[OutgoingRecord] = []
        self._transactions = transactions
        if transactions is None:
            faults = clusters.of(config) if clusters is not None else ClusterFaults(config)
            properties = producer_properties(config, max_message_bytes)
            self._producer = make_client(Producer, properties, faults, on_error=self._on_error)
        else:
            self._producer = transactions.producer
        self._produce = self._producer.produce

    def write(
        self, topic: str, value: bytes | None, key: bytes | None, timestamp_ms: int | None, headers: Any, origin: Any
    ) -> None:
        """Hand one record to the client; `timestamp_ms=None` is the time of writing. Waits while the client's queue is full."""
        record = OutgoingRecord(topic, value, key, timestamp_ms, Headers.of(headers).pairs if headers else None, origin)
        limit = self._limits.get(topic)
        if limit is not None and (size := record_size(value, key, record.headers)) > limit:
            fits = self._shortened(record, limit)
            if fits is None:
                self._refused(
                    Refusal(record, f"the record has {size} bytes, and {topic} takes {limit + RECORD_OVERHEAD}")
                )
                return
            record = fits
        if timestamp_ms not in (None, NO_TIMESTAMP) and (limits := self._timestamps.get(topic)) is not None:
            untimely = limits.refusal(topic, timestamp_ms, _now_ms())
            if untimely is not None:
                self._refused(Refusal(record, untimely))
                return
        if key is None and topic in self._compacted:
            reason = f"the record has no key, which {topic} needs, since it is compacted (cleanup.policy)"
            self._refused(Refusal(record, reason))
            return
        # The record is kept with its delivery report, for its dead letter or for the error that names it.
        refused = self._hand_over(record, partial(self._on_delivery, record))
        if refused is not None:
            self._refused(Refusal(record, refused))

    def target(self, topic: str) -> TopicTarget:
        """What `write_all` must know of one topic, looked up once."""
        limit = self._limits.get(topic, _NO_LIMIT)
        # A tracked topic is always written with checks; elsewhere so does a value that comes near the limit.
        limit = -1 if topic in self._tracked else limit - min(_UNMEASURED, limit // 4)
        return TopicTarget(topic, limit, self._counts.get(topic, 0))

    def write_all(
        self, results: Sequence[tuple[int, Any, bytes | None, int | None, Any, Any]], targets: Sequence[TopicTarget]
    ) -> None:
        """Hand many records to the client: (target index, value, key, timestamp, headers, origin) each."""
        timed, earliest, latest = False, 0, 0
        if self._transactions is not None:
            self._transactions.begin()
            failpoint(Failpoint.IN_TRANSACTION)
            if self._timestamps:
                # Known before sending, such a record still has a place to go to; refused by the broker it ends the epoch.
                timed, now_ms = True, _now_ms()
                earliest = now_ms - min(limits.behind_ms for limits in self._timestamps.values())
                latest = now_ms + min(limits.ahead_ms for limits in self._timestamps.values())
        keyed = bool(self._compacted)
        produce, write_checked = self._produce, self.write
        # The results themselves are not kept until they are delivered: that costs a tenth of the CPU (`bench kafka`).
        delivered = partial(self._on_batch_delivery, results[0][_ORIGIN], results[-1][_ORIGIN]) if results else None
        for index, value, key, timestamp_ms, headers, origin in results:
            topic, limit, count = targets[index]
            if (
                (len(value) if value is not None else 0) > limit
                or (timed and timestamp_ms is not None and not earliest <= timestamp_ms <= latest)
                or (keyed and key is None)
            ):
                # Too large, out of time, without a key, or a topic whose refused records are kept: checked before it is written.
                write_checked(topic, value, key, timestamp_ms, headers, origin)
                continue
            partition = _placed(key, count) if count else _ANY_PARTITION
            try:
                if headers is None:
                    produce(topic, value, key, partition, delivered, None, timestamp_ms or _time_of(timestamp_ms))
                else:
                    dated = timestamp_ms or _time_of(timestamp_ms)
                    produce(topic, value, key, partition, delivered, None, dated, _listed(headers))
            except (BufferError, KafkaException):
                write_checked(topic, value, key, timestamp_ms, headers, origin)

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
                self._waiting(f"{counted(left, 'record')} that the broker has not acknowledged")
            self._check()
            if not self._failed:
                return resent
            failed, self._failed = self._failed, []
            _log.warning("produce_batch_refused", records=len(failed), note="they are resent one at a time")
            for record in failed:
                self._resend(record)
            resent += len(failed)

    def commit(self, positions: Mapping[TopicPartition, int], group: Callable[[], Any]) -> None:
        """The end of an epoch in a transaction: what was written and these positions become visible together.

        `group` returns what ties the positions to the group. It is called once, when everything is at the broker.
        """
        transactions = self._transactions
        assert transactions is not None
        if transactions.state is State.READY and not positions:
            return
        transactions.begin()
        self.flush()
        failpoint(Failpoint.FLUSHED)
        transactions.commit(positions, group())

    def close(self) -> None:
        """Let the client go. What was not flushed is given up; never raises."""
        try:
            self._producer.purge()
            self._producer.flush(0)
        except Exception as error:  # noqa: BLE001 - closing may not hide what the run ended with
            if not (isinstance(error, KafkaException) and kafka_error(error).fatal()):
                _log.warning("close_failed", what="producer", reason=str(error))

    def _hand_over(self, record: OutgoingRecord, delivered: Any) -> str | None:
        """One record to the client, waiting while its queue is full. Returns why it was refused, or `None`."""
        partition = _placed(record.key, self._counts.get(record.topic, 0))
        headers, dated = _listed(record.headers or ()), record.timestamp_ms or _time_of(record.timestamp_ms)
        while True:
            try:
                self._produce(record.topic, record.value, record.key, partition, delivered, None, dated, headers)
                return None
            except BufferError:
                if not len(self._producer):
                    size = record_size(record.value, record.key, record.headers)
                    return (
                        f"the record has {size} bytes, and the producer's empty queue has no room for it: raise "
                        "queue.buffering.max.kbytes under extra"
                    )
                # Full: deliveries make room, and are served by poll().
                self._waiting(f"room in the producer's queue ({counted(len(self._producer), 'record')} in flight)")
                self._poll(_SLICE)
                self._check()
            except KafkaException as error:
                found = kafka_error(error)
                if found.code() not in REFUSED_FOR_GOOD:
                    raise self._broken(found, f"{record.topic} cannot be written") from None
                return found.str()

    def _shortened(self, record: OutgoingRecord, limit: int) -> OutgoingRecord | None:
        """A dead letter that is too large only for what it says of the failure, with less of that; else `None`."""
        if record.topic not in self._dead_letters:
            return None
        whole = self._dead_letters[record.topic]
        found = shortened(record.value, record.headers or (), whole, limit - record_size(None, record.key, None))
        if found is None:
            return None
        return OutgoingRecord(record.topic, found[0], record.key, record.timestamp_ms, found[1], record.origin)

    def _resend(self, record: OutgoingRecord) -> None:
        """Once more, alone in its produce batch: what fails now is refused for itself."""
        answers: list[KafkaError | None] = []

        def deliver(error: KafkaError | None, _: Message) -> None:
            answers.append(error)

        refused = self._hand_over(record, deliver)
        while (left := self._flush_slice()) > 0:
            self._check()
            self._waiting(f"{counted(left, 'record')} that the broker has not acknowledged")
        # Only failures are reported, so no answer is a good one.
        problem = answers[0] if answers else None
        if problem is not None:
            if problem.code() not in REFUSED_FOR_GOOD:
                raise failure_of(problem)(f"{record.topic} cannot be written: {problem.str()}")
            refused = problem.str()
        if refused is not None:
            self._refused(Refusal(record, refused))

    def _on_batch_delivery(self, first: Any, last: Any, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            record = OutgoingRecord(message.topic() or "", message.value(), message.key(), 0, None, None)
            self._undelivered.note(error, record, first, last)

    def _on_delivery(self, record: OutgoingRecord, error: KafkaError | None, _: Message) -> None:
        if error is None:
            return
        # What is in a transaction cannot be corrected there, only aborted with it.
        retriable = record.topic in self._tracked and self._transactions is None
        if retriable and (error.code() in REFUSED_FOR_GOOD or error.code() == NEIGHBOUR_REFUSED):
            self._failed.append(record)
        else:
            self._undelivered.note(error, record, record.origin, record.origin)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._undelivered.failed(error)

    def _poll(self, wait_s: float) -> None:
        if (error := raised_by(self._producer, wait_s)) is not None:
            raise self._broken(error, "nothing can be written any more")

    def _flush_slice(self) -> int:
        try:
            return self._producer.flush(_SLICE)
        except KafkaException as error:
            raise self._broken(kafka_error(error), "what was written cannot be made durable") from None

    def _broken(self, error: KafkaError, what: str) -> KafkaTransportError:
        """What a refused call means; in a transaction it is the transaction that says so, or the record that broke it."""
        if self._transactions is not None:
            failed = self._transactions.failed(error)
            if isinstance(failed, TransactionAbortedError) and self._undelivered.guilty is not None:
                return DeliveryFailedError(self._undelivered.guilty)
            return failed
        if is_denied(error):
            return denied(error, what)
        if error.code() == KafkaError._FATAL:
            # It only says that there was an earlier one.
            error = raised_by(self._producer, 0) or error
        return failure_of(error)(f"{what}: {error.str()}")

    def _check(self) -> None:
        if self._transactions is not None and (failure := self._transactions.failure()) is not None:
            raise failure
        self._undelivered.check(self._transactions.given_up if self._transactions is not None else None)


def _placed(key: bytes | None, count: int) -> int:
    """The partition of a key among so many; without a count, or a key, it is the client that chooses."""
    return partition_of(key, count) if count and key is not None else _ANY_PARTITION


def _time_of(timestamp_ms: int | None) -> int:
    """The client's word for a time that is `None` or 0. To it 0 means now, so the time 0 is written as 1 ms after it."""
    return 0 if timestamp_ms is None else timestamp_ms or 1


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _listed(headers: Iterable[tuple[str, bytes | None]] | Mapping[str, bytes]) -> list[tuple[str, Any]]:
    if headers.__class__ is tuple:
        return list(headers)
    pairs = getattr(headers, "pairs", headers)
    return list(pairs.items() if isinstance(pairs, Mapping) else pairs)
