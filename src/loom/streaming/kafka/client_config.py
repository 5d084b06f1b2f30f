"""What every client of ours is told besides its settings: where its log lines go, and which faults pass by themselves."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from loom.streaming.kafka.errors import KafkaTransportError

__all__ = ["CLIENT_LOG", "is_transient", "kafka_error", "make_client"]

#: the client's own log lines; the standard library's logging decides what becomes of them
CLIENT_LOG = logging.getLogger("loom.streaming.kafka.client")

C = TypeVar("C")

#: Faults that pass: the broker is away, moving, electing or not yet aware of a new topic. The client calls only some of
#: them retriable (NOT_COORDINATOR at start-up has killed flows).
_TRANSIENT = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._RESOLVE,
        KafkaError._WAIT_COORD,
        KafkaError._WAIT_CACHE,
        KafkaError._INTERRUPTED if hasattr(KafkaError, "_INTERRUPTED") else KafkaError._TIMED_OUT,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
    }
)


def is_transient(error: KafkaError) -> bool:
    """Whether waiting is the answer."""
    return not error.fatal() and (error.code() in _TRANSIENT or error.retriable())


def kafka_error(error: KafkaException) -> KafkaError:
    """The client's error inside its exception."""
    found: KafkaError = error.args[0]
    return found


def make_client(client_class: type[C], config: dict[str, Any]) -> C:
    """Make a client; a refused property becomes an error that names it, without its value."""
    try:
        return client_class(config, logger=CLIENT_LOG)  # type: ignore[call-arg]
    except (KafkaException, TypeError, ValueError) as refused:
        secrets = [str(value) for key, value in config.items() if "password" in key or "secret" in key or "key" in key]
        text = kafka_error(refused).str() if isinstance(refused, KafkaException) else str(refused)
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        raise KafkaTransportError(f"the Kafka client refuses its configuration: {text}") from None
