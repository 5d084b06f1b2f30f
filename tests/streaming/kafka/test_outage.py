"""A cluster that goes away is said once, remembered now and then, and said once more when it is back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError
from structlog.testing import capture_logs

from loom.streaming.kafka import EmbeddedBroker
from loom.streaming.kafka.outage import Clusters
from tests.support.apache_kafka import free_port
from tests.support.proxy import Proxy
from tests.support.waiting import LONG_S

ALL_DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured


@pytest.fixture
def proxy(broker: EmbeddedBroker) -> Iterator[Proxy]:
    with Proxy(free_port(), int(broker.bootstrap.rpartition(":")[2])) as proxy:
        yield proxy


def named(lines: list[Any], event: str) -> list[Any]:
    return [line for line in lines if line["event"] == event]


def eventually(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_outage_is_said_once_however_often_the_client_says_it(proxy: Proxy, lines: list[Any]) -> None:
    faults = Clusters(lambda: True, remind_s=0.5).of({"bootstrap.servers": f"127.0.0.1:{proxy.port}"})
    proxy.cut()
    for _ in range(1_000):
        faults.note(ALL_DOWN)
    eventually(lambda: len(named(lines, "broker_still_unavailable")) >= 1)
    proxy.mend()
    eventually(lambda: named(lines, "broker_available"))
    (gone,), (back,) = named(lines, "broker_unavailable"), named(lines, "broker_available")
    assert gone["brokers"] == f"127.0.0.1:{proxy.port}"
    assert "Connection refused" in gone["reason"]
    assert back["away_s"] > 0.5


def test_a_cluster_that_answers_is_not_said_to_be_away(proxy: Proxy, lines: list[Any]) -> None:
    clusters = Clusters(lambda: True)
    clusters.of({"bootstrap.servers": f"127.0.0.1:{proxy.port}"}).note(ALL_DOWN)
    eventually(lambda: not _watches())
    assert lines == []


def test_the_watch_ends_with_the_run(lines: list[Any]) -> None:
    running = [True]
    Clusters(lambda: running[0]).of({"bootstrap.servers": "127.0.0.1:1"}).note(ALL_DOWN)
    eventually(lambda: named(lines, "broker_unavailable"))
    running[0] = False
    eventually(lambda: not _watches())
    assert len(lines) == 1


def _watches() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "loom-outage"]
