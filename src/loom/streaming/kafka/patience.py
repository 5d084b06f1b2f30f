"""A call on a coordinator that is retried while its error may be temporary: logged every 10 s, and ended in time.

Used by the transactional producer, and for commits that are awaited. `likely_reason` asks the cluster why such a call may
fail.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from loom.core.logger import get_logger
from loom.streaming.kafka.client_config import kafka_error, make_client
from loom.streaming.kafka.cluster_faults import ClusterFaults
from loom.streaming.kafka.errors import BrokerUnavailableError
from loom.streaming.kafka.reserved_properties import shared_properties

__all__ = ["Patience", "likely_reason", "reason_at"]

_log = get_logger(__name__)

#: seconds between two lines about one wait
_SAY = 10.0
#: seconds of a metadata request
_LOOK = 2.0

#: the topics whose partitions' leaders are the coordinators
_TRANSACTIONS, _GROUPS = "__transaction_state", "__consumer_offsets"
_COPIES = {
    _TRANSACTIONS: "transaction.state.log.replication.factor",
    _GROUPS: "offsets.topic.replication.factor",
}


class Patience:
    """One wait for a temporary error to end. `reason` returns the likely reason, for each log line and the final error."""

    def __init__(
        self,
        waiting_for: str,
        limit_s: float,
        reason: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._waiting_for = waiting_for
        self._limit_s = limit_s
        self._reason = reason
        self._clock = clock
        self._began = self._said_at = clock()

    def spend(self, answer: str) -> None:
        """The call failed again, with this message of the client.

        Raises `BrokerUnavailableError` if that has lasted too long.
        """
        now = self._clock()
        if now - self._began >= self._limit_s:
            raise BrokerUnavailableError(
                f"gave up waiting for {self._waiting_for} after {self._limit_s:g} s (kafka.consumer.start_timeout_ms): "
                f"{answer}. Likely reason: {self._reason()}"
            )
        if now - self._said_at >= _SAY:
            self._said_at = now
            _log.warning(
                "still_waiting",
                waiting_for=self._waiting_for,
                seconds=round(now - self._began),
                gives_up_after_seconds=round(self._limit_s),
                client_says=answer,
                likely_reason=self._reason(),
            )


def reason_at(config: Mapping[str, Any]) -> str:
    """`likely_reason` as a client of its own sees it, for callers whose client is in the middle of a call."""
    faults = ClusterFaults(config)
    reason = likely_reason(make_client(AdminClient, shared_properties(config), faults))
    return faults.explain() or reason


class _Client(Protocol):
    def list_topics(self, topic: str = ..., timeout: float = ...) -> Any:
        """The cluster's metadata."""


def likely_reason(client: _Client) -> str:
    """Why no coordinator answers, according to the metadata of the cluster."""
    try:
        # All topics are listed: asking for one by name could create it.
        cluster = client.list_topics(timeout=_LOOK)
    except KafkaException as error:
        return f"no broker answers ({kafka_error(error).str()})"
    brokers, topics = len(cluster.brokers), cluster.topics
    for name in (_TRANSACTIONS, _GROUPS):
        if name not in topics or not topics[name].partitions:
            return (
                f"the topic {name} is missing. A broker creates it when it is first needed, with as many replicas as "
                f"{_COPIES[name]} says (3 by default), and cannot with fewer brokers; {_counted(brokers)} known here. "
                "Start more brokers, or lower that setting on them"
            )
        if away := _without_leader(topics[name].partitions):
            return (
                f"{away} of the {len(topics[name].partitions)} partitions of {name} have no leader: the brokers that "
                f"hold them are unreachable; {_counted(brokers)} known here"
            )
    return "the coordinator has just moved, or is still ending the transaction of a predecessor"


def _without_leader(partitions: Mapping[int, Any]) -> int:
    return sum(partition.leader < 0 for partition in partitions.values())


def _counted(brokers: int) -> str:
    return "1 broker is" if brokers == 1 else f"{brokers} brokers are"
