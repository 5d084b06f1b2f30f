"""The transcripts of docs/cli.md and the tutorial that need a broker, typed by a reader in front of Apache Kafka."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException

from tests.support.broker import Broker
from tests.support.fork_server import ForkServer
from tests.support.kafka_io import delete_topic, end_offsets, group_positions
from tests.support.transcripts import Command, Reader
from tests.support.waiting import LONG_S

DOCS = Path(__file__).resolve().parents[2] / "docs"
TOPICS = ("orders.raw", "orders.priced", "orders.errors")


@pytest.fixture
def names_of_the_page(kafka: Broker) -> Iterator[None]:
    """The page uses the names of the template, which nothing else here has."""
    yield
    for topic in TOPICS:
        with contextlib.suppress(KafkaException):
            delete_topic(kafka.bootstrap, topic)


@pytest.mark.parametrize("name", ["cli.md", "tutorial-kafka.md"])
def test_a_page_that_needs_a_broker_is_true(
    name: str, kafka: Broker, names_of_the_page: None, tmp_path: Path, fork_server: ForkServer
) -> None:
    def nothing_left() -> None:
        deadline = time.monotonic() + LONG_S
        ends = end_offsets(kafka.bootstrap, "orders.raw")
        while any(group_positions(kafka.bootstrap, "shop", "orders.raw").get(p, 0) < end for p, end in ends.items()):
            assert time.monotonic() < deadline, "the flow did not read everything"
            time.sleep(0.2)

    environment = {"BROKERS": kafka.bootstrap, "PYTHONUNBUFFERED": "1"}
    reader = Reader(tmp_path, environment, nothing_left, fork_server)
    for command in ("loom new shop", "cd shop"):
        reader.types(Command(0, command, []))
    reader.follows(DOCS / name, "kafka")
