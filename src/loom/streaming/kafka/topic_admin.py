"""What an operator asks of the topics of a cluster and tells it to do with them. Used by `loom topics` and `loom dlq`.

A running flow never does: it creates, changes and deletes no topic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ConfigSource, NewTopic, ResourceType  # type: ignore[attr-defined]

from loom.core.model import LoomFrozenStruct
from loom.streaming.kafka.client_config import is_denied, kafka_error, make_client
from loom.streaming.kafka.cluster_faults import ClusterFaults, denied
from loom.streaming.kafka.cluster_snapshot import EMBEDDED, cluster_metadata
from loom.streaming.kafka.errors import KafkaTransportError, TopicMissingError
from loom.streaming.kafka.interruptible import result_interruptibly
from loom.streaming.kafka.reserved_properties import shared_properties
from loom.streaming.record import TopicPartition

__all__ = ["PartitionInfo", "TopicAdmin", "TopicInfo", "TopicRequest"]

#: seconds of one request
_ANSWER = 10.0
#: the largest record of a topic, in the words of the broker
MAX_MESSAGE_BYTES = "max.message.bytes"


class PartitionInfo(LoomFrozenStruct):
    """One partition: the node that leads it, and those that hold it and are in step with the leader."""

    number: int
    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


class TopicInfo(LoomFrozenStruct):
    """A topic as the cluster knows it."""

    name: str
    partitions: tuple[PartitionInfo, ...]

    @property
    def replication(self) -> int:
        """How many copies the cluster keeps of each partition: the fewest, where they differ."""
        return min((len(partition.replicas) for partition in self.partitions), default=0)

    @property
    def internal(self) -> bool:
        """Whether it is one of the broker's own."""
        return self.name.startswith("__")


class TopicRequest(LoomFrozenStruct):
    """A topic to create; -1 leaves a number to the broker's default."""

    name: str
    partitions: int = -1
    replication: int = -1
    config: Mapping[str, str] = {}


class TopicAdmin:
    """Questions and orders to one cluster. Each waits for its answer.

    Every method raises `BrokerUnavailableError`, `AuthenticationFailedError`, `AuthorizationFailedError` or
    `KafkaTransportError` when the cluster does not do what it is asked.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.brokers = str(config.get("bootstrap.servers", ""))
        self._faults = ClusterFaults(config)
        self._admin = make_client(AdminClient, shared_properties(config), self._faults)

    def topics(self) -> dict[str, TopicInfo]:
        """All topics that the user may see, by name."""
        metadata = cluster_metadata(self._admin, self._faults, _patient)
        return {name: _info(found) for name, found in sorted(metadata.topics.items()) if found.error is None}

    def existing(self, names: Iterable[str]) -> dict[str, TopicInfo]:
        """These topics. Raises `TopicMissingError` that names every one that does not exist."""
        found, wanted = self.topics(), list(names)
        missing = [name for name in wanted if name not in found]
        if missing:
            raise TopicMissingError(
                f"topics that do not exist on {self.brokers}: {', '.join(map(repr, missing))}. Correct the names, or create "
                "them with `loom topics create`. A topic that this client's user has no right to describe looks the same"
            )
        return {name: found[name] for name in wanted}

    def configs(self, topics: Iterable[str], *, only_set: bool = True) -> dict[str, dict[str, str]]:
        """The properties of topics: those that were set for the topic itself, or all that hold.

        The in-process broker has none.
        """
        names = list(topics)
        if not names or self._is_embedded():
            return {name: {} for name in names}
        asked = self._admin.describe_configs(
            [ConfigResource(ResourceType.TOPIC, name) for name in names], request_timeout=_ANSWER
        )
        return {
            resource.name: {
                entry.name: entry.value
                for entry in self._answer(future, f"the properties of {resource.name}").values()
                if entry.value is not None and (not only_set or entry.source == _OF_THE_TOPIC)
            }
            for resource, future in asked.items()
        }

    def topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        """The id of each topic, which changes when a topic is recreated; `-` where the broker has none."""
        names = list(topics)
        if not names or self._is_embedded():
            return dict.fromkeys(names, "-")
        asked = self._admin.describe_topics(TopicCollection(names), request_timeout=_ANSWER)
        return {name: str(self._answer(one, f"{name} cannot be described").topic_id) for name, one in asked.items()}

    def create(self, topics: Sequence[TopicRequest], *, validate_only: bool = False) -> None:
        """Create topics; with `validate_only` only ask whether they could be created. A topic that exists is an error."""
        wanted = [
            NewTopic(
                topic.name,
                num_partitions=topic.partitions,
                replication_factor=topic.replication,
                config=dict(topic.config),
            )
            for topic in topics
        ]
        if not wanted:
            return
        if self._is_embedded():
            raise KafkaTransportError(
                "the in-process broker answers no admin requests: use EmbeddedBroker.create_topic()"
            )
        asked = self._admin.create_topics(wanted, request_timeout=_ANSWER, validate_only=validate_only)
        for name, future in asked.items():
            self._answer(future, f"the topic {name!r} cannot be created")

    def members(self, group: str) -> tuple[str, ...]:
        """The consumers that are subscribed with a group: client id and host of each. A group that is not known has none."""
        if self._is_embedded():
            return ()
        asked = self._admin.describe_consumer_groups([group], request_timeout=_ANSWER)[group]
        try:
            found = result_interruptibly(asked, lambda: None)
        except KafkaException as error:
            if kafka_error(error).code() == KafkaError.GROUP_ID_NOT_FOUND:
                return ()
            raise self._error(kafka_error(error), f"the members of the group {group!r} are not known") from None
        return tuple(f"{member.client_id} at {member.host.lstrip('/')}" for member in found.members)

    def delete_before(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Delete the records of each partition in front of an offset. Nothing brings them back."""
        wanted = [ClientPartition(*partition, offset) for partition, offset in offsets.items()]
        for partition, future in self._admin.delete_records(wanted, request_timeout=_ANSWER).items():
            self._answer(future, f"the records of {partition.topic}[{partition.partition}] cannot be deleted")

    def delete(self, topics: Sequence[str]) -> None:
        """Delete topics and all that is in them. Nothing brings them back."""
        for name, future in self._admin.delete_topics(list(topics), request_timeout=_ANSWER).items():
            self._answer(future, f"the topic {name!r} cannot be deleted")

    def _is_embedded(self) -> bool:
        """Whether this is the in-process broker, which lets an admin request time out."""
        return str(cluster_metadata(self._admin, self._faults, _patient).cluster_id).startswith(EMBEDDED)

    def _answer(self, future: Future[Any], what: str) -> Any:
        try:
            return result_interruptibly(future, lambda: None)
        except KafkaException as error:
            raise self._error(kafka_error(error), what) from None

    def _error(self, error: KafkaError, what: str) -> KafkaTransportError:
        if is_denied(error):
            return denied(error, what)
        if self._faults.refuses:
            return self._faults.failure(what, error)
        return KafkaTransportError(f"{what}: {error.str()}")


#: how the broker says that a property was set for the topic
_OF_THE_TOPIC = ConfigSource.DYNAMIC_TOPIC_CONFIG.value


def _info(found: Any) -> TopicInfo:
    partitions = (
        PartitionInfo(number, one.leader, tuple(one.replicas), tuple(one.isrs))
        for number, one in sorted(found.partitions.items())
    )
    return TopicInfo(found.topic, tuple(partitions))


def _patient(_: str) -> None:
    """A person waits; the limits are those of the requests."""
