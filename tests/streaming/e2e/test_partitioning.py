"""`ENTITY_STABLE` on a broker: a key stands where the client would place it, by the partition count seen at the start."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    FromTopic,
    IntoTopic,
    Message,
    PartitionGuarantee,
    PartitionPolicy,
    Process,
    StreamFlow,
    step,
)
from loom.streaming.kafka import EmbeddedBroker
from loom.streaming.kafka.cluster_snapshot import ClusterSnapshot
from loom.streaming.kafka.partitioner import partition_of
from tests.support.running import config_for, content, produce, run_all
from tests.support.snapshots import see_otherwise


class Order(LoomFrozenStruct):
    id: int


class ById:
    def partition_key(self, message: Message[Order]) -> str:
        return f"order-{message.payload.id}"


@step
def same(order: Order) -> Order:
    return order


def flow(guarantee: PartitionGuarantee) -> StreamFlow[Any, Any]:
    into = IntoTopic[Any]("placed", partitioning=PartitionPolicy(ById(), guarantee))
    return StreamFlow("placing", FromTopic("orders", Order), Process(same), into)


def placed(broker: EmbeddedBroker, guarantee: PartitionGuarantee) -> dict[bytes | None, int]:
    broker.create_topic("orders")
    broker.create_topic("placed")
    produce(broker.bootstrap, "orders", *(b'{"id":%d}' % number for number in range(20)))
    run_all(flow(guarantee), config_for(broker.bootstrap, consumer={"delivery": "at_least_once"}), 20)
    return {record.key: record.partition for record in content(broker.bootstrap, "placed")["placed"]}


@pytest.mark.parametrize("guarantee", PartitionGuarantee)
def test_a_policy_places_keys_where_the_client_would(broker: EmbeddedBroker, guarantee: PartitionGuarantee) -> None:
    found = placed(broker, guarantee)
    assert len(found) == 20
    assert found == {key: partition_of(key or b"", 4) for key in found}


@pytest.mark.parametrize("guarantee", [PartitionGuarantee.BEST_EFFORT, PartitionGuarantee.ENTITY_STABLE])
def test_only_entity_stable_holds_on_to_the_count_that_was_seen_at_the_start(
    broker: EmbeddedBroker, guarantee: PartitionGuarantee, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The in-process broker grows no topic, so the look at the start is told of one that was smaller then."""

    def smaller(seen: ClusterSnapshot) -> dict[str, tuple[int, ...]]:
        return {topic: numbers[:2] if topic == "placed" else numbers for topic, numbers in seen.partitions.items()}

    see_otherwise(monkeypatch, partitions=smaller)
    count = 2 if guarantee is PartitionGuarantee.ENTITY_STABLE else 4
    found = placed(broker, guarantee)
    assert found == {key: partition_of(key or b"", count) for key in found}
