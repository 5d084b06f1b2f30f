"""What a start asks of its clusters: each once, for everything, whichever of its clients needs the answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, compile_flow
from loom.streaming.kafka import EmbeddedBroker, SecondInstanceError, TopicMissingError
from loom.streaming.kafka.cluster_snapshot import ClusterSnapshot, fetch_cluster
from loom.streaming.kafka.group_snapshot import KEEP_ALIVE, GroupSnapshot
from loom.streaming.runtime import preflight
from loom.streaming.runtime.output_table import output_table_of
from loom.streaming.runtime.preflight import Preflight
from tests.streaming.orders import Order, validate
from tests.support.running import config_for
from tests.support.snapshots import see_otherwise

FLOW = StreamFlow(
    "checking",
    FromTopic("orders", Order),
    Process(validate),
    IntoTopic("out", dlq="refused"),
    errors=IntoTopic("errors"),
)


@pytest.fixture
def other() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, set[str], str | None]]:
    """The brokers, topics and group of each question."""
    asked: list[tuple[str, set[str], str | None]] = []

    def noted(properties: Any, needed: Any, **more: Any) -> ClusterSnapshot:
        asked.append((properties["bootstrap.servers"], set(needed), more["group_id"]))
        return fetch_cluster(properties, needed, **more)

    monkeypatch.setattr(preflight, "fetch_cluster", noted)
    return asked


def checked(bootstrap: str, *, reads_kafka: bool = True, owns_group: bool = True, **producers: Any) -> Preflight:
    config = config_for(bootstrap)
    config["kafka"]["producers"] = producers
    plan = compile_flow(FLOW, config=config)
    outputs = output_table_of(plan, sink=None, terminal_sinks=None, error_sinks=None)
    return Preflight(plan, outputs, reads_kafka=reads_kafka, owns_group=owns_group, waiting=lambda _: None)


def test_a_cluster_is_asked_once_however_many_clients_it_has(broker: EmbeddedBroker, asked: list[Any]) -> None:
    for topic in ("orders", "out", "refused", "errors"):
        broker.create_topic(topic)
    found = checked(broker.bootstrap, errors={"extra": {"linger.ms": 50}})
    assert found.snapshot() is found.snapshot()
    assert found.group() == GroupSnapshot((), KEEP_ALIVE)
    assert asked == [(broker.bootstrap, {"orders", "out", "refused", "errors"}, "readers")]
    assert found.snapshot().source_partitions == {"orders": (0, 1, 2, 3)}
    assert set(found.snapshot().written) == {0, 1}


def test_every_cluster_is_asked_for_its_own_topics(
    broker: EmbeddedBroker, other: EmbeddedBroker, asked: list[Any]
) -> None:
    for topic in ("orders", "out", "refused"):
        broker.create_topic(topic)
    other.create_topic("errors")
    checked(broker.bootstrap, errors={"brokers": other.bootstrap}).snapshot()
    assert asked == [
        (broker.bootstrap, {"orders", "out", "refused"}, "readers"),
        (other.bootstrap, {"errors"}, None),
    ]


def test_nothing_is_asked_about_a_source_that_is_the_callers_own(broker: EmbeddedBroker, asked: list[Any]) -> None:
    for topic in ("out", "refused", "errors"):
        broker.create_topic(topic)
    found = checked(broker.bootstrap, reads_kafka=False, owns_group=False).snapshot()
    assert asked == [(broker.bootstrap, {"out", "refused", "errors"}, None)]
    assert (found.source_partitions, found.source_topics) == ({}, {})


def test_everything_that_is_missing_is_named_with_what_it_is_needed_for(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loom.streaming.kafka.cluster_snapshot._APPEAR", 0.1)
    broker.create_topic("out")
    with pytest.raises(TopicMissingError, match=r"'orders' \(the source .*'refused' \(dead letters of 'out'.*'errors'"):
        checked(broker.bootstrap).snapshot()


def test_limits_are_known_by_the_producer_that_writes_the_topic(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for topic in ("orders", "out", "refused", "errors"):
        broker.create_topic(topic)
    see_otherwise(
        monkeypatch, max_message_bytes={"orders": 9, "out": 10, "errors": 20}, compacted=frozenset({"errors"})
    )
    found = checked(broker.bootstrap, errors={"extra": {"linger.ms": 50}}).snapshot().written
    by_topic = {topic: number for number, known in found.items() for topic in known.max_message_bytes}
    assert [found[by_topic[topic]].max_message_bytes for topic in ("out", "errors")] == [{"out": 10}, {"errors": 20}]
    assert [found[by_topic[topic]].compacted for topic in ("out", "errors")] == [frozenset(), frozenset({"errors"})]


def test_a_group_with_members_is_refused_and_the_rest_is_known(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for topic in ("orders", "out", "refused", "errors"):
        broker.create_topic(topic)
    see_otherwise(monkeypatch, group=GroupSnapshot(("rdkafka at 10.0.0.7",), KEEP_ALIVE))
    found = checked(broker.bootstrap)
    assert found.snapshot().source_partitions["orders"] == (0, 1, 2, 3)
    with pytest.raises(SecondInstanceError, match=r"rdkafka at 10\.0\.0\.7"):
        found.group()
