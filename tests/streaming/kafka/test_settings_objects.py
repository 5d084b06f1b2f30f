"""`KafkaSettings` takes settings objects where it takes mappings, and lays one over another in the same way."""

from __future__ import annotations

from typing import Any

import pytest

from loom.streaming import compile_flow
from loom.streaming.kafka import ConsumerSettings, KafkaSecuritySettings, KafkaSettings, ProducerSettings
from loom.streaming.kafka.settings import Delivery, WireFormat
from tests.streaming.orders import flow, price

SECURE = KafkaSecuritySettings("SASL_SSL", "PLAIN", "loom", "s3cr3t")


def test_an_object_is_found_again_by_every_name() -> None:
    producer = ProducerSettings("a:9092", client_id="loom", security=SECURE, format=WireFormat.MSGPACK)
    consumer = ConsumerSettings(("a:9092",), "orders", ("one", "two"), delivery=Delivery.AT_LEAST_ONCE)
    kafka = KafkaSettings(producer, consumer)
    assert (kafka.producer_for("x"), kafka.consumer_for("y")) == (producer, consumer)


def test_an_entry_for_one_name_lays_what_it_sets_over_the_common_one() -> None:
    kafka = KafkaSettings(
        ProducerSettings("a:9092", client_id="loom", security=SECURE),
        producers={
            "mapping": {"topic": "m", "security": {"sasl_username": "other"}},
            "object": ProducerSettings("b:9092", topic="o"),
        },
    )
    mapping, made = kafka.producer_for("mapping"), kafka.producer_for("object")
    assert (mapping.brokers, mapping.topic, mapping.client_id) == ("a:9092", "m", "loom")
    assert mapping.security == KafkaSecuritySettings("SASL_SSL", "PLAIN", "other", "s3cr3t")
    assert (made.brokers, made.topic, made.client_id, made.security) == ("b:9092", "o", "loom", SECURE)


def test_a_flow_compiles_with_them() -> None:
    kafka = KafkaSettings(ProducerSettings("a:9092"), ConsumerSettings("a:9092", "orders"))
    plan = compile_flow(flow(price), config={"kafka": kafka})
    assert (plan.source.settings.group_id, plan.warnings) == ("orders", ())


@pytest.mark.parametrize(
    "given", [ConsumerSettings("a:9092", "orders"), "a:9092", 7], ids=["consumer", "text", "number"]
)
def test_anything_else_is_refused_where_it_was_given(given: Any) -> None:
    with pytest.raises(TypeError, match=r"producer=…\) takes a mapping or ProducerSettings"):
        KafkaSettings(producer=given)
    with pytest.raises(TypeError, match=r"producers\['orders'\]=…\) takes a mapping or ProducerSettings"):
        KafkaSettings(producers={"orders": given})


def test_what_becomes_of_a_mapping_afterwards_changes_nothing() -> None:
    producer = {"brokers": "a:9092"}
    kafka = KafkaSettings(producer=producer)
    producer["brokers"] = "b:9092"
    assert kafka.producer_for("x").brokers == "a:9092"


def test_no_secret_is_shown() -> None:
    assert "s3cr3t" not in repr(KafkaSettings(ProducerSettings("a:9092", security=SECURE)))
