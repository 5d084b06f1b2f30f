"""What a start asks of one cluster, through one admin client that ends with it.

Is it there, do the topics exist, what do they take, has the consumer group members. Requests that need no answer of
another are sent together. Metadata calls without a time-out hang while a broker is away, so each has one, and all share
a deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from typing import Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from loom.core.model import LoomFrozenStruct
from loom.streaming.kafka.client_config import CLIENT_LOG, is_transient, kafka_error, make_client
from loom.streaming.kafka.cluster_faults import ClusterFaults
from loom.streaming.kafka.errors import TopicMissingError
from loom.streaming.kafka.group_snapshot import GroupRequest, GroupSnapshot
from loom.streaming.kafka.interruptible import result_interruptibly
from loom.streaming.kafka.limits import TimestampLimits
from loom.streaming.kafka.reserved_properties import shared_properties

__all__ = ["EMBEDDED", "ClusterSnapshot", "cluster_metadata", "fetch_cluster"]

#: seconds; with the start of the interpreter, a person knows within 10 that there is no broker
_REACH = 8.0
#: seconds of one call within that time, during which no signal is noticed
_CALL = 1.5
#: seconds that a topic made a moment ago may stay invisible
_APPEAR = 4.0
_LIMITS = 3.0
#: how the client's in-process broker names its cluster; it answers no admin request but lets it time out
EMBEDDED = "mockCluster"


class ClusterSnapshot(LoomFrozenStruct):
    """What a cluster said of topics and of a group."""

    #: partition numbers of each topic
    partitions: Mapping[str, tuple[int, ...]]
    #: the largest record of each topic in bytes, where the broker tells
    max_message_bytes: Mapping[str, int] = {}
    #: of topics that keep the producer's timestamps
    timestamp_limits: Mapping[str, TimestampLimits] = {}
    #: topics that take no record without a key
    compacted: frozenset[str] = frozenset()
    #: ids of topics that were asked for, where the broker tells; an id changes when its topic is recreated
    topic_ids: Mapping[str, str] = {}
    #: `None` where no group was asked about
    group: GroupSnapshot | None = None


def fetch_cluster(
    config: Mapping[str, Any],
    needed: Mapping[str, str],
    *,
    limits_of: Iterable[str] = (),
    ids_of: Iterable[str] = (),
    group_id: str | None = None,
    waiting: Callable[[str], None] = lambda _: None,
    faults: ClusterFaults | None = None,
) -> ClusterSnapshot:
    """Look up topics, and a group if one is named, on one cluster. `needed` maps each topic to what it is needed for.

    `waiting` is called between the slices of every wait and may raise.

    Raises `BrokerUnavailableError` when no broker, or the group's coordinator, does not answer within 10 s,
    `AuthenticationFailedError` when one does not let us in, `TopicMissingError` naming every topic that is still not
    there 4 s later.
    """
    faults = faults or ClusterFaults(config)
    admin = make_client(AdminClient, shared_properties(config), faults)
    # Lets the client connect at once. Behind a metadata call alone it does so after half of reconnect.backoff.ms (50 ms;
    # librdkafka 2.16).
    greeted = admin.describe_cluster(request_timeout=_CALL)
    group = GroupRequest(admin, group_id, faults, waiting) if group_id is not None else None
    metadata, partitions = _await_topics(admin, config, needed, faults, waiting)
    if str(metadata.cluster_id).startswith(EMBEDDED):
        # It knows of no controller and no members: the greeting is never answered, the group at once, as unknown.
        return ClusterSnapshot(partitions, group=group.result() if group is not None else None)
    if group is not None:
        group.ask_broker(next(iter(metadata.brokers)))
    asked_limits = _ask_limits(admin, sorted(set(limits_of)))
    asked_ids = _ask_ids(admin, sorted(set(ids_of)))
    configs = _answers(asked_limits, lambda: waiting("the limits of the topics"))
    ids = _answers(asked_ids, lambda: waiting("the ids of the topics"))
    properties = {
        topic: {name: entry.value for name, entry in entries.items() if entry.value is not None}
        for topic, entries in configs.items()
    }
    # A client that ends amid a request may wait for ever for its thread of that broker (librdkafka 2.16).
    wait([greeted], _CALL)
    return ClusterSnapshot(
        partitions,
        {topic: int(found["max.message.bytes"]) for topic, found in properties.items() if "max.message.bytes" in found},
        {topic: limits for topic, found in properties.items() if (limits := _timestamp_limits(found)) is not None},
        frozenset(topic for topic, found in properties.items() if "compact" in found.get("cleanup.policy", "")),
        {topic: str(found.topic_id) for topic, found in ids.items()},
        group.result() if group is not None else None,
    )


def _await_topics(
    admin: AdminClient,
    config: Mapping[str, Any],
    needed: Mapping[str, str],
    faults: ClusterFaults,
    waiting: Callable[[str], None],
) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The cluster's metadata, and the partition numbers of all topics that are needed."""
    appear_by: float | None = None
    while True:
        # All topics are listed: asking for one by name could create it.
        metadata = cluster_metadata(admin, faults, waiting)
        partitions = {
            name: tuple(sorted(topic.partitions))
            for name, topic in metadata.topics.items()
            if name in needed and topic.error is None and topic.partitions
        }
        missing = [topic for topic in needed if topic not in partitions]
        if not missing:
            return metadata, partitions
        now = time.monotonic()
        appear_by = appear_by or now + _APPEAR
        if now >= appear_by:
            told = "; ".join(f"{topic!r} ({needed[topic]})" for topic in missing)
            raise TopicMissingError(
                f"topics that do not exist on {config['bootstrap.servers']}: {told}. "
                "Create them (loom topics create), or correct their names in the flow or under kafka.producers / "
                "kafka.consumer.topics. A topic that this client's user has no "
                "right to describe looks the same: then grant it (ACLs)"
            )
        # A broker does not report a new topic; a metadata request is the only way to see it.
        waiting("topics that are not there yet")
        admin.poll(0.2)


def cluster_metadata(admin: AdminClient, faults: ClusterFaults, waiting: Callable[[str], None]) -> Any:
    """The metadata of a cluster and of all its topics. Raises `BrokerUnavailableError` after 8 s without an answer."""
    deadline = time.monotonic() + _REACH
    while True:
        try:
            return admin.list_topics(timeout=_CALL)
        except KafkaException as error:
            found = kafka_error(error)
        # The callbacks of the client are called while it is polled.
        admin.poll(0.1)
        if faults.refuses or not is_transient(found) or time.monotonic() > deadline - _CALL:
            raise faults.failure(
                f"no Kafka broker answers at {faults.brokers} within {_REACH:.0f} s",
                found,
                "Start it, or correct kafka.*.brokers and kafka.*.security",
            )
        waiting("a Kafka broker that answers")


def _ask_limits(admin: AdminClient, topics: list[str]) -> dict[str, Future[Any]]:
    if not topics:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    return {found.name: asked for found, asked in admin.describe_configs(resources, request_timeout=_LIMITS).items()}


def _ask_ids(admin: AdminClient, topics: list[str]) -> dict[str, Future[Any]]:
    return dict(admin.describe_topics(TopicCollection(topics), request_timeout=_LIMITS)) if topics else {}


def _answers(asked: Mapping[str, Future[Any]], waiting: Callable[[], None]) -> dict[str, Any]:
    """The answers; there is none for a topic that the client may not ask about, or from an old broker."""
    found = {}
    for topic, future in asked.items():
        try:
            found[topic] = result_interruptibly(future, waiting)
        except KafkaException as error:
            # What is not known here is seen when it happens: a refused record, a recreated topic.
            CLIENT_LOG.info("not everything about %s is known: %s", topic, error)
    return found


def _timestamp_limits(config: Mapping[str, str]) -> TimestampLimits | None:
    if config.get("message.timestamp.type", "CreateTime") != "CreateTime":
        return None
    # Brokers before 3.6 know one limit for both sides.
    either = config.get("message.timestamp.difference.max.ms")
    behind, ahead = (config.get(f"message.timestamp.{side}.max.ms", either) for side in ("before", "after"))
    return TimestampLimits(int(behind), int(ahead)) if behind is not None and ahead is not None else None
