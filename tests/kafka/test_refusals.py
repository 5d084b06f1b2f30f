"""Records that Apache Kafka itself refuses: alone to the dead letters at least once, the end of the epoch exactly once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, step
from loom.streaming.kafka import DeliveryFailedError, KafkaRecord
from tests.support.broker import Broker, FreshTopics
from tests.support.kafka_io import read_all
from tests.support.running import config_for, positions, produce, run_all
from tests.support.waiting import LONG_S

LIMIT = 2_000
TEXTS = ["a", "b", "big-1", "c", "d", "big-2", "e"]
SMALL = ["a", "b", "c", "d", "e"]


class Text(LoomFrozenStruct):
    text: str


class Writing:
    """A flow that makes some records larger than its output takes."""

    def __init__(self, broker: Broker, fresh: FreshTopics) -> None:
        self.bootstrap = broker.bootstrap
        self.source, self.out, self.dlq = (fresh.create(stem) for stem in ("texts", "out", "too-large"))
        self.group = fresh.name("group")
        #: called in a step, when everything has been looked at and nothing is written
        self.begun: Callable[[], None] = lambda: None
        values = [b'{"text":"%s"}' % text.encode() for text in TEXTS]
        produce(self.bootstrap, self.source, *(KafkaRecord(self.source, b"k", value) for value in values))

    def limit(self, topic: str, size: int) -> None:
        """The largest record that a topic takes, from now on."""
        entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        admin.incremental_alter_configs([resource])[resource].result(LONG_S)

    def flow(self, dlq: str | None) -> StreamFlow[Any, Any]:
        begun = self.begun

        @step
        def blown_up(text: Text) -> Text:
            if text.text == "a":
                begun()
            return Text(text.text + "x" * 10_000) if text.text.startswith("big") else text

        return StreamFlow("writing", FromTopic("texts", Text), Process(blown_up), IntoTopic("out", dlq=dlq))

    def config(self, delivery: str) -> dict[str, Any]:
        consumer = {"delivery": delivery, "topics": [self.source], "group_id": self.group}
        made = config_for(self.bootstrap, consumer=consumer, producer={"extra": {"compression.type": "none"}})
        made["kafka"]["producers"] = {"out": {"topic": self.out}, "too-large": {"topic": self.dlq}}
        return made

    def fails(self, delivery: str, dlq: str | None = "too-large") -> DeliveryFailedError:
        with pytest.raises(DeliveryFailedError) as failed:
            StreamingRunner.from_dict(self.flow(dlq), self.config(delivery)).run()
        return failed.value

    def texts(self, topic: str) -> list[str]:
        found = read_all(self.bootstrap, topic, isolation="read_committed")
        return [(record.value or b"").decode()[9:-2].rstrip("x") for record in found]

    def position(self) -> int:
        return positions(self.bootstrap, self.source, self.group)[0]


@pytest.fixture
def writing(kafka: Broker, fresh_topics: FreshTopics) -> Writing:
    return Writing(kafka, fresh_topics)


def test_one_record_refused_by_the_broker_goes_to_the_dead_letters_alone_and_its_neighbours_are_delivered(
    writing: Writing,
) -> None:
    """The limit is lowered behind the look at it, so that the whole produce batch comes back."""
    writing.begun = lambda: writing.limit(writing.out, LIMIT)
    counts = run_all(writing.flow("too-large"), writing.config("at_least_once"), len(TEXTS))
    assert sorted(writing.texts(writing.out)) == SMALL
    assert sorted(writing.texts(writing.dlq)) == ["big-1", "big-2"]
    assert counts.refused == {writing.out: 2}
    assert writing.position() == len(TEXTS)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_refusal_known_before_sending_goes_to_the_dead_letters_and_order_holds(
    writing: Writing, delivery: str
) -> None:
    writing.limit(writing.out, LIMIT)
    counts = run_all(writing.flow("too-large"), writing.config(delivery), len(TEXTS))
    assert writing.texts(writing.out) == SMALL
    assert writing.texts(writing.dlq) == ["big-1", "big-2"]
    assert counts.refused == {writing.out: 2}
    assert writing.position() == len(TEXTS)


def test_a_dead_letter_that_the_broker_refuses_too_ends_the_run_and_confirms_nothing(writing: Writing) -> None:
    def lower() -> None:
        writing.limit(writing.out, LIMIT)
        writing.limit(writing.dlq, 90)

    writing.begun = lower
    assert writing.dlq in str(writing.fails("at_least_once"))
    assert writing.position() == 0


@pytest.mark.parametrize("dlq", ["too-large", None])
def test_in_a_transaction_a_refusal_by_the_broker_aborts_the_epoch_and_ends_the_run_naming_the_record(
    writing: Writing, dlq: str | None
) -> None:
    writing.begun = lambda: writing.limit(writing.out, LIMIT)
    told = str(writing.fails("exactly_once", dlq))
    assert writing.out in told
    assert "b'k'" in told
    assert writing.position() == 0
    assert writing.texts(writing.out) == writing.texts(writing.dlq) == []


def test_without_dead_letters_a_refusal_by_the_broker_ends_the_run_and_says_what_would_help(writing: Writing) -> None:
    writing.begun = lambda: writing.limit(writing.out, LIMIT)
    told = str(writing.fails("at_least_once", None))
    assert writing.out in told
    assert "dlq" in told
    assert writing.position() == 0
