"""A key has the partition that the client would choose, and keeps it when its topic grows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st

from loom.streaming.kafka import EmbeddedBroker, ProducerSettings
from loom.streaming.kafka.partitioner import murmur2, partition_of
from loom.streaming.kafka.producer import TopicWriter
from tests.support.running import QUICK, content
from tests.support.waiting import LONG_S

#: the embedded broker makes topics of four
PARTITIONS = 4


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


def test_hashes_are_those_of_the_producers_that_others_use() -> None:
    # The examples in the tests of Kafka's own clients.
    known = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    assert {key: murmur2(key) for key in known} == {key: hashed & 0xFFFFFFFF for key, hashed in known.items()}


def test_keys_of_any_length_and_bytes_stand_where_the_client_places_them(broker: EmbeddedBroker) -> None:
    keys = [bytes((seed * 37 + at * 11) % 256 for at in range(length)) for length in range(40) for seed in range(5)]
    broker.create_topic("placed")
    client = Producer(ProducerSettings(broker.bootstrap).to_confluent_config() | QUICK)  # type: ignore[operator]
    for key in keys:
        client.produce("placed", b"", key)
    assert client.flush(LONG_S) == 0
    found = content(broker.bootstrap, "placed")["placed"]
    assert len(found) == len(keys)
    assert [(r.key, partition_of(r.key or b"", PARTITIONS)) for r in found] == [(r.key, r.partition) for r in found]


@given(key=st.binary(max_size=80), count=st.integers(1, 1_000))
def test_every_key_has_a_partition(key: bytes, count: int) -> None:
    assert 0 <= partition_of(key, count) < count


@pytest.mark.parametrize("dlq", [False, True], ids=["fast-way", "tracked"])
def test_a_count_that_is_held_on_to_rules_though_the_topic_has_more_partitions(
    broker: EmbeddedBroker, dlq: bool
) -> None:
    topic = f"grown-{dlq}"
    broker.create_topic(topic)
    writer = TopicWriter(
        dict(ProducerSettings(broker.bootstrap).to_confluent_config()) | QUICK,
        max_message_bytes={},
        tracked_topics=[topic] if dlq else [],
        refused=lambda refusal: None,
        waiting=lambda what: None,
        partition_counts={topic: 2},
    )
    keys = [b"k%d" % number for number in range(20)]
    values: list[Any] = [b"{}", None]
    results = [(0, value, key, 1_000, None, None) for key in keys for value in values]
    writer.write_all(results, [writer.target(topic)])
    writer.flush()
    writer.close()
    found = content(broker.bootstrap, topic)[topic]
    assert len(found) == 2 * len(keys)
    assert {(r.key, r.partition) for r in found} == {(key, partition_of(key, 2)) for key in keys}
    assert {r.partition for r in found} == {0, 1}
