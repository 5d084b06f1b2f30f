"""Client properties in a plan: told apart by any property, printed without a value."""

from __future__ import annotations

from typing import Any

import pytest
from rich.pretty import pretty_repr

from loom.streaming.kafka import KafkaSecuritySettings, ProducerSettings
from loom.streaming.kafka.client_properties import ClientProperties

SECURITY = KafkaSecuritySettings(protocol="SASL_SSL", sasl_username="ann", sasl_password="s3cr3t")
MADE = ProducerSettings("a:1,b:2", security=SECURITY, extra={"linger.ms": 7}).to_confluent_config()


def test_two_configurations_are_told_apart_by_any_property() -> None:
    one = ClientProperties(MADE)
    assert one == ClientProperties(dict(reversed(MADE.items())))
    assert one != ClientProperties({**MADE, "sasl.password": "other"})


def test_what_they_were_made_of_may_change() -> None:
    made = dict(MADE)
    one = ClientProperties(made)
    made["linger.ms"] = 8
    assert one == ClientProperties(MADE)


def test_a_secret_is_in_no_print_of_them() -> None:
    one = ClientProperties(MADE)
    assert one["sasl.password"] == "s3cr3t"
    for text in (repr(one), str(one), pretty_repr(one), repr(one.shared())):
        assert "s3cr3t" not in text
        assert "sasl.password" in text


@pytest.mark.parametrize(
    "other",
    [
        {"linger.ms": 8},
        {"client.id": "x"},
        {"bootstrap.servers": "b:2,a:1"},
    ],
)
def test_clients_that_differ_in_their_work_share_a_cluster(other: dict[str, Any]) -> None:
    assert ClientProperties(MADE).reaches_same_cluster(ClientProperties({**MADE, **other}))


@pytest.mark.parametrize(
    "other",
    [
        {"bootstrap.servers": "a:1"},
        {"security.protocol": "SSL"},
        {"sasl.username": "bob"},
        {"sasl.password": "other"},
        {"sasl.oauthbearer.config": "x"},
        {"ssl.key.pem": "x"},
        {"oauth_cb": print},
    ],
)
def test_other_brokers_or_another_user_are_another_cluster(other: dict[str, Any]) -> None:
    assert not ClientProperties(MADE).reaches_same_cluster(ClientProperties({**MADE, **other}))
