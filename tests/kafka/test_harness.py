"""The broker that the other tests stand on: it is real, it can be broken, and it keeps what it has acknowledged."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from tests.support.apache_kafka import ApacheKafka
from tests.support.broker import Broker, FreshTopics
from tests.support.kafka_io import (
    ReadRecord,
    count_records,
    decimal,
    end_offsets,
    group_positions,
    partitions_of,
    produce_numbered,
    read_all,
)
from tests.support.waiting import LONG_S


def by_partition(records: list[ReadRecord]) -> dict[int, list[ReadRecord]]:
    """Records in the order of their partition; between partitions the order read is not defined."""
    found: dict[int, list[ReadRecord]] = {}
    for record in records:
        found.setdefault(record.partition, []).append(record)
    return found


def test_a_topic_has_the_partitions_it_was_created_with(kafka: Broker, fresh_topics: FreshTopics) -> None:
    topic = fresh_topics.create(partitions=3)

    assert partitions_of(kafka.bootstrap, topic) == [0, 1, 2]
    assert end_offsets(kafka.bootstrap, topic) == {0: 0, 1: 0, 2: 0}


def test_what_is_produced_is_read_back_in_the_order_of_its_partition(kafka: Broker, fresh_topics: FreshTopics) -> None:
    topic = fresh_topics.create(partitions=4)

    produce_numbered(kafka.bootstrap, topic, 1_000, headers=lambda n: [("n", decimal(n))])

    records = read_all(kafka.bootstrap, topic)
    for partition in range(4):
        found = [record for record in records if record.partition == partition]
        assert [record.value for record in found] == [decimal(n) for n in range(partition, 1_000, 4)]
        assert [record.offset for record in found] == list(range(250))
    assert all(record.headers == (("n", record.value),) and record.key == record.value for record in records)


def test_a_rate_is_kept(kafka: Broker, fresh_topics: FreshTopics) -> None:
    topic = fresh_topics.create()

    began = time.monotonic()
    produce_numbered(kafka.bootstrap, topic, 200, rate=400)

    assert time.monotonic() - began > 0.49
    assert count_records(kafka.bootstrap, topic) == 200


def test_a_record_that_the_broker_refuses_is_an_error(kafka: Broker, fresh_topics: FreshTopics) -> None:
    topic = fresh_topics.create(config={"max.message.bytes": "1000"})

    with pytest.raises(RuntimeError, match="1 records failed"):
        produce_numbered(kafka.bootstrap, topic, 1, value=lambda _: b"x" * 5_000)


def test_transactions_hide_what_was_aborted_and_leave_gaps(kafka: Broker, fresh_topics: FreshTopics) -> None:
    topic = fresh_topics.create()
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic})
    producer.init_transactions(LONG_S)
    for number in range(6):
        producer.begin_transaction()
        producer.produce(topic, decimal(number))
        producer.flush(LONG_S)  # else an abort would only drop what never left the client
        if number % 2:
            producer.abort_transaction(LONG_S)
        else:
            producer.commit_transaction(LONG_S)

    committed = read_all(kafka.bootstrap, topic, isolation="read_committed")

    assert [record.value for record in committed] == [b"0", b"2", b"4"]
    assert [record.value for record in read_all(kafka.bootstrap, topic)] == [decimal(n) for n in range(6)]
    assert count_records(kafka.bootstrap, topic) == 6
    assert end_offsets(kafka.bootstrap, topic) == {0: 12}  # a marker behind each transaction


def test_a_reader_of_committed_records_names_the_partition_with_an_open_transaction(
    kafka: Broker, fresh_topics: FreshTopics
) -> None:
    topic = fresh_topics.create()
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic})
    producer.init_transactions(LONG_S)
    producer.begin_transaction()
    producer.produce(topic, b"open")
    producer.flush(LONG_S)

    with pytest.raises(TimeoutError, match=r"\{0: 1\}"):
        read_all(kafka.bootstrap, topic, isolation="read_committed", timeout=5)

    producer.abort_transaction(LONG_S)
    assert read_all(kafka.bootstrap, topic, isolation="read_committed") == []


def test_a_group_has_the_positions_that_it_has_confirmed_and_no_others(
    kafka: Broker, fresh_topics: FreshTopics
) -> None:
    topic, group = fresh_topics.create(partitions=3), fresh_topics.name("group")
    assert group_positions(kafka.bootstrap, group, topic) == {}

    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, 0, 7), TopicPartition(topic, 2, 0)], asynchronous=False)
    consumer.close()

    assert group_positions(kafka.bootstrap, group, topic) == {0: 7, 2: 0}


def test_a_misspelled_topic_is_not_created(kafka: Broker, fresh_topics: FreshTopics) -> None:
    with pytest.raises((KafkaException, TimeoutError)):
        partitions_of(kafka.bootstrap, fresh_topics.name(), timeout=1)


def test_a_restart_keeps_address_topics_and_records(breakable_kafka: ApacheKafka, fresh_topics: FreshTopics) -> None:
    topic = fresh_topics.create(partitions=2)
    produce_numbered(breakable_kafka.bootstrap, topic, 500)
    before = breakable_kafka.bootstrap, by_partition(read_all(breakable_kafka.bootstrap, topic))

    breakable_kafka.restart()

    after = breakable_kafka.bootstrap, by_partition(read_all(breakable_kafka.bootstrap, topic))
    assert after == before


def test_a_kill_loses_nothing_that_was_acknowledged(breakable_kafka: ApacheKafka, fresh_topics: FreshTopics) -> None:
    topic = fresh_topics.create(partitions=2)
    produce_numbered(breakable_kafka.bootstrap, topic, 500)

    breakable_kafka.kill()
    assert not breakable_kafka.alive
    breakable_kafka.start()

    assert len(read_all(breakable_kafka.bootstrap, topic)) == 500


def test_numbered_records_survive_an_outage_once_and_in_order(
    breakable_kafka: ApacheKafka, fresh_topics: FreshTopics
) -> None:
    topic = fresh_topics.create()

    with ThreadPoolExecutor() as threads:
        writing = threads.submit(produce_numbered, breakable_kafka.bootstrap, topic, 3_000, rate=1_000)
        time.sleep(0.5)
        breakable_kafka.kill()
        breakable_kafka.start()
        writing.result(LONG_S)

    assert [record.value for record in read_all(breakable_kafka.bootstrap, topic)] == [decimal(n) for n in range(3_000)]


def test_a_paused_broker_answers_again_when_resumed(breakable_kafka: ApacheKafka, fresh_topics: FreshTopics) -> None:
    topic = fresh_topics.create()

    breakable_kafka.pause()
    with pytest.raises(TimeoutError):
        partitions_of(breakable_kafka.bootstrap, topic, timeout=1)
    breakable_kafka.resume()

    assert partitions_of(breakable_kafka.bootstrap, topic) == [0]


def test_a_start_that_fails_shows_the_end_of_the_log(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> None:
    if not isinstance(kafka, ApacheKafka):
        pytest.skip("starts a broker of its own")
    broken = ApacheKafka(tmp_path_factory.mktemp("broken"), {"node.id": "not a number"})

    with pytest.raises(RuntimeError, match="not a number"):
        broken.start()

    assert not broken.alive
