"""Transactions against Apache Kafka: what the in-process broker does not really do (positions, fencing)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from loom.streaming.kafka import (
    DeliveryFailedError,
    FencedError,
    ProducerSettings,
    TopicPartition,
    TransactionAbortedError,
)
from loom.streaming.kafka.consumer import ConsumerClient
from loom.streaming.kafka.offset_metadata import Committed
from loom.streaming.kafka.producer import TopicWriter
from loom.streaming.kafka.settings import ConsumerSettings
from loom.streaming.kafka.transactions import State, Transactions
from tests.support.broker import Broker, FreshTopics, Proxied
from tests.support.waiting import LONG_S


@pytest.fixture
def partition(fresh_topics: FreshTopics) -> TopicPartition:
    return TopicPartition(fresh_topics.create("in"), 0)


@pytest.fixture
def group(fresh_topics: FreshTopics) -> str:
    return fresh_topics.name("group")


@pytest.fixture
def reader(kafka: Broker, group: str) -> Iterator[ConsumerClient]:
    opened = ConsumerClient(ConsumerSettings((kafka.bootstrap,), group))
    yield opened
    opened.close()


def transactions(broker: Broker, group: str) -> Transactions:
    config = ProducerSettings((broker.bootstrap,)).to_confluent_config()
    return Transactions(config, f"{group}-flow-0", metadata=lambda topic: f"beside {topic}", waiting=lambda what: None)


def writer_of(config: dict[str, Any], transactions: Transactions) -> TopicWriter:
    return TopicWriter(
        config,
        max_message_bytes={},
        tracked_topics=(),
        refused=lambda refusal: None,
        waiting=lambda what: None,
        transactions=transactions,
    )


def test_a_commit_moves_the_group_and_leaves_its_metadata_beside_the_position(
    kafka: Broker, group: str, reader: ConsumerClient, partition: TopicPartition
) -> None:
    writer = transactions(kafka, group)
    writer.fence()
    writer.begin()
    for n in range(5):
        writer.producer.produce(partition.topic, b"%d" % n, partition=0)
    writer.producer.flush(LONG_S)
    writer.commit({partition: 3}, reader.group_metadata())
    assert writer.state is State.READY
    found = reader.resolve([partition], {})
    assert found.offsets == {partition: 3}
    assert found.unknown == ()
    assert found.committed == {partition: Committed(3, f"beside {partition.topic}")}


@pytest.mark.parametrize("at", ["before the transaction", "inside it"])
def test_a_predecessor_is_told_that_another_took_over_and_moves_nothing(
    kafka: Broker, group: str, reader: ConsumerClient, partition: TopicPartition, at: str
) -> None:
    predecessor, successor = transactions(kafka, group), transactions(kafka, group)
    predecessor.fence()
    if at == "inside it":
        predecessor.begin()
        predecessor.producer.produce(partition.topic, b"x")
        predecessor.producer.flush(LONG_S)
    successor.fence()

    def go_on() -> None:
        predecessor.begin()
        predecessor.producer.produce(partition.topic, b"x")
        predecessor.commit({partition: 1}, reader.group_metadata())

    with pytest.raises(FencedError, match="another process took over"):
        go_on()
    assert predecessor.state is State.ENDED
    assert reader.resolve([partition], {}).unknown == (partition,)


def test_a_commit_whose_answers_are_lost_with_the_connection_is_done_again(proxied: Proxied, group: str) -> None:
    source, sink = TopicPartition(proxied.topics.create("in"), 0), proxied.topics.create("out")
    config = ProducerSettings((proxied.bootstrap,)).to_confluent_config()
    writer = Transactions(config, group, metadata=lambda topic: f"beside {topic}", waiting=lambda what: None)
    writer.fence()
    reader = ConsumerClient(ConsumerSettings((proxied.bootstrap,), group))
    metadata = reader.group_metadata()
    writer.begin()
    writer.producer.produce(sink, b"1")
    writer.producer.flush(LONG_S)
    proxied.proxy.deafen()
    threading.Timer(2, proxied.proxy.mend).start()
    # In a thread: a client that hangs cannot be interrupted.
    commit = threading.Thread(target=writer.commit, args=({source: 0}, metadata), daemon=True)
    commit.start()
    commit.join(LONG_S)
    assert not commit.is_alive(), "the commit hangs"
    assert writer.state is State.READY
    assert reader.resolve([source], {}).unknown == ()
    reader.close()


def test_a_broker_that_is_away_for_longer_than_a_transaction_may_last_gives_it_up_and_fails_no_record(
    proxied: Proxied, group: str
) -> None:
    topic = proxied.topics.create("out")
    config = ProducerSettings((proxied.bootstrap,), extra={"transaction.timeout.ms": 2_000}).to_confluent_config()
    transactions = Transactions(config, group, metadata=lambda topic: f"beside {topic}", waiting=lambda what: None)
    transactions.fence()
    writer = writer_of(config, transactions)
    targets = [writer.target(topic)]
    writer.write_all([(0, b"1", None, 0, None, None)], targets)
    assert writer.flush() == 0
    proxied.proxy.cut()
    try:
        writer.write_all([(0, b"2", None, 0, None, None)], targets)
        with pytest.raises(TransactionAbortedError, match=r"was not delivered.*restart the flow"):
            writer.flush()
    finally:
        proxied.proxy.mend()
    assert transactions.state is State.ENDED
    writer.close()


def await_broken(transactions: Transactions) -> None:
    """Until the client itself knows that something is wrong, without serving its events."""
    deadline = time.monotonic() + LONG_S
    while time.monotonic() < deadline:
        try:
            transactions.producer.begin_transaction()
        except KafkaException as told:
            error: KafkaError = told.args[0]
            if error.fatal() or error.txn_requires_abort():
                return
        threading.Event().wait(0.01)
    raise AssertionError("nothing is wrong")


@pytest.mark.parametrize("call", ["serve", "write", "flush", "commit", "give up"])
def test_whichever_call_meets_it_first_says_that_another_process_took_over(
    kafka: Broker, group: str, reader: ConsumerClient, partition: TopicPartition, call: str
) -> None:
    config = ProducerSettings((kafka.bootstrap,)).to_confluent_config()
    predecessor, successor = transactions(kafka, group), transactions(kafka, group)
    predecessor.fence()
    writer = writer_of(config, predecessor)
    targets = [writer.target(partition.topic)]
    successor.fence()
    writer.write_all([(0, b"1", None, 0, None, None)], targets)
    await_broken(predecessor)
    calls: dict[str, Callable[[], object]] = {
        "serve": writer.serve,
        "write": lambda: writer.write_all([(0, b"2", None, 0, None, None)], targets),
        "flush": writer.flush,
        "commit": lambda: writer.commit({partition: 1}, reader.group_metadata()),
    }
    if call == "give up":
        assert isinstance(predecessor.given_up("a record was not delivered"), FencedError)
    else:
        with pytest.raises(FencedError, match="another process took over"):
            calls[call]()
    writer.close()


@pytest.mark.parametrize("call", ["write", "commit"])
def test_whichever_call_meets_a_broken_transaction_first_asks_for_a_new_start_and_names_the_cause(
    kafka: Broker, fresh_topics: FreshTopics, group: str, reader: ConsumerClient, call: str
) -> None:
    topic = fresh_topics.create("out", config={"max.message.bytes": "2000"})
    config = ProducerSettings((kafka.bootstrap,)).to_confluent_config()
    transactions_ = transactions(kafka, group)
    transactions_.fence()
    writer = writer_of(config, transactions_)
    targets = [writer.target(topic)]
    writer.write_all([(0, b"1", None, 0, None, None)], targets)
    writer.flush()
    # Past the writer, so that it is the transaction which is broken and no record of its own.
    transactions_.producer.produce(topic, os.urandom(8_000))
    await_broken(transactions_)
    calls: dict[str, Callable[[], object]] = {
        "write": lambda: writer.write_all([(0, b"2", None, 0, None, None)], targets),
        "commit": lambda: writer.commit({}, reader.group_metadata),
    }
    with pytest.raises(TransactionAbortedError, match=r"size.*restart the flow"):
        calls[call]()
    assert transactions_.state is State.ENDED
    writer.close()


@pytest.mark.parametrize("call", ["write", "commit"])
def test_a_record_that_breaks_its_transaction_is_named_by_whichever_call_meets_it_first(
    kafka: Broker, fresh_topics: FreshTopics, group: str, reader: ConsumerClient, call: str
) -> None:
    topic = fresh_topics.create("out", config={"max.message.bytes": "2000"})
    transactions_ = transactions(kafka, group)
    transactions_.fence()
    writer = writer_of(ProducerSettings((kafka.bootstrap,)).to_confluent_config(), transactions_)
    targets = [writer.target(topic)]
    writer.write_all([(0, os.urandom(8_000), b"guilty", 0, None, None)], targets)
    await_broken(transactions_)
    calls: dict[str, Callable[[], object]] = {
        "write": lambda: writer.write_all([(0, b"2", None, 0, None, None)], targets),
        "commit": lambda: writer.commit({}, reader.group_metadata),
    }
    with pytest.raises(DeliveryFailedError, match=rf"{topic}.*guilty"):
        calls[call]()
    writer.close()


class LeftAlone(Producer):
    """A client that is not to be asked to abort: it could shut out a successor whose transaction is open."""

    def __init__(self) -> None:
        super().__init__({})

    def abort_transaction(self, *_: object) -> None:
        raise AssertionError("the broker has ended this transaction itself")


@pytest.mark.parametrize(("stands", "told"), [(3, TransactionAbortedError), (4, FencedError)])
def test_a_transaction_given_up_after_its_time_out_asks_for_a_new_start_only_where_nobody_has_gone_on(
    kafka: Broker, group: str, partition: TopicPartition, stands: int, told: type[Exception]
) -> None:
    config = ProducerSettings((kafka.bootstrap,), extra={"transaction.timeout.ms": 1_000}).to_confluent_config()
    writer = Transactions(
        config,
        f"{group}-flow-0",
        metadata=lambda topic: f"beside {topic}",
        waiting=lambda what: None,
        group_at=lambda partitions: dict.fromkeys(partitions, stands),
    )
    writer.fence()
    writer.found_at({partition: 3})
    writer.begin()
    writer.producer.produce(partition.topic, b"x")
    assert not threading.Event().wait(1.2)
    client, writer.producer = writer.producer, LeftAlone()
    assert isinstance(writer.given_up("a record was not delivered in time"), told)
    client.purge()
    assert writer.state is State.ENDED
