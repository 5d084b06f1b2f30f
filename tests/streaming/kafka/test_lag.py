"""Whether there is a record at or after an offset."""

from __future__ import annotations

import pytest

from loom.streaming.kafka import ConsumerSettings, EmbeddedBroker, TopicPartition
from loom.streaming.kafka import lag as backlog_module
from loom.streaming.kafka.errors import BrokerUnavailableError
from loom.streaming.kafka.lag import records_behind
from tests.support.kafka_io import group_positions
from tests.support.running import NOBODY, produce

A, B = TopicPartition("numbers", 0), TopicPartition("numbers", 1)


def settings(bootstrap: str) -> ConsumerSettings:
    return ConsumerSettings((bootstrap,), "readers", topics=("numbers",))


def test_partitions_with_a_record_are_told_with_the_distance_to_their_end(broker: EmbeddedBroker) -> None:
    broker.create_topic("numbers")
    produce(broker.bootstrap, "numbers", b"1", b"2", b"3")
    found = records_behind(settings(broker.bootstrap), {A: 1, B: 0}, lambda: True)
    assert found == {A: 2}


def test_at_the_end_there_is_nothing(broker: EmbeddedBroker) -> None:
    broker.create_topic("numbers")
    produce(broker.bootstrap, "numbers", b"1")
    assert records_behind(settings(broker.bootstrap), {A: 1, B: 0}, lambda: True) == {}


def test_looking_confirms_nothing(broker: EmbeddedBroker) -> None:
    broker.create_topic("numbers")
    produce(broker.bootstrap, "numbers", b"1", b"2")
    records_behind(settings(broker.bootstrap), {A: 0}, lambda: True)
    assert group_positions(broker.bootstrap, "readers", "numbers") == {}


def test_a_broker_that_is_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_module, "_REACH", 0.2)
    with pytest.raises(BrokerUnavailableError):
        records_behind(settings(NOBODY), {A: 0}, lambda: True)


def test_whoever_has_no_more_time_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def keep_going() -> bool:
        asked.append(True)
        return len(asked) < 2

    monkeypatch.setattr(backlog_module, "_CALL", 0.1)
    assert records_behind(settings(NOBODY), {A: 0}, keep_going) == {}
