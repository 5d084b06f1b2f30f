"""Before anything starts: every cluster is there, and every topic that the flow reads or writes, dead letters included.

Asked by the runner for a clear refusal, and by the source when the flow is run without it. The clusters are asked once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Set

from loom.core.logger import get_logger
from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.model import CompiledCluster, CompiledTopic
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.failpoints import Failpoint, failpoint
from loom.streaming.kafka.cluster_snapshot import ClusterSnapshot, fetch_cluster
from loom.streaming.kafka.group_snapshot import KEEP_ALIVE, GroupSnapshot, check_no_members
from loom.streaming.kafka.limits import TimestampLimits
from loom.streaming.kafka.outage import Clusters
from loom.streaming.kafka.topic_monitor import TopicState
from loom.streaming.nodes.boundary import PartitionGuarantee
from loom.streaming.runtime.output_table import OutputTable

__all__ = ["BrokerSnapshot", "Preflight"]

_log = get_logger(__name__)

#: room for what a dead letter says of its failure
_DEAD_LETTER_BYTES = 2048


class WrittenTopics(LoomFrozenStruct):
    """What is known of the topics that one producer writes to."""

    #: the largest record that each accepts, in bytes, where the broker tells
    max_message_bytes: Mapping[str, int]
    #: how far from the broker's clock a timestamp may be, where the topic keeps the producer's
    timestamp_limits: Mapping[str, TimestampLimits]
    #: the partition counts of topics whose keys are promised to stay where they are
    partition_counts: Mapping[str, int]
    #: the topics that accept no record without a key
    compacted: frozenset[str]


class BrokerSnapshot(LoomFrozenStruct):
    """The clusters of a plan as they were when it started."""

    #: partition numbers of the source's topics; empty where the source is the caller's own
    source_partitions: Mapping[str, tuple[int, ...]]
    #: ids and partition counts of the source's topics, to compare them with later
    source_topics: Mapping[str, TopicState]
    #: the source's group, where its positions are ours to commit
    group: GroupSnapshot
    #: the topics that are written to, by the number of their producer
    written: Mapping[int, WrittenTopics]


class Preflight:
    """Asks all clusters of a plan once, and keeps the answers for everyone who needs them."""

    def __init__(
        self,
        plan: CompiledPlan,
        outlets: OutputTable,
        *,
        reads_kafka: bool,
        owns_group: bool = False,
        waiting: Callable[[str], None],
        clusters: Clusters | None = None,
    ) -> None:
        self._plan = plan
        #: called between the slices of every wait; may raise
        self._waiting = waiting
        self._outlets = outlets
        self._clusters = clusters or Clusters(lambda: False)
        self._reads_kafka = reads_kafka
        #: whether the positions of the source's group are ours to commit
        self._owns_group = owns_group
        self._lock = threading.Lock()
        self._seen: BrokerSnapshot | None = None

    def snapshot(self) -> BrokerSnapshot:
        """What the clusters said. The first call asks each of them, for everything at once.

        Raises `BrokerUnavailableError`, `AuthenticationFailedError`, and `TopicMissingError` naming everything that is missing.
        """
        with self._lock:
            if self._seen is None:
                self._seen = self._fetch()
            return self._seen

    def group(self) -> GroupSnapshot:
        """The source's group. Raises `SecondInstanceError` when other consumers are subscribed with it, else as `snapshot`.

        A member of the group shares it with others.
        """
        group = self.snapshot().group
        if not self._plan.source.settings.shares_group:
            check_no_members(group, self._plan.source.settings.group_id)
        return group

    def check_group_again(self) -> None:
        """Raise `SecondInstanceError` when consumers have subscribed with the source's group since the start."""
        source = self._plan.source
        properties = source.cluster.properties
        group_id = source.settings.group_id
        seen = fetch_cluster(
            properties, {}, group_id=group_id, waiting=self._waiting, faults=self._clusters.of(properties)
        )
        if seen.group is not None:
            check_no_members(seen.group, group_id, "This run ends; what it has not committed is read by them")

    def _fetch(self) -> BrokerSnapshot:
        failpoint(Failpoint.STARTING)
        found = {
            number: fetch_cluster(
                question.cluster.properties,
                question.needed,
                limits_of=question.needed,
                ids_of=question.ids_of,
                group_id=question.group_id,
                waiting=self._waiting,
                faults=self._clusters.of(question.cluster.properties),
            )
            for number, question in self._questions().items()
        }
        stable = {output.topic for output in self._plan.topics() if _keeps_keys_in_place(output)}
        written = {}
        for producer in {output.producer.index: output.producer for output, _ in self._outputs()}.values():
            topics = {output.topic for output, _ in self._outputs() if output.producer == producer}
            written[producer.index] = _known(topics, found[producer.cluster.index], stable)
        if not self._reads_kafka:
            return BrokerSnapshot({}, {}, _NO_GROUP, written)
        source = self._plan.source
        seen = found[source.cluster.index]
        self._compare_limits(seen.max_message_bytes, written)
        partitions = {topic: seen.partitions[topic] for topic in source.topics}
        states = {topic: TopicState(seen.topic_ids.get(topic), len(numbers)) for topic, numbers in partitions.items()}
        return BrokerSnapshot(partitions, states, seen.group or _NO_GROUP, written)

    def _questions(self) -> dict[int, _Question]:
        """What each cluster is asked, by its number."""
        questions: dict[int, _Question] = {}
        source = self._plan.source
        if self._reads_kafka:
            asked = questions[source.cluster.index] = _Question(source.cluster)
            asked.needed.update(dict.fromkeys(source.topics, f"the source {source.name!r}"))
            asked.ids_of = source.topics
            asked.group_id = source.settings.group_id if self._owns_group else None
        for output, role in self._outputs():
            cluster = output.producer.cluster
            questions.setdefault(cluster.index, _Question(cluster)).needed.setdefault(output.topic, role)
        return questions

    def _outputs(self) -> Iterator[tuple[CompiledTopic, str]]:
        """Every topic that is written to, dead letters included, and what it is needed for."""
        for outlet in self._outlets.topics().values():
            yield outlet.output, "errors" if outlet.is_errors else f"output of {outlet.output.step_id}"
            if outlet.output.dlq is not None:
                yield outlet.output.dlq, f"dead letters of {outlet.output.name!r}"

    def _compare_limits(self, found: Mapping[str, int], written: Mapping[int, WrittenTopics]) -> None:
        """Warn of a topic of dead letters that has no room for the largest source record and what is said of it."""
        sources = {topic: found[topic] for topic in self._plan.source.topics if topic in found}
        if not sources:
            return
        source, largest = max(sources.items(), key=lambda item: item[1])
        low = {}
        for output in self._outlets.dead_letters():
            limit = written[output.producer.index].max_message_bytes.get(output.topic)
            if limit is not None and limit < largest + _DEAD_LETTER_BYTES:
                low[output.topic] = limit
        if low:
            _log.warning(
                "error_topic_limit_low",
                max_message_bytes=low,
                source_topic=source,
                source_max_message_bytes=largest,
                help="a dead letter of a record near the source's limit may not fit, which ends the run; set "
                f"max.message.bytes of these topics to {largest + _DEAD_LETTER_BYTES} or more",
            )


def _known(topics: Set[str], found: ClusterSnapshot, stable: Set[str]) -> WrittenTopics:
    """What a cluster said of the topics that one producer writes to; keys of those in `stable` stay where they are."""
    return WrittenTopics(
        {topic: limit for topic, limit in found.max_message_bytes.items() if topic in topics},
        {topic: limits for topic, limits in found.timestamp_limits.items() if topic in topics},
        {topic: len(found.partitions[topic]) for topic in topics & stable},
        found.compacted & topics,
    )


def _keeps_keys_in_place(output: CompiledTopic) -> bool:
    policy = output.partitioning
    return policy is not None and policy.guarantee is PartitionGuarantee.ENTITY_STABLE


class _Question:
    """What one cluster is asked."""

    def __init__(self, cluster: CompiledCluster) -> None:
        self.cluster = cluster
        #: what each topic is needed for
        self.needed: dict[str, str] = {}
        self.ids_of: tuple[str, ...] = ()
        self.group_id: str | None = None


#: where no group is ours
_NO_GROUP = GroupSnapshot((), KEEP_ALIVE)
