"""Typed clients for code outside a flow: write payloads to a topic, read them back.

Flows use their own source and sink.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, TypeVar

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka import Message as ClientMessage

from loom.streaming.formats.format import Encoding
from loom.streaming.headers import Headers
from loom.streaming.kafka.client_config import is_denied, is_transient, make_client
from loom.streaming.kafka.client_records import CLIENT_RECORDS
from loom.streaming.kafka.cluster_faults import ClusterFaults, denied
from loom.streaming.kafka.codec import Decoded, DecodeError, MsgspecCodec
from loom.streaming.kafka.errors import DeliveryFailedError, KafkaTransportError
from loom.streaming.kafka.producer import TopicWriter
from loom.streaming.kafka.record_accessor import UnreadableHeadersError
from loom.streaming.kafka.settings import ConsumerSettings, ProducerSettings
from loom.streaming.kafka.undelivered import Refusal
from loom.streaming.kafka.writable import writable_headers, writable_key, writable_time
from loom.streaming.message import Message, MessageMeta
from loom.streaming.record import KafkaRecord

__all__ = ["KafkaConsumer", "KafkaProducer"]

P = TypeVar("P")

#: seconds in which a group must take a new member in; brokers wait some 3 s for others to join, a busy one longer
_JOIN = 30.0
#: seconds of one wait on the client
_SLICE = 0.1


class KafkaProducer(Generic[P]):
    """Writes payloads of one type to one topic, as a flow would. What was sent is durable when `flush` returns.

    Leaving a `with` block flushes and closes it.

    >>> from loom.streaming.kafka import EmbeddedBroker
    >>> with EmbeddedBroker() as broker:
    ...     with KafkaProducer(ProducerSettings(broker.bootstrap), "orders.raw", Order) as orders:
    ...         orders.send(Order(7), key=b"7")

    Args:
        settings: brokers, format, headers.
        topic: the physical topic.
        payload: the payload type.

    Raises:
        ValueError: for an empty topic.
    """

    def __init__(self, settings: ProducerSettings, topic: str, payload: type[P]) -> None:
        if not topic.strip():
            raise ValueError("a KafkaProducer needs the name of a topic")
        self._topic = topic
        self._codec = MsgspecCodec(
            payload, settings.format, headers=settings.headers, encoding=Encoding(decimal=settings.json.decimal)
        )
        self._writer = TopicWriter(
            settings.to_confluent_config(), max_message_bytes={}, tracked_topics=(), refused=_raise, waiting=_patient
        )

    def send(self, payload: P, *, key: bytes | str | None = None, timestamp_ms: int | None = None) -> None:
        """Send one payload. Returns at once; `flush` waits for the broker.

        Args:
            payload: the payload.
            key: the record key; text is written as UTF-8.
            timestamp_ms: milliseconds since 1970; by default the time of writing.

        Raises:
            Exception: if the format cannot hold the payload.
        """
        meta = MessageMeta("", produced_at_ms=timestamp_ms, key=key)
        self.send_record(self._codec.encode(self._topic, Message(payload, meta)))

    def send_record(self, record: KafkaRecord) -> None:
        """Send one record as it is, whatever its bytes.

        Args:
            record: the record, with its own topic.

        Raises:
            TypeError: for a key or header that cannot be written.
            ValueError: as `TypeError`.
        """
        headers = writable_headers(Headers.of(record.headers).pairs)
        key, time = writable_key(record.key), writable_time(record.timestamp_ms)
        self._writer.write(record.topic, record.value, key, time, headers, None)
        self._writer.serve()

    def flush(self) -> None:
        """Wait until everything that was sent is durable.

        Raises:
            DeliveryFailedError: if the broker refused a record.
        """
        self._writer.flush()

    def close(self) -> None:
        """Release the client. What was not flushed is lost. Idempotent."""
        self._writer.close()

    def __enter__(self) -> KafkaProducer[P]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()


class KafkaConsumer(Generic[P]):
    """Reads messages of one payload type as a member of its group, from the topics of its settings.

    Offsets are committed by the client's auto-commit, or not at all if the settings name a delivery, which only a flow can
    keep. Use it from one thread.

    >>> with KafkaConsumer(settings, Order) as orders:        # doctest: +SKIP
    ...     found = list(orders.read(idle_s=1))

    Args:
        settings: brokers, group and topics.
        payload: the payload type.

    Raises:
        ValueError: for settings without topics.
    """

    def __init__(self, settings: ConsumerSettings, payload: type[P]) -> None:
        if not settings.topics:
            raise ValueError(
                "a KafkaConsumer needs settings with topics; only a flow has a logical name to fall back to"
            )
        self._codec = MsgspecCodec(payload, settings.format)
        # The end of a partition is told, so that a partition which has not answered yet differs from one with nothing to read.
        own = {"auto.offset.reset": settings.auto_offset_reset, "enable.partition.eof": True}
        config = settings.to_confluent_config() | own
        self._faults = ClusterFaults(config)
        self._consumer = make_client(Consumer, config, self._faults)
        self._assigned = False
        self._unanswered: set[tuple[str, int]] = set()
        self._consumer.subscribe(
            list(settings.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )

    def read(self, *, idle_s: float) -> Iterator[Decoded]:
        """Messages as they arrive, until none has arrived for a while; records that do not decode as data.

        Joining the group and the first answer of a partition take as long as the broker does, and do not count as idle: the
        time starts when each assigned partition has handed over a record or told that there is none.

        Args:
            idle_s: how long nothing may arrive, in seconds.

        Raises:
            BrokerUnavailableError: if the group assigns nothing, or a partition answers nothing, within 30 s.
            AuthenticationFailedError: if the broker does not let the client in.
            AuthorizationFailedError: if a permission is missing.
        """
        waiting_since = idle_since = time.monotonic()
        while not self._answered or time.monotonic() - idle_since < idle_s:
            found = self._consumer.poll(min(idle_s, _SLICE))
            record = found if found is not None and self._is_record(found) else None
            if self._answered:
                waiting_since = time.monotonic()
            else:
                idle_since = time.monotonic()
            if record is not None:
                yield self._decoded(record)
                # Behind the yield: the time that the caller takes is no idleness either.
                waiting_since = idle_since = time.monotonic()
            elif self._faults.refuses or time.monotonic() - waiting_since > _JOIN:
                raise self._faults.failure(self._missing())

    @property
    def _answered(self) -> bool:
        return self._assigned and not self._unanswered

    def _missing(self) -> str:
        if not self._assigned:
            return f"no group of the broker took this consumer in within {_JOIN:.0f} s"
        silent = ", ".join(f"{topic}-{partition}" for topic, partition in sorted(self._unanswered))
        return f"the broker answered nothing within {_JOIN:.0f} s about {silent}"

    def _decoded(self, found: ClientMessage) -> Decoded:
        try:
            return self._codec.decode(CLIENT_RECORDS.record(found))
        except UnreadableHeadersError as error:
            left = CLIENT_RECORDS.record_left(found)
            return DecodeError(str(error), left.value, left.topic, left.key, Headers())

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _is_record(self, found: ClientMessage) -> bool:
        topic, partition, error = found.topic(), found.partition(), found.error()
        if error is not None and is_denied(error):
            raise denied(error, f"{topic or 'the group'} cannot be read")
        ended = error is not None and error.code() == KafkaError._PARTITION_EOF
        if error is not None and not ended and not is_transient(error):
            raise KafkaTransportError(error.str())
        if (ended or error is None) and topic is not None and partition is not None:
            self._unanswered.discard((topic, partition))
        return error is None

    def _on_assign(self, _: object, partitions: list[TopicPartition]) -> None:
        self._assigned = True
        self._unanswered.update((one.topic, one.partition) for one in partitions)

    def _on_revoke(self, _: object, partitions: list[TopicPartition]) -> None:
        self._unanswered.difference_update((one.topic, one.partition) for one in partitions)

    def __enter__(self) -> KafkaConsumer[P]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _raise(refusal: Refusal) -> None:
    raise DeliveryFailedError(f"{refusal.record.topic} refuses a record: {refusal.reason}")


def _patient(what: str) -> None:
    """Wait as long as it takes; the client gives up by itself after its message time-out."""
