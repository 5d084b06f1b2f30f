"""OAuth tokens from a function that the config names; and what every client of a cluster is told."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.config import ConfigError
from loom.streaming.kafka import KafkaSecuritySettings, KafkaSettings
from loom.streaming.kafka.reserved_properties import shared_properties


def token(_: str) -> tuple[str, float]:
    return "token", 0.0


def settings(callback: Any, mechanism: str = "OAUTHBEARER") -> KafkaSettings:
    security = {"sasl_mechanism": mechanism, "sasl_oauth_callback": callback}
    client = {"brokers": ["kafka.test:9092"], "security": security}
    return KafkaSettings(consumer={**client, "group_id": "orders"}, producer=client)


def test_the_function_that_is_named_is_handed_to_the_client() -> None:
    named = settings(f"{__name__}:token")
    assert named.consumer_for("orders").to_confluent_config()["oauth_cb"] is token
    assert named.producer_for("orders").to_confluent_config()["oauth_cb"] is token


@pytest.mark.parametrize(
    ("callback", "told"),
    [
        ("token", "module:function"),
        (":token", "module:function"),
        ("no.such.module:token", "cannot be imported"),
        (f"{__name__}:tokens", "has no"),
        (f"{__name__}:__name__", "cannot be called"),
        (7, "kafka.consumer.security.sasl_oauth_callback"),
    ],
)
def test_a_name_that_names_no_function_is_refused_in_the_config(callback: Any, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings(callback).consumer_for("orders")
    assert "kafka.consumer.security" in str(refused.value)
    assert told in str(refused.value)


def test_a_callback_for_another_mechanism_is_refused() -> None:
    with pytest.raises(ValueError, match="OAUTHBEARER"):
        KafkaSecuritySettings(sasl_mechanism="PLAIN", sasl_oauth_callback=f"{__name__}:token")


def test_every_client_is_told_what_no_consumer_or_producer_alone_knows() -> None:
    extra = {
        "oauth_cb": token,
        "enable.sasl.oauthbearer.unsecure.jwt": True,
        "sasl.oauthbearer.config": "principal=carol",
        "broker.address.family": "v4",
        "client.rack": "a",
    }
    base = {"brokers": ["kafka.test:9092"], "security": {"sasl_mechanism": "OAUTHBEARER"}}
    kafka = KafkaSettings(
        consumer={**base, "group_id": "orders", "extra": {**extra, "fetch.min.bytes": 5}},
        producer={**base, "extra": {**extra, "linger.ms": 5}},
    )
    shared = {
        **extra,
        "bootstrap.servers": "kafka.test:9092",
        "security.protocol": "PLAINTEXT",
        "sasl.mechanism": "OAUTHBEARER",
        "reconnect.backoff.ms": 20,
    }
    reads = shared_properties(kafka.consumer_for("orders").to_confluent_config())
    # How large an answer may be concerns every client.
    assert {key: value for key, value in reads.items() if key != "receive.message.max.bytes"} == shared
    assert shared_properties(kafka.producer_for("orders").to_confluent_config()) == shared
