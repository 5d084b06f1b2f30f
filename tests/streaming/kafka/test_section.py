"""The `kafka` section: a named entry overlays the common one, and what is wrong is told at its place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.config import ConfigError
from loom.streaming.kafka import (
    ConsumerSettings,
    KafkaSettings,
    KafkaSettingsError,
    ProducerSettings,
)

COMMON = {"brokers": ["a:1"], "group_id": "g"}


def test_a_name_without_an_entry_takes_the_common_one() -> None:
    kafka = KafkaSettings(consumer=COMMON, producer={"brokers": ["a:1"]})
    assert kafka.consumer_for("orders.raw") == ConsumerSettings(("a:1",), "g")
    assert kafka.producer_for("orders.priced") == ProducerSettings(("a:1",))


def test_a_name_that_nothing_configures_is_an_error_that_says_where_to_write_it() -> None:
    """It once was a bare `KeyError`."""
    with pytest.raises(KafkaSettingsError, match=r'no consumer for .* or kafka.consumers\["orders.raw"\]'):
        KafkaSettings().consumer_for("orders.raw")
    with pytest.raises(KafkaSettingsError, match=r"no producer for 'x': write kafka.producer or kafka.producers.x"):
        KafkaSettings(producers={"y": {}}).producer_for("x")


KEYS = st.sampled_from(["brokers", "group_id", "topics", "batch_size"])
VALUES = {"brokers": ["b:2"], "group_id": "other", "topics": ["t"], "batch_size": 5}


@given(named=st.sets(KEYS))
def test_the_named_entry_rules_key_by_key(named: set[str]) -> None:
    kafka = KafkaSettings(consumer=COMMON, consumers={"a.b": {key: VALUES[key] for key in named}})
    assert kafka.consumer_entry("a.b") == COMMON | {key: VALUES[key] for key in named}


def test_an_entry_can_be_looked_at_before_it_is_converted() -> None:
    kafka = KafkaSettings(producer={"brokers": "a:1"}, producers={"x": {"topic": "y"}})
    assert kafka.producer_entry("x") == {"brokers": "a:1", "topic": "y"}
    assert kafka.producer_entry("other") == {"brokers": "a:1"}
    assert (kafka.consumer_entry("x"), KafkaSettings().producer_entry("x")) == (None, None)


def test_overlaying_changes_neither_entry() -> None:
    kafka = KafkaSettings(consumer=COMMON | {"extra": {"a": 1}}, consumers={"x": {"extra": {"b": 2}}})
    assert kafka.consumer_for("x").extra == {"a": 1, "b": 2}
    assert kafka.consumer == COMMON | {"extra": {"a": 1}}
    assert kafka.consumers == {"x": {"extra": {"b": 2}}}


def test_a_mapping_gives_way_to_null() -> None:
    kafka = KafkaSettings(consumer=COMMON | {"security": {"protocol": "SSL"}}, consumers={"x": {"security": None}})
    assert kafka.consumer_for("x").security is None


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        ({"brokers": []}, "kafka.consumers.x.brokers"),
        ({"brokers": ""}, "kafka.consumers.x.brokers"),
        ({"batch_size": 0}, "kafka.consumers.x.batch_size"),
        ({"delivery": "twice"}, "kafka.consumers.x.delivery"),
        ({"security": {"protocol": "TLS"}}, "kafka.consumers.x.security.protocol"),
        ({"extra": {"group.id": "y"}}, 'kafka.consumers.x.extra["group.id"]'),
        ({"bach_size": 5}, "kafka.consumers.x.bach_size"),
    ],
)
def test_what_is_wrong_is_told_at_its_place(entry: dict[str, Any], place: str) -> None:
    kafka = KafkaSettings(consumer=COMMON, consumers={"x": entry})
    with pytest.raises(ConfigError) as caught:
        kafka.consumer_for("x", file="app.yaml")
    (problem,) = caught.value.problems
    assert (problem.key, problem.file) == (place, "app.yaml")


def test_everything_that_is_wrong_with_an_entry_is_told_at_once() -> None:
    kafka = KafkaSettings(producer={"extra": {"acks": 0, "client.id": "x"}, "typo": 1})
    with pytest.raises(ConfigError) as caught:
        kafka.producer_for("x")
    assert {problem.key: problem.remedy for problem in caught.value.problems}.keys() == {
        "kafka.producer.extra.acks",
        'kafka.producer.extra["client.id"]',
        "kafka.producer.typo",
        "kafka.producer.brokers",
    }
