"""What every client gets besides its settings: where its log lines go, and which faults are temporary."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from confluent_kafka import KafkaError, KafkaException, Producer

from loom.streaming.kafka.client_statistics import ClientStatistics
from loom.streaming.kafka.errors import AuthenticationFailedError, KafkaTransportError

__all__ = ["CLIENT_LOG", "Ears", "is_denied", "is_transient", "kafka_error", "make_client", "raised_by"]

#: The client's own log lines: hundreds while a broker is unreachable, so they are shown only if a level was set, as
#: `--debug` does. What an operator must know of them is said by us.
CLIENT_LOG = logging.getLogger("loom.streaming.kafka.client")
if CLIENT_LOG.level == logging.NOTSET:
    CLIENT_LOG.setLevel(logging.CRITICAL)

C = TypeVar("C")


class Ears(Protocol):
    """Receives what a client reports besides the answers to its calls."""

    #: takes its statistics; `None` where they are not wanted
    statistics: ClientStatistics | None

    def note(self, error: KafkaError) -> None:
        """Its error callback."""

    def log(self, level: int, message: str, *arguments: Any) -> None:
        """Its log."""

    def no_token(self, why: str) -> None:
        """A callback for OAuth tokens has failed."""

    def explain(self) -> str | None:
        """What is wrong, according to recent reports."""


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
        # The broker that was asked has left the cluster's metadata, as one that was killed does, or has another address.
        KafkaError._DESTROY,
        KafkaError._DESTROY_BROKER,
        KafkaError._NODE_UPDATE,
        KafkaError._UNKNOWN_BROKER,
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

_DENIED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)


def is_denied(error: KafkaError) -> bool:
    """Whether an ACL forbids what was asked."""
    return error.code() in _DENIED


def is_transient(error: KafkaError) -> bool:
    """Whether waiting is the answer."""
    return not error.fatal() and (error.code() in _TRANSIENT or error.retriable())


def kafka_error(error: KafkaException) -> KafkaError:
    """The client's error inside its exception."""
    found: KafkaError = error.args[0]
    return found


def raised_by(producer: Producer, wait_s: float) -> KafkaError | None:
    """What a producer raises while it serves its events: it does so with a fatal error from whichever call serves them."""
    try:
        producer.poll(wait_s)
    except KafkaException as told:
        return kafka_error(told)
    return None


#: A client that has asked for its first connection and is given something to do waits for half of this before it connects
#: (50 ms by default; measured: 56 ms until the first answer, and 16 ms with this). Later ones are twice as far apart each.
_PROPERTIES = {"reconnect.backoff.ms": 20}


def make_client(
    client_class: type[C],
    config: Mapping[str, Any],
    ears: Ears | None = None,
    *,
    on_error: Callable[[KafkaError], None] | None = None,
) -> C:
    """Make a client; a refused property becomes an error that names it, without its value.

    `on_error` is called after `ears`, with the error of the error callback.
    """
    own = {**_PROPERTIES, **config}
    if ears is not None:
        own["error_cb"] = ears.note if on_error is None else _both(ears.note, on_error)
        if callable(token := own.get("oauth_cb")):
            own["oauth_cb"] = _told_to(ears, token)
        if ears.statistics is not None and "stats_cb" not in own:
            own["statistics.interval.ms"] = ears.statistics.interval_ms
            own["stats_cb"] = ears.statistics.note
    try:
        return client_class(own, logger=ears if ears is not None else CLIENT_LOG)  # type: ignore[call-arg]
    except KafkaException as refused:
        found = kafka_error(refused)
        secrets = [str(value) for key, value in config.items() if "password" in key or "secret" in key or "key" in key]
        text = found.str()
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        if found.code() in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
            why = f" ({told})" if ears is not None and (told := ears.explain()) else ""
            raise AuthenticationFailedError(f"no client could be made: {text}{why}") from None
        raise KafkaTransportError(f"the Kafka client refuses its configuration: {text}") from None


def _both(first: Callable[[KafkaError], None], second: Callable[[KafkaError], None]) -> Callable[[KafkaError], None]:
    def call(error: KafkaError) -> None:
        first(error)
        second(error)

    return call


def _told_to(ears: Ears, token: Callable[..., Any]) -> Callable[..., Any]:
    """The author's callback; the client keeps what it raises to itself."""

    def call(*arguments: Any) -> Any:
        try:
            return token(*arguments)
        except Exception as error:
            ears.no_token(f"the callback raised {type(error).__name__}: {error}")
            raise

    return call
