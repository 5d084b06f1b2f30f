"""Records that were not delivered: whose fault it was, and which of them the run's end names."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from confluent_kafka import KafkaError

from loom.core.model import LoomFrozenStruct
from loom.streaming.headers import HeaderPairs
from loom.streaming.kafka.client_config import is_denied
from loom.streaming.kafka.errors import (
    AuthorizationFailedError,
    BrokerUnavailableError,
    DeliveryFailedError,
    KafkaTransportError,
    ProducerFailedError,
)
from loom.streaming.kafka.limits import record_size

__all__ = ["NEIGHBOUR_REFUSED", "REFUSED_FOR_GOOD", "OutgoingRecord", "Refusal", "Undelivered", "failure_of"]

#: bytes of a key that an error shows
_SHOWN_KEY = 80

#: refusals that a retry cannot fix
REFUSED_FOR_GOOD = frozenset(
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
#: What is said of records whose producer has failed for good: the broker has lost its place in what that writes
#: (`enable.idempotence`), or the client has dropped what it still held.
_PRODUCER_FAILED = frozenset(
    {
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.UNKNOWN_PRODUCER_ID,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError._FATAL,
        KafkaError._PURGE_QUEUE,
        KafkaError._PURGE_INFLIGHT,
    }
)
#: refusals of a whole produce batch, which do not say for which of its records; most likely the largest
_BATCH_TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
#: a record that was in one produce batch with a refused one (KIP-467); it may be accepted without that one
NEIGHBOUR_REFUSED = KafkaError._INVALID_DIFFERENT_RECORD


class OutgoingRecord(LoomFrozenStruct):
    """A record to be written. `origin` is what it was made of, for its dead letter."""

    topic: str
    value: bytes | None
    key: bytes | None
    #: `None`: the time of writing
    timestamp_ms: int | None
    headers: HeaderPairs | None
    origin: Any


class Refusal(LoomFrozenStruct):
    """A record that will never be accepted, and why."""

    record: OutgoingRecord
    reason: str


class Undelivered:
    """What ends a producer's run, noted as the client reports it; `check` raises it."""

    def __init__(self, *, in_transaction: bool, tracked: Collection[str], place: Callable[[Any], object]) -> None:
        self._in_transaction = in_transaction
        self._tracked = tracked
        self._place = place
        self._fatal: str | None = None
        #: what kind of end `_fatal` is: a record that was refused, a right that is missing, or no broker
        self._kind: type[KafkaTransportError] = DeliveryFailedError
        #: the size of the record that `_fatal` names, where a larger one is more likely to be the guilty one
        self._fatal_size: int | None = None
        #: a record that did not cause the refusal of its batch; named only if the cause is never found
        self._neighbour: str | None = None
        #: a record of the transaction that was not delivered, which no successor need suffer from
        self._late: str | None = None

    @property
    def guilty(self) -> str | None:
        """The record, or the client's own failure, that will not go away by itself."""
        return self._fatal

    def _asks_for(self, error: KafkaError, size: int) -> bool:
        """Whether one more undelivered record would change the report."""
        if self._fatal is None:
            return error.code() != NEIGHBOUR_REFUSED or self._neighbour is None
        return error.code() in _BATCH_TOO_LARGE and self._fatal_size is not None and size > self._fatal_size

    def note(self, error: KafkaError, record: OutgoingRecord, first: Any, last: Any) -> None:
        """A record that was not delivered, and the first and last of what it may have been made of.

        The one whose own fault it is is named before any that shared its batch.
        """
        code, size = error.code(), record_size(record.value, None, None)
        if not self._asks_for(error, size):
            return
        hint = ""
        if code in REFUSED_FOR_GOOD and self._in_transaction:
            hint = (
                ". Under exactly_once a refusal by the broker itself ends the run, since it aborts the transaction; a dlq "
                "takes what is known to be refused before it is sent"
            )
        elif code in REFUSED_FOR_GOOD and record.topic not in self._tracked:
            hint = ". A dlq on that IntoTopic would take such records"
        what = (
            f"{self._made_of(first, last)} was not delivered to {record.topic} with the key "
            f"{_shown(record.key)}: {error.str()}{hint}"
        )
        if code == NEIGHBOUR_REFUSED:
            self._neighbour = what
        elif self._in_transaction and code not in REFUSED_FOR_GOOD:
            # It says nothing of the record, but of the transaction, or of a broker that was away for longer than one lasts.
            self._late = self._late or what
        else:
            self._fatal = what
            self._kind = failure_of(error)
            self._fatal_size = size if code in _BATCH_TOO_LARGE else None

    def _made_of(self, first: Any, last: Any) -> str:
        if first is last:
            return f"the record made of {self._place(first)}"
        return f"a record made of one of those from {self._place(first)} to {self._place(last)}"

    def failed(self, error: KafkaError) -> None:
        """The client itself has failed for good."""
        if self._fatal is None:
            self._fatal = f"the producer failed permanently: {error.str()}"
            self._kind = failure_of(error)

    def check(self, given_up: Callable[[str], KafkaTransportError] | None) -> None:
        """Raise what has been noted. `given_up` makes the error of a transaction that only came too late."""
        if self._fatal is not None:
            raise self._kind(self._fatal)
        late = self._late or self._neighbour
        if late is not None:
            raise DeliveryFailedError(late) if given_up is None else given_up(late)


def failure_of(error: KafkaError) -> type[KafkaTransportError]:
    """The class of the error with which a run ends when its producer has failed like this."""
    if is_denied(error):
        return AuthorizationFailedError
    if error.fatal() or error.code() in _PRODUCER_FAILED:
        return ProducerFailedError
    # The client has tried for as long as `message.timeout.ms` says.
    return BrokerUnavailableError if error.code() == KafkaError._MSG_TIMED_OUT else DeliveryFailedError


def _shown(key: bytes | None) -> str:
    """A key in an error; one of megabytes may be the very reason of it."""
    return repr(key) if key is None or len(key) <= _SHOWN_KEY else f"{key[:_SHOWN_KEY]!r}…"
