"""A record and its place are plain values."""

from __future__ import annotations

from loom.streaming.kafka import KafkaRecord, TopicPartition
from loom.streaming.record import TopicPartitionOffset


def test_a_record_that_was_not_read_has_no_place() -> None:
    record = KafkaRecord("orders", b"k", b"v")
    assert (record.partition, record.offset, record.timestamp_ms, dict(record.headers)) == (None, None, None, {})


def test_the_fields_of_a_record_stand_in_the_order_of_the_contract() -> None:
    fields = ("topic", "key", "value", "headers", "partition", "offset", "timestamp_ms")
    assert KafkaRecord.__struct_fields__ == fields


def test_a_partition_is_a_key() -> None:
    assert {TopicPartition("orders", 1): 7}[TopicPartition("orders", 1)] == 7
    assert str(TopicPartition("orders", 1)) == "orders[1]"
    one, two, ten = TopicPartition("a", 1), TopicPartition("a", 2), TopicPartition("a", 10)
    assert sorted([TopicPartition("b", 0), ten, two, one]) == [one, two, ten, ("b", 0)]


def test_a_place_reads_as_people_write_it() -> None:
    assert str(TopicPartitionOffset("orders", 1, 7)) == "orders[1]@7"
    assert str(TopicPartitionOffset(None, None, None)) == "a record without a position"
