"""Writes replayed records and their marks, a transaction at a time. Used by `loom dlq replay`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message

from loom.core.model import LoomFrozenStruct
from loom.streaming.headers import Headers
from loom.streaming.kafka.client_config import kafka_error
from loom.streaming.kafka.errors import DeliveryFailedError, KafkaTransportError
from loom.streaming.kafka.limits import producer_properties
from loom.streaming.kafka.transactions import Transactions
from loom.streaming.record import KafkaRecord

__all__ = ["ReplayWriter", "Replayed"]

#: seconds of one wait for room in the client's queue
_SLICE = 0.1


class Replayed(LoomFrozenStruct):
    """A record to write. Without a partition, its key says which."""

    topic: str
    record: KafkaRecord
    partition: int | None = None


class ReplayWriter:
    """One writer of one set of dead letters: a second one with the same id shuts this one out."""

    def __init__(self, config: Mapping[str, Any], transactional_id: str, max_message_bytes: Mapping[str, int]) -> None:
        properties = producer_properties(config, max_message_bytes)
        self._transactions = Transactions(properties, transactional_id, metadata=lambda _: "", waiting=lambda _: None)
        self._refused: str | None = None

    def fence(self) -> None:
        """Shut out an earlier writer and end what it left open; what it has committed is final then."""
        self._transactions.fence()

    def write(self, records: Iterable[Replayed], marks: Mapping[bytes, bytes], marks_topic: str) -> None:
        """Write records and marks in one transaction.

        Raises `DeliveryFailedError` for a record that its topic refuses, `FencedError` when another replay has begun; then
        nothing of this call is visible.
        """
        transactions = self._transactions
        transactions.begin()
        for one in records:
            found = one.record
            self._produce(
                one.topic, found.value, found.key, found.timestamp_ms, Headers.of(found.headers), one.partition
            )
        for key, value in marks.items():
            self._produce(marks_topic, value, key, None, Headers(), None)
        try:
            transactions.commit({}, None)
        except KafkaTransportError as error:
            if self._refused is not None:
                raise DeliveryFailedError(f"{self._refused}. Nothing of this batch was replayed") from error
            raise

    def close(self) -> None:
        """Give up what is open."""
        self._transactions.abort()

    def _produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        timestamp_ms: int | None,
        headers: Headers,
        partition: int | None,
    ) -> None:
        producer = self._transactions.producer
        while True:
            try:
                producer.produce(
                    topic,
                    value,
                    key,
                    -1 if partition is None else partition,
                    self._on_delivery,
                    None,
                    timestamp_ms or 0,
                    list(headers.pairs),
                )
                return
            except BufferError:
                producer.poll(_SLICE)
            except KafkaException as error:
                raise self._transactions.failed(kafka_error(error)) from None

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._refused is None:
            self._refused = f"{message.topic()} refuses a record: {error.str()}"
