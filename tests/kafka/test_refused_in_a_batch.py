"""Records that Apache Kafka refuses one by one: those that shared their batch are delivered, and only the guilty are named."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, step
from loom.streaming.kafka import DeliveryFailedError, KafkaRecord
from tests.support.broker import Broker, FreshTopics
from tests.support.kafka_io import read_all
from tests.support.running import config_for, positions, produce, run_all
from tests.support.waiting import LONG_S

HOUR_MS = 3_600_000
KEYS = [b"a", b"b", None, b"c", None, b"d"]
WITH_KEY: list[Any] = [b'{"n":0}', b'{"n":1}', b'{"n":3}', b'{"n":5}']
WITHOUT_KEY = [b'{"n":2}', b'{"n":4}']


class Number(LoomFrozenStruct):
    n: int


class Compacting:
    """A flow into a compacted topic, which takes no record without a key."""

    def __init__(self, broker: Broker, fresh: FreshTopics) -> None:
        self.bootstrap = broker.bootstrap
        self.source = fresh.create("numbers", config={"message.timestamp.after.max.ms": str(2**63 - 1)})
        self.out = fresh.create("out")
        self.dlq = fresh.create("refused")
        self.group = fresh.name("group")
        #: called in a step, when everything has been looked at and nothing is written
        self.begun: Callable[[], None] = lambda: None

    def compact(self) -> None:
        """The output is compacted from now on."""
        entry = ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, self.out, incremental_configs=[entry])
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        admin.incremental_alter_configs([resource])[resource].result(LONG_S)

    def put(self, *records: KafkaRecord) -> None:
        produce(self.bootstrap, self.source, *records)

    def record(self, number: int, key: bytes | None, timestamp_ms: int | None = None) -> KafkaRecord:
        return KafkaRecord(self.source, key, b'{"n":%d}' % number, timestamp_ms=timestamp_ms)

    def flow(self, dlq: str | None) -> StreamFlow[Any, Any]:
        begun = self.begun

        @step
        def same(number: Number) -> Number:
            if number.n == 0:
                begun()
            return number

        return StreamFlow("compacting", FromTopic("numbers", Number), Process(same), IntoTopic("out", dlq=dlq))

    def config(self, delivery: str) -> dict[str, Any]:
        made = config_for(
            self.bootstrap, consumer={"delivery": delivery, "topics": [self.source], "group_id": self.group}
        )
        made["kafka"]["producers"] = {"out": {"topic": self.out}, "refused": {"topic": self.dlq}}
        return made

    def values(self, topic: str) -> list[bytes | None]:
        return [record.value for record in read_all(self.bootstrap, topic, isolation="read_committed")]


@pytest.fixture
def compacting(kafka: Broker, fresh_topics: FreshTopics) -> Compacting:
    return Compacting(kafka, fresh_topics)


def test_only_the_guilty_go_to_the_dead_letters(compacting: Compacting) -> None:
    """The topic becomes a compacted one behind the look at it, so that the whole produce batch comes back."""
    compacting.begun = compacting.compact
    compacting.put(*(compacting.record(number, key) for number, key in enumerate(KEYS)))
    counts = run_all(compacting.flow("refused"), compacting.config("at_least_once"), len(KEYS))
    assert sorted(compacting.values(compacting.out)) == WITH_KEY
    assert compacting.values(compacting.dlq) == WITHOUT_KEY
    assert counts.refused == {compacting.out: 2}


@pytest.mark.parametrize(("delivery", "dlq"), [("at_least_once", None), ("exactly_once", "refused")])
def test_where_the_run_ends_the_guilty_record_is_named(compacting: Compacting, delivery: str, dlq: str | None) -> None:
    compacting.begun = compacting.compact
    compacting.put(*(compacting.record(number, key) for number, key in enumerate(KEYS)))
    with pytest.raises(DeliveryFailedError) as failed:
        StreamingRunner.from_dict(compacting.flow(dlq), compacting.config(delivery)).run()
    told = str(failed.value)
    if dlq is None:
        assert f"one of those from {compacting.source}[0]@0 to {compacting.source}[0]@5 " in told
    else:
        assert f"made of {compacting.source}[0]@2 " in told
    assert f"{compacting.out} with the key None" in told
    assert ("A dlq on that IntoTopic would take such records" in told) is (dlq is None)
    assert positions(compacting.bootstrap, compacting.source, compacting.group)[0] == 0


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_that_a_compacted_topic_takes_no_record_without_a_key_is_known_before_it_is_sent(
    compacting: Compacting, delivery: str
) -> None:
    compacting.compact()
    compacting.put(*(compacting.record(number, key) for number, key in enumerate(KEYS)))
    run_all(compacting.flow("refused"), compacting.config(delivery), len(KEYS))
    assert compacting.values(compacting.out) == WITH_KEY
    assert compacting.values(compacting.dlq) == WITHOUT_KEY


def test_without_a_dlq_it_ends_the_run_and_names_the_source_record(compacting: Compacting) -> None:
    compacting.compact()
    compacting.put(*(compacting.record(number, key) for number, key in enumerate(KEYS)))
    with pytest.raises(DeliveryFailedError) as failed:
        StreamingRunner.from_dict(compacting.flow(None), compacting.config("at_least_once")).run()
    assert f"{compacting.out} refuses the record made of {compacting.source}[0]@2: the record has no key" in str(
        failed.value
    )


def test_in_a_transaction_a_timestamp_that_the_broker_would_refuse_is_known_before_it_is_sent(
    compacting: Compacting,
) -> None:
    now = int(time.time() * 1000)
    ahead = compacting.record(1, b"k", now + 2 * HOUR_MS)
    compacting.put(compacting.record(0, b"k", now), ahead, compacting.record(2, b"k", now))
    run_all(compacting.flow("refused"), compacting.config("exactly_once"), 3)
    assert compacting.values(compacting.out) == [b'{"n":0}', b'{"n":2}']
    assert compacting.values(compacting.dlq) == [ahead.value]


def test_a_start_exactly_once_warns_where_the_broker_decides_what_is_too_large(
    compacting: Compacting, capsys: pytest.CaptureFixture[str]
) -> None:
    compacting.put(compacting.record(0, b"k"))
    config = compacting.config("exactly_once")
    config["kafka"]["producer"]["extra"] = {"message.max.bytes": 5_000_000}
    run_all(compacting.flow("refused"), config, 1)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "record_sizes_unchecked" in line]
    assert "out" in line
