"""The fixtures: a broker of the test's own, and its topics."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from loom.streaming import CollectBatch, ForEach, IntoTopic, Tombstone
from loom.streaming.bytewax import FlowFailedError
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from loom.streaming.testing import BrokerTopics
from tests.streaming.testing.flows import Number, double, flow, picky

OUT: IntoTopic[Any] = IntoTopic("out")


def test_a_broker_runs_for_the_test(loom_broker: EmbeddedBroker, loom_topics: BrokerTopics) -> None:
    assert loom_topics.bootstrap == loom_broker.bootstrap


def test_what_is_produced_is_read_back(loom_topics: BrokerTopics) -> None:
    loom_topics.produce("raw", [Number(1), Number(2)], key="k")
    loom_topics.produce("raw", [Tombstone()], key="k")
    loom_topics.produce_records([KafkaRecord("raw", b"k", b"{", {"h": b"1"}, timestamp_ms=1_000)])
    found = loom_topics.read("raw")
    assert [record.value for record in found] == [b'{"n":1,"country":"ES"}', b'{"n":2,"country":"ES"}', None, b"{"]
    assert (found[-1].key, found[-1].headers, found[-1].timestamp_ms) == (b"k", {"h": b"1"}, 1_000)
    with pytest.raises(ValueError, match=r"raw\[\d\]@3 does not decode"):
        loom_topics.read_messages("raw", Number)


def test_an_empty_topic_is_read_to_its_end(loom_topics: BrokerTopics) -> None:
    assert loom_topics.read("nothing") == []


def test_a_flow_is_run_between_topics(loom_topics: BrokerTopics) -> None:
    loom_topics.produce("raw", [Number(n) for n in range(10)])
    loom_topics.create("out", "errors")
    counts = loom_topics.run(flow(picky, double, output=OUT), inputs=10)
    assert counts.failed == {"task": 1}
    assert sorted(m.payload.n for m in loom_topics.read_messages("out", Number)) == [2, 4, 6, 8, 10, 12, 16, 18]
    assert [letter.value for letter in loom_topics.read("errors")] == [b'{"n":7,"country":"ES"}']


def test_a_run_that_fails_raises_what_it_ended_with(loom_topics: BrokerTopics) -> None:
    loom_topics.produce("raw", [Number(7)])
    loom_topics.create("out")
    with pytest.raises(FlowFailedError, match="seven"):
        loom_topics.run(flow(picky, output=OUT, errors=None), inputs=1)


def test_a_run_that_is_not_done_in_time_says_how_far_it_came(loom_topics: BrokerTopics) -> None:
    loom_topics.produce("raw", [Number(1)])
    loom_topics.create("out", "errors")
    waiting = flow(CollectBatch(9, timeout_ms=60_000), ForEach(), output=OUT)
    with pytest.raises(TimeoutError, match="0 of 1 inputs"):
        loom_topics.run(waiting, inputs=1, timeout_s=0.5)


def test_the_config_of_the_test_is_laid_over_that_of_the_broker(loom_topics: BrokerTopics) -> None:
    config = loom_topics.config({"pricing": {"currency": "EUR"}, "kafka": {"consumer": {"group_id": "mine"}}})
    assert config.raw("pricing") == {"currency": "EUR"}
    assert config.raw("kafka.consumer.group_id") == "mine"
    assert config.raw("kafka.consumer.brokers") == [loom_topics.bootstrap]


def test_pytest_is_loaded_by_the_fixtures_alone() -> None:
    code = "import sys, loom.streaming.testing as t; [getattr(t, n) for n in t.__all__]; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
