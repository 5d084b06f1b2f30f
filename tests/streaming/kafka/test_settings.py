"""Settings become client properties; what a guarantee rests on cannot be set past them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from loom.streaming.kafka import (
    ConsumerSettings,
    Delivery,
    KafkaSecuritySettings,
    ProducerSettings,
)
from loom.streaming.kafka.reserved_properties import CONSUMER_EXTRA, PRODUCER_EXTRA, refused_keys

SECURITY = KafkaSecuritySettings("SASL_SSL", "SCRAM-SHA-512", "ann", "pw", "/ca", "/cert", "/key", "key-pw")
SECURITY_PROPERTIES = {
    "security.protocol": "SASL_SSL",
    "sasl.mechanism": "SCRAM-SHA-512",
    "sasl.username": "ann",
    "sasl.password": "pw",
    "ssl.ca.location": "/ca",
    "ssl.certificate.location": "/cert",
    "ssl.key.location": "/key",
    "ssl.key.password": "key-pw",
}


def consumer(**options: Any) -> ConsumerSettings:
    return ConsumerSettings(("a:1", "b:2"), "orders", **options)


def producer(**options: Any) -> ProducerSettings:
    return ProducerSettings(("a:1", "b:2"), **options)


def test_a_consumers_defaults_are_those_of_the_contract() -> None:
    made = ConsumerSettings(("a:1",), "g")
    assert (made.topics, made.auto_offset_reset, made.poll_timeout_ms) == ((), "earliest", 100)
    assert (made.enable_auto_commit, made.security, made.extra, made.delivery) == (True, None, {}, None)
    assert (made.on_out_of_range, made.on_topic_change, made.topic_check_interval_ms) == ("fail", "warn", 60_000)


def test_a_producers_defaults_are_those_of_the_contract() -> None:
    made = ProducerSettings(("a:1",))
    assert (made.client_id, made.topic, made.security, made.extra) == (None, None, None, {})
    assert (made.format, made.headers) == ("json", "auto")


def test_the_fields_stand_in_the_order_of_the_contract() -> None:
    assert ConsumerSettings.__struct_fields__[:8] == (
        "brokers",
        "group_id",
        "topics",
        "auto_offset_reset",
        "poll_timeout_ms",
        "enable_auto_commit",
        "security",
        "extra",
    )
    assert ProducerSettings.__struct_fields__[:5] == ("brokers", "client_id", "topic", "security", "extra")
    assert KafkaSecuritySettings.__struct_fields__[:5] == (
        "protocol",
        "sasl_mechanism",
        "sasl_username",
        "sasl_password",
        "ssl_ca_location",
    )


def test_a_consumer_never_lets_the_client_reset_a_position() -> None:
    properties = consumer(delivery=Delivery.AT_LEAST_ONCE, auto_offset_reset="latest").to_confluent_config()
    assert properties["bootstrap.servers"] == "a:1,b:2"
    assert properties["group.id"] == "orders"
    assert properties["auto.offset.reset"] == "error"
    assert properties["enable.auto.commit"] is False


@pytest.mark.parametrize(
    ("options", "auto_commit", "delivery"),
    [
        ({}, True, None),
        ({"enable_auto_commit": False}, False, Delivery.AT_LEAST_ONCE),
        ({"delivery": Delivery.AT_MOST_ONCE}, False, Delivery.AT_MOST_ONCE),
        ({"delivery": Delivery.AT_LEAST_ONCE}, False, Delivery.AT_LEAST_ONCE),
        ({"delivery": Delivery.EXACTLY_ONCE, "enable_auto_commit": False}, False, Delivery.EXACTLY_ONCE),
    ],
)
def test_the_client_commits_by_itself_only_where_nothing_was_promised(
    options: Any, auto_commit: bool, delivery: Delivery | None
) -> None:
    made = consumer(**options)
    assert (made.auto_commit, made.effective_delivery) == (auto_commit, delivery)
    assert made.to_confluent_config()["enable.auto.commit"] is auto_commit


def test_a_producer_is_durable_ordered_compressed_and_places_as_others_do() -> None:
    properties = producer(client_id="orders-1").to_confluent_config()
    assert properties["bootstrap.servers"] == "a:1,b:2"
    assert properties["client.id"] == "orders-1"
    assert (properties["acks"], properties["enable.idempotence"]) == ("all", True)
    assert (properties["partitioner"], properties["compression.type"]) == ("murmur2_random", "lz4")
    assert "client.id" not in producer().to_confluent_config()


@pytest.mark.parametrize("brokers", ["a:1,b:2", " a:1 , b:2", ("a:1", "b:2")])
def test_brokers_may_be_a_list_or_one_text(brokers: Any) -> None:
    assert ConsumerSettings(brokers, "g").to_confluent_config()["bootstrap.servers"] == "a:1,b:2"
    assert ProducerSettings(brokers).to_confluent_config()["bootstrap.servers"] == "a:1,b:2"


@pytest.mark.parametrize("make", [consumer, producer])
def test_security_is_handed_to_the_client(make: Callable[..., Any]) -> None:
    assert SECURITY.to_confluent_config() == SECURITY_PROPERTIES
    assert make(security=SECURITY).to_confluent_config().items() >= SECURITY_PROPERTIES.items()
    assert not make().to_confluent_config().keys() & SECURITY_PROPERTIES.keys()


def test_what_security_leaves_open_is_left_to_the_client() -> None:
    assert KafkaSecuritySettings().to_confluent_config() == {"security.protocol": "PLAINTEXT"}


@pytest.mark.parametrize(("make", "key"), [(consumer, "queued.max.messages.kbytes"), (producer, "linger.ms")])
def test_extra_tunes_the_client(make: Callable[..., Any], key: str) -> None:
    assert make(extra={key: 77, "debug": "all"}).to_confluent_config().items() >= {key: 77, "debug": "all"}.items()


@pytest.mark.parametrize("key", CONSUMER_EXTRA)
def test_extra_of_a_consumer_may_not_redefine_a_setting(key: str) -> None:
    with pytest.raises(ValueError, match=f"'{key}'"):
        consumer(extra={"debug": "all", key: "x"})


@pytest.mark.parametrize("key", PRODUCER_EXTRA)
def test_extra_of_a_producer_may_not_redefine_a_setting(key: str) -> None:
    with pytest.raises(ValueError, match=f"'{key}'"):
        producer(extra={"debug": "all", key: "x"})


def test_a_refused_key_comes_with_what_to_do_about_it() -> None:
    assert refused_keys(["linger.ms", "acks", "client.id"], PRODUCER_EXTRA) == {
        "acks": "remove it: a delivery guarantee rests on it",
        "client.id": "set client_id instead",
    }


def test_what_the_guarantees_rest_on_is_among_what_extra_may_not_hold() -> None:
    both = {"bootstrap.servers", "security.protocol", "sasl.password", "ssl.key.password", "enable.idempotence"}
    assert CONSUMER_EXTRA.keys() >= both | {
        "group.id",
        "auto.offset.reset",
        "enable.auto.commit",
        "isolation.level",
        "enable.auto.offset.store",
    }
    assert PRODUCER_EXTRA.keys() >= both | {
        "client.id",
        "acks",
        "request.required.acks",
        "transactional.id",
        "max.in.flight.requests.per.connection",
        "retries",
        "partitioner",
        "delivery.report.only.error",
    }


def test_every_property_that_a_setting_decides_is_guarded() -> None:
    tunable = {"queued.max.messages.kbytes", "fetch.max.bytes", "receive.message.max.bytes", "reconnect.backoff.ms"}
    assert consumer(security=SECURITY).to_confluent_config().keys() - tunable <= CONSUMER_EXTRA.keys()
    tunable = {"compression.type", "linger.ms", "queue.buffering.max.kbytes", "queue.buffering.max.messages"}
    tunable.add("reconnect.backoff.ms")
    written = producer(security=SECURITY, client_id="x").to_confluent_config()
    assert written.keys() - tunable <= PRODUCER_EXTRA.keys()


def test_the_clients_own_memory_is_bounded() -> None:
    """Its defaults allow a gigabyte, for each client of a process."""
    read, written = consumer().to_confluent_config(), producer().to_confluent_config()
    fetched = read["queued.max.messages.kbytes"] + read["fetch.max.bytes"] // 1024
    assert fetched + written["queue.buffering.max.kbytes"] <= 80 * 1024


@pytest.mark.parametrize("field", ["poll_timeout_ms", "batch_size", "topic_check_interval_ms"])
def test_one_is_the_smallest_count_and_time(field: str) -> None:
    assert getattr(consumer(**{field: 1}), field) == 1


@pytest.mark.parametrize("field", ["poll_timeout_ms", "batch_size", "topic_check_interval_ms"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_count_or_time_below_one_is_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{field} must be at least 1"):
        consumer(**{field: value})
