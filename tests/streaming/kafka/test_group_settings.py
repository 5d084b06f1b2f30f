"""The settings of a member of a group: what goes together, what the client is told, and what `extra` may not say."""

from __future__ import annotations

from typing import Any

import pytest

from loom.streaming.kafka import ConsumerSettings, Membership, ProducerSettings
from loom.streaming.kafka.group_settings import INSTANCE_ID
from loom.streaming.kafka.membership import member_config
from loom.streaming.kafka.reserved_properties import CONSUMER_EXTRA, refused_keys


def consumer(**settings: Any) -> ConsumerSettings:
    return ConsumerSettings("a:9092", "orders", **settings)


def test_the_assignment_is_fixed_unless_the_config_says_otherwise() -> None:
    assert (consumer().membership, consumer().shares_group) == (Membership.FIXED, False)
    assert consumer(membership="group").shares_group


def test_a_member_uses_the_classic_protocol_with_an_assignor_that_stops_nobody() -> None:
    found = member_config(consumer(membership="group", group_instance_id="orders-0", session_timeout_ms=9_000))
    assert (
        found.items()
        >= {
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 9_000,
            "heartbeat.interval.ms": 500,
            "max.poll.interval.ms": 300_000,
            "group.instance.id": "orders-0",
        }.items()
    )
    assert "group.protocol" not in found
    assert "group.instance.id" not in member_config(consumer(membership="group"))


def test_the_environment_names_a_static_member_before_the_config_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INSTANCE_ID, "pod-3")
    found = member_config(consumer(membership="group", group_instance_id="orders-0"))
    assert found["group.instance.id"] == "pod-3"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"group_instance_id": "orders-0"}, "group_instance_id has no meaning with membership: fixed"),
        (
            {"membership": "group", "session_timeout_ms": 20_000, "max_poll_interval_ms": 10_000},
            "and session_timeout_ms is 20000",
        ),
        ({"membership": "group", "group_instance_id": ""}, "group_instance_id"),
        ({"membership": "shared"}, "membership"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        consumer(**settings)


def test_the_newer_protocol_is_refused_with_its_reason() -> None:
    refused = refused_keys(["group.protocol", "session.timeout.ms"], CONSUMER_EXTRA)
    assert "a broker accepts offsets of partitions that were revoked" in refused["group.protocol"]
    assert refused["session.timeout.ms"] == "set session_timeout_ms instead"


def test_the_time_of_a_transaction_is_set_once() -> None:
    assert (
        ProducerSettings("a:9092", transaction_timeout_ms=5_000).to_confluent_config()["transaction.timeout.ms"]
        == 5_000
    )
    with pytest.raises(ValueError, match="transaction_timeout_ms is set too"):
        ProducerSettings("a:9092", transaction_timeout_ms=5_000, extra={"transaction.timeout.ms": 5_000})
