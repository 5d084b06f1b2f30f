"""`loom demo --chaos --brokers`: under `exactly_once` the books balance to the record, and no topic is left behind."""

from __future__ import annotations

from pathlib import Path

from loom.streaming.kafka.client_properties import ClientProperties
from loom.streaming.kafka.topic_admin import TopicAdmin
from tests.cli.conftest import Loom
from tests.support.broker import Broker
from tests.support.fork_server import ForkServer


def test_a_flow_that_is_killed_loses_and_doubles_nothing(
    kafka: Broker, tmp_path: Path, fork_server: ForkServer
) -> None:
    loom = Loom(tmp_path, fork_server)
    told = loom("demo", "--chaos", "--kills", "2", "--records", "900", "--brokers", kafka.bootstrap, timeout=200)
    assert told.code == 0, told.out + told.err
    assert "the books balance: 2 kills, 0 lost, 0 doubled" in told.out
    topics = TopicAdmin(ClientProperties({"bootstrap.servers": kafka.bootstrap})).topics()
    assert [topic for topic in topics if topic.startswith("loom-demo-")] == []
