"""The client's properties fit the largest record that a topic takes, and what was set by hand stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import Producer

from loom.streaming.kafka import ConsumerSettings, ProducerSettings
from loom.streaming.kafka.limits import TimestampLimits, producer_properties

NINETY_MB = 90_000_000


def properties(**extra: Any) -> dict[str, Any]:
    return ProducerSettings(
        ("x:1",), extra={key.replace("_", "."): value for key, value in extra.items()}
    ).to_confluent_config()


def test_the_queue_has_room_for_the_largest_record_of_any_topic() -> None:
    found = producer_properties(properties(), {"small": 1_000, "large": NINETY_MB})
    assert found["message.max.bytes"] == NINETY_MB
    assert found["queue.buffering.max.kbytes"] * 1024 > NINETY_MB


def test_the_queue_has_room_for_what_message_max_bytes_allows() -> None:
    found = producer_properties(properties(message_max_bytes=NINETY_MB), {})
    assert found["queue.buffering.max.kbytes"] * 1024 > NINETY_MB


def test_the_queue_keeps_its_bound_where_records_are_small() -> None:
    assert producer_properties(properties(), {"small": 1_000})["queue.buffering.max.kbytes"] == 32 * 1024


def test_what_was_set_by_hand_stays() -> None:
    by_hand = properties(message_max_bytes=5_000_000, queue_buffering_max_kbytes=4_000, batch_size=7_000)
    found = producer_properties(by_hand, {"large": NINETY_MB})
    assert (found["message.max.bytes"], found["queue.buffering.max.kbytes"], found["batch.size"]) == (
        5_000_000,
        4_000,
        7_000,
    )


def test_a_topic_that_takes_more_than_the_client_can_send_is_no_fault_of_the_config() -> None:
    Producer(producer_properties(properties(), {"boundless": 2**31 - 1}))


def test_a_consumer_takes_an_answer_of_any_size() -> None:
    assert ConsumerSettings(("x:1",), "g").to_confluent_config()["receive.message.max.bytes"] == 2**31 - 1


@pytest.mark.parametrize(
    ("timestamp_ms", "told"),
    [(100_000, None), (160_000, None), (99_000, None), (161_001, "61 s ahead of"), (98_000, "2 s behind")],
)
def test_a_timestamp_is_refused_outside_the_limits_of_its_topic(timestamp_ms: int, told: str | None) -> None:
    reason = TimestampLimits(behind_ms=1_000, ahead_ms=60_000).refusal("out", timestamp_ms, now_ms=100_000)
    assert reason is None if told is None else told in (reason or "")
