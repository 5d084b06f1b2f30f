"""A look at the cluster before anything starts: is it there, do the topics exist, how large may a record be.

Metadata calls without a time-out hang while a broker is away, so each has one, and all share a deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from loom.core.model import LoomFrozenStruct
from loom.streaming.kafka.client_config import CLIENT_LOG, is_transient, kafka_error, make_client
from loom.streaming.kafka.cluster_faults import ClusterFaults
from loom.streaming.kafka.errors import TopicMissingError
from loom.streaming.kafka.interruptible import result_interruptibly
from loom.streaming.kafka.limits import TimestampLimits
from loom.streaming.kafka.reserved_properties import shared_properties

__all__ = ["EMBEDDED", "TopicLook", "look_at_topics"]

#: seconds; a start must have failed or succeeded within 15
_REACH = 10.0
#: seconds of one call within that time: no signal is heard meanwhile
_CALL = 1.5
#: seconds that a topic made a moment ago may stay invisible
_APPEAR = 4.0
_LIMITS = 3.0


class TopicLook(LoomFrozenStruct):
    """What was seen of each topic: its partition numbers and, where the broker tells, the largest record in bytes and the
    timestamps that it takes."""

    partitions: Mapping[str, tuple[int, ...]]
    max_message_bytes: Mapping[str, int]
    #: of topics that keep the producer's timestamps
    timestamp_limits: Mapping[str, TimestampLimits] = {}
    #: topics that take no record without a key
    compacted: frozenset[str] = frozenset()


def look_at_topics(
    config: Mapping[str, Any],
    needed: Mapping[str, str],
    *,
    limits_of: Iterable[str] = (),
    waiting: Callable[[str], None] = lambda _: None,
    faults: ClusterFaults | None = None,
) -> TopicLook:
    """Look up topics on one cluster. `needed` maps each topic to what it is needed for.

    `waiting` is called between the slices of every wait and may raise.

    Raises `BrokerUnavailableError` when no broker answers within 10 s, `AuthenticationFailedError` when one does not let
    us in, `TopicMissingError` naming every topic that is
    still not there 4 s later.
    """
    faults = faults or ClusterFaults(config)
    admin = make_client(AdminClient, shared_properties(config), faults)
    appear_by: float | None = None
    while True:
        # All topics are listed: asking for one by name could create it.
        metadata = _metadata(admin, faults, waiting)
        partitions = {
            name: tuple(sorted(topic.partitions))
            for name, topic in metadata.topics.items()
            if name in needed and topic.error is None and topic.partitions
        }
        missing = [topic for topic in needed if topic not in partitions]
        if not missing:
            break
        now = time.monotonic()
        appear_by = appear_by or now + _APPEAR
        if now >= appear_by:
            told = "; ".join(f"{topic!r} ({needed[topic]})" for topic in missing)
            raise TopicMissingError(
                f"topics that do not exist on {config['bootstrap.servers']}: {told}. Create them, or correct their "
                "names in the flow or under kafka.producers / kafka.consumer.topics. A topic that this client's user may "
                "not describe looks the same: then grant the permission (ACL)"
            )
        # The broker tells nobody when a topic appears; a metadata request is the only way to see it.
        waiting("topics that are not there yet")
        admin.poll(0.2)
    configs = _configs(
        admin, sorted(set(limits_of)), waiting, known_controller=not metadata.cluster_id.startswith(EMBEDDED)
    )
    sizes = {
        topic: int(config["max.message.bytes"]) for topic, config in configs.items() if "max.message.bytes" in config
    }
    times = {topic: found for topic, config in configs.items() if (found := _timestamp_limits(config)) is not None}
    compacted = frozenset(topic for topic, config in configs.items() if "compact" in config.get("cleanup.policy", ""))
    return TopicLook(partitions, sizes, times, compacted)


#: how the client's in-process broker names its cluster; it answers no admin request but lets it time out
EMBEDDED = "mockCluster"


def _metadata(admin: AdminClient, faults: ClusterFaults, waiting: Callable[[str], None]) -> Any:
    deadline = time.monotonic() + _REACH
    while True:
        try:
            return admin.list_topics(timeout=_CALL)
        except KafkaException as error:
            found = kafka_error(error)
        # What the client's callbacks know is told while it is polled.
        admin.poll(0.1)
        if faults.refuses or not is_transient(found) or time.monotonic() > deadline - _CALL:
            raise faults.failure(f"no Kafka broker answers at {faults.brokers} within {_REACH:.0f} s", found)
        waiting("a Kafka broker that answers")


def _configs(
    admin: AdminClient, topics: list[str], waiting: Callable[[str], None], *, known_controller: bool
) -> dict[str, dict[str, str]]:
    if not topics or not known_controller:
        return {}
    futures = admin.describe_configs(
        [ConfigResource(ResourceType.TOPIC, topic) for topic in topics], request_timeout=_LIMITS
    )
    found = {}
    for resource, future in futures.items():
        try:
            entries = result_interruptibly(future, lambda: waiting("the limits of the topics"))
            found[resource.name] = {name: entry.value for name, entry in entries.items() if entry.value is not None}
        except KafkaException as error:
            # Not allowed to look, or an old broker: refusals are then seen only when they happen.
            CLIENT_LOG.info("the limits of %s are not known: %s", resource.name, error)
    return found


def _timestamp_limits(config: Mapping[str, str]) -> TimestampLimits | None:
    if config.get("message.timestamp.type", "CreateTime") != "CreateTime":
        return None
    # Brokers before 3.6 know one limit for both sides.
    either = config.get("message.timestamp.difference.max.ms")
    behind, ahead = (config.get(f"message.timestamp.{side}.max.ms", either) for side in ("before", "after"))
    return TimestampLimits(int(behind), int(ahead)) if behind is not None and ahead is not None else None
