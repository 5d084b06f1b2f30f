"""A coordinator that never does what it is asked to: said every 10 s with the likely reason, and ended in time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from loom.streaming.kafka import BrokerUnavailableError, EmbeddedBroker, ProducerSettings, TopicPartition
from loom.streaming.kafka.patience import Patience, likely_reason
from loom.streaming.kafka.transactions import State, Transactions


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


class WithoutCoordinator(Producer):
    """A client of a cluster that has no coordinator for it."""

    def refuse(self, *_: object) -> None:
        raise KafkaException(KafkaError(KafkaError.COORDINATOR_NOT_AVAILABLE, retriable=True))

    init_transactions = send_offsets_to_transaction = commit_transaction = refuse  # type: ignore[assignment]


@pytest.mark.parametrize("call", ["fence", "positions", "commit"])
def test_no_call_is_repeated_for_longer_than_it_may_take(broker: EmbeddedBroker, call: str) -> None:
    asked: list[str] = []
    config = ProducerSettings((broker.bootstrap,)).to_confluent_config()
    writer = Transactions(config, "id", metadata=lambda topic: "", waiting=asked.append, patience_s=0.05)
    writer.producer = WithoutCoordinator(config)
    calls: dict[str, Any] = {
        "fence": writer.fence,
        "positions": lambda: writer.commit({TopicPartition("in", 0): 1}, None),
        "commit": lambda: writer.commit({}, None),
    }
    writer.state = State.NEW if call == "fence" else State.OPEN
    with pytest.raises(BrokerUnavailableError, match=r"after 0.05 s \(kafka.consumer.start_timeout_ms\).*is missing"):
        calls[call]()
    # A stop is heard meanwhile.
    assert asked


def test_a_wait_is_said_every_ten_seconds_and_ends_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    patience = Patience("a coordinator", 35, lambda: "one broker of three", lambda: now)
    for second in range(35):
        now = float(second)
        patience.spend("not available")
    said = capsys.readouterr().err.splitlines()
    assert [f"seconds={seconds}" in line for seconds, line in zip((10, 20, 30), said, strict=True)] == [True] * 3
    for part in ("still_waiting", "waiting_for='a coordinator'", "one broker of three", "gives_up_after_seconds=35"):
        assert part in said[0]
    now = 35.0
    with pytest.raises(
        BrokerUnavailableError, match=r"a coordinator after 35 s.*not available. Likely reason: one broker"
    ):
        patience.spend("not available")


class Partition:
    def __init__(self, leader: int) -> None:
        self.leader = leader


class Cluster:
    """The metadata of a cluster."""

    def __init__(self, brokers: int, **leaders: list[int]) -> None:
        self.brokers = dict.fromkeys(range(brokers))
        self.topics = {name: Cluster.topic(found) for name, found in leaders.items()}

    @staticmethod
    def topic(leaders: list[int]) -> Any:
        class Topic:
            partitions = {number: Partition(leader) for number, leader in enumerate(leaders)}

        return Topic

    def list_topics(self, topic: str = "", timeout: float = 0) -> Cluster:
        return self


@pytest.mark.parametrize(
    ("cluster", "told"),
    [
        (Cluster(1), r"__transaction_state is missing.*transaction.state.log.replication.factor.*1 broker is known"),
        (
            Cluster(2, __transaction_state=[1]),
            "__consumer_offsets is missing.*offsets.topic.replication.factor.*2 brokers",
        ),
        (Cluster(2, __transaction_state=[1, -1, -1], __consumer_offsets=[1]), "2 of the 3 partitions of __transaction"),
        (Cluster(2, __transaction_state=[1], __consumer_offsets=[1]), "just moved, or is still ending"),
    ],
)
def test_the_reason_is_what_the_cluster_shows(cluster: Cluster, told: str) -> None:
    assert re.search(told, likely_reason(cluster))


def test_brokers_that_do_not_answer_are_a_reason() -> None:
    class Away:
        def list_topics(self, topic: str = "", timeout: float = 0) -> Any:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    assert "no broker answers" in likely_reason(Away())
