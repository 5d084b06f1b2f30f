"""The transactional producer as a state machine, on the in-process broker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from loom.streaming import failpoints
from loom.streaming.failpoints import Failpoint
from loom.streaming.kafka import (
    EmbeddedBroker,
    FencedError,
    ProducerSettings,
    TopicPartition,
    TransactionAbortedError,
    TransactionFailedError,
)
from loom.streaming.kafka.consumer import ConsumerClient
from loom.streaming.kafka.settings import ConsumerSettings
from loom.streaming.kafka.transactions import State, Transactions

POSITION = TopicPartition("in", 0)


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        running.create_topic("in")
        running.create_topic("out")
        yield running


def transactions(broker: EmbeddedBroker, name: str = "g-flow-0") -> Transactions:
    config = ProducerSettings((broker.bootstrap,)).to_confluent_config()
    return Transactions(config, name, metadata=lambda topic: "a note", waiting=lambda what: None)


@pytest.fixture
def reader(broker: EmbeddedBroker) -> Iterator[ConsumerClient]:
    opened = ConsumerClient(ConsumerSettings((broker.bootstrap,), "g", auto_offset_reset="earliest"))
    yield opened
    opened.close()


def test_an_aborted_transaction_moves_nothing(broker: EmbeddedBroker, reader: ConsumerClient) -> None:
    writer = transactions(broker)
    writer.fence()
    writer.begin()
    writer.producer.produce("out", b"x")
    writer.abort()
    assert writer.state is State.ENDED
    assert reader.resolve([POSITION], {}).unknown == (POSITION,)


def test_opening_twice_is_opening_once(broker: EmbeddedBroker) -> None:
    writer = transactions(broker)
    writer.fence()
    writer.begin()
    writer.begin()
    assert writer.state is State.OPEN


@pytest.mark.parametrize("move", ["begin", "commit"])
def test_what_is_not_fenced_neither_opens_nor_commits(
    broker: EmbeddedBroker, reader: ConsumerClient, move: str
) -> None:
    writer = transactions(broker)
    with pytest.raises(TransactionFailedError, match="is new but should be"):
        writer.begin() if move == "begin" else writer.commit({}, reader.group_metadata())


def test_nothing_goes_on_behind_an_end(broker: EmbeddedBroker) -> None:
    writer = transactions(broker)
    writer.fence()
    writer.abort()
    writer.abort()  # again is no harm
    with pytest.raises(TransactionFailedError, match="is ended but should be ready"):
        writer.begin()


class Noting(Producer):
    """Notes what is asked of it, and may have no broker that answers."""

    def __init__(self, config: dict[str, Any], answers: bool) -> None:
        super().__init__(config)
        self._answers = answers
        self.asked: list[str] = []

    def list_topics(self, *arguments: Any, **more: Any) -> Any:
        self.asked.append("a connection")
        if not self._answers:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return super().list_topics(*arguments, **more)

    def init_transactions(self, *_: Any) -> None:
        self.asked.append("the coordinator")


@pytest.mark.parametrize("answers", [True, False])
def test_a_connection_is_waited_for_before_the_coordinator_and_its_failure_is_left_to_the_fencing(
    broker: EmbeddedBroker, answers: bool
) -> None:
    writer = transactions(broker)
    writer.producer = client = Noting({"bootstrap.servers": broker.bootstrap}, answers)
    writer.fence()
    assert client.asked == ["a connection", "the coordinator"]
    assert writer.state is State.READY


class Frozen(Exception):
    """The process stands still here."""


@pytest.mark.parametrize(
    ("stands", "told"), [(None, TransactionAbortedError), (0, TransactionAbortedError), (7, FencedError)]
)
def test_a_first_transaction_that_outlasted_its_timeout_knows_of_a_successor_though_the_group_had_no_offsets(
    broker: EmbeddedBroker, reader: ConsumerClient, stands: int | None, told: type[Exception]
) -> None:
    config = ProducerSettings((broker.bootstrap,), extra={"transaction.timeout.ms": 1_000}).to_confluent_config()
    writer = Transactions(
        config,
        "g-flow-0",
        metadata=lambda topic: "a note",
        waiting=lambda what: None,
        group_at=lambda partitions: {} if stands is None else dict.fromkeys(partitions, stands),
    )
    writer.fence()
    writer.found_at({})
    writer.begin()

    def freeze(point: Failpoint) -> None:
        if point is Failpoint.POSITIONS_SENT:
            raise Frozen

    before = failpoints.install(freeze)
    try:
        with pytest.raises(Frozen):
            writer.commit({POSITION: 0}, reader.group_metadata())
    finally:
        failpoints.install(before)
    assert not threading.Event().wait(1.1)
    assert isinstance(writer.given_up("it thaws"), told)
