"""Before anything starts: every cluster is there, and every topic that the flow reads or writes, dead letters included.

Asked by the runner for a clear refusal, and by the source when the flow is run without it; looks once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from loom.core.logger import get_logger
from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.model import CompiledCluster, CompiledTopic
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.failpoints import Failpoint, failpoint
from loom.streaming.kafka.group_look import KEEP_ALIVE, GroupLook, check_no_members
from loom.streaming.kafka.limits import TimestampLimits
from loom.streaming.kafka.outage import Clusters
from loom.streaming.kafka.topic_monitor import TopicState
from loom.streaming.kafka.topics import look_at_cluster
from loom.streaming.nodes.boundary import PartitionGuarantee
from loom.streaming.runtime.output_table import OutputTable

__all__ = ["BrokerSnapshot", "Preflight"]

_log = get_logger(__name__)

#: bytes for what a dead letter says about its failure
_DEAD_LETTER_BYTES = 2048


class BrokerSnapshot(LoomFrozenStruct):
    """What was found."""

    #: partition numbers of the source's topics; empty where the source is the caller's own
    source_partitions: Mapping[str, tuple[int, ...]]
    #: how the source's topics were seen, for later checks
    source_topics: Mapping[str, TopicState]
    #: the source's group, where its positions are ours to commit
    group: GroupLook
    #: the largest record of each topic, in bytes, by the number of the producer that writes to it
    max_message_bytes: Mapping[int, Mapping[str, int]]
    #: the partition counts of topics whose keys are promised to stay where they are, by producer alike
    partition_counts: Mapping[int, Mapping[str, int]]
    #: the timestamps that each topic takes, by producer alike
    timestamp_limits: Mapping[int, Mapping[str, TimestampLimits]]
    #: the topics that take no record without a key, by producer alike
    compacted: Mapping[int, frozenset[str]]


class Preflight:
    """One check of all clusters of a plan, shared by its users."""

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

    def look(self) -> BrokerSnapshot:
        """Raises `BrokerUnavailableError` or `TopicMissingError`, the latter naming everything that is missing.

        All requests to a cluster are made here, together.
        """
        with self._lock:
            if self._seen is None:
                self._seen = self._look()
            return self._seen

    def look_at_group(self) -> GroupLook:
        """Raises `SecondInstanceError` when other consumers are subscribed with the group, `BrokerUnavailableError`."""
        group = self.look().group
        check_no_members(group, self._plan.source.settings.group_id)
        return group

    def _look(self) -> BrokerSnapshot:
        failpoint(Failpoint.STARTING)
        clusters: dict[int, _Cluster] = {}

        def asked(cluster: CompiledCluster) -> _Cluster:
            return clusters.setdefault(cluster.index, _Cluster(cluster.properties))

        source = self._plan.source
        reading = asked(source.cluster) if self._reads_kafka else None
        if reading is not None:
            for topic in source.topics:
                reading.needed[topic] = f"the source {source.name!r}"
                reading.limits_of.append(topic)
            reading.ids_of = source.topics
            reading.group_id = source.settings.group_id if self._owns_group else None
        written: list[tuple[int, _Cluster, str]] = []
        for outlet in self._outlets.topics().values():
            what = "errors" if outlet.is_errors else f"output of {outlet.output.step_id}"
            for output, role in ((outlet.output, what), (outlet.output.dlq, f"dead letters of {outlet.output.name!r}")):
                if output is not None:
                    target = asked(output.producer.cluster)
                    target.needed.setdefault(output.topic, role)
                    target.limits_of.append(output.topic)
                    written.append((output.producer.index, target, output.topic))
        looks = {
            id(c): look_at_cluster(
                c.config,
                c.needed,
                limits_of=c.limits_of,
                ids_of=c.ids_of,
                group_id=c.group_id,
                waiting=self._waiting,
                faults=self._clusters.of(c.config),
            )
            for c in clusters.values()
        }
        partitions, states, group = {}, {}, None
        if reading is not None:
            found = looks[id(reading)]
            partitions = {topic: found.partitions[topic] for topic in source.topics}
            states = {t: TopicState(found.topic_ids.get(t), len(numbers)) for t, numbers in partitions.items()}
            group = found.group
        limits: dict[int, dict[str, int]] = {}
        times: dict[int, dict[str, TimestampLimits]] = {}
        for key, target, topic in written:
            look = looks[id(target)]
            if topic in look.max_message_bytes:
                limits.setdefault(key, {})[topic] = look.max_message_bytes[topic]
            if topic in look.timestamp_limits:
                times.setdefault(key, {})[topic] = look.timestamp_limits[topic]
        compacted = {
            key: frozenset(t for k, c, t in written if k == key and t in looks[id(c)].compacted) for key, *_ in written
        }
        if reading is not None:
            self._compare_limits(looks[id(reading)].max_message_bytes, limits)
        counts: dict[int, dict[str, int]] = {}
        stable = {output.topic for output in self._plan.topics() if _keeps_keys_in_place(output)}
        for key, target, topic in written:
            if topic in stable:
                counts.setdefault(key, {})[topic] = len(looks[id(target)].partitions[topic])
        return BrokerSnapshot(partitions, states, group or GroupLook((), KEEP_ALIVE), limits, counts, times, compacted)

    def _compare_limits(self, found: Mapping[str, int], limits: Mapping[int, Mapping[str, int]]) -> None:
        """Warn about an error topic that has no room for the largest source record and its error headers."""
        sources = {topic: found[topic] for topic in self._plan.source.topics if topic in found}
        if not sources:
            return
        source, largest = max(sources.items(), key=lambda item: item[1])
        low = {}
        for output in self._outlets.dead_letters():
            limit = limits.get(output.producer.index, {}).get(output.topic)
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


def _keeps_keys_in_place(output: CompiledTopic) -> bool:
    policy = output.partitioning
    return policy is not None and policy.guarantee is PartitionGuarantee.ENTITY_STABLE


class _Cluster:
    """The requests to one cluster."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.needed: dict[str, str] = {}
        self.limits_of: list[str] = []
        self.ids_of: tuple[str, ...] = ()
        self.group_id: str | None = None
