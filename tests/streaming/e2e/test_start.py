"""Where a run begins: at the group's position, else at the end that the config names, and never anywhere by accident."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from loom.core.model import LoomFrozenStruct
from loom.core.observability import EventKind, LifecycleEvent, ObservabilityRuntime, Scope
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, step
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord, OffsetOutOfRangeError, TopicMissingError
from tests.support.running import all_done, config_for, content, positions, produce, run_all, run_until
from tests.support.waiting import LONG_S


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


FLOW = StreamFlow(
    "starting", FromTopic("numbers", Number), Process(same), IntoTopic("out", dlq="too-large"), IntoTopic("errors")
)
TOPICS = ("numbers", "out", "errors", "too-large")


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in TOPICS:
        broker.create_topic(topic)
    return broker.bootstrap


def write(bootstrap: str, *values: int, topic: str = "numbers") -> None:
    produce(bootstrap, topic, *(KafkaRecord(topic, None, b'{"n":%d}' % n, partition=n % 4) for n in values))


def written(bootstrap: str) -> list[int]:
    return sorted(int((record.value or b"")[5:-1]) for record in content(bootstrap, "out")["out"])


def confirm(bootstrap: str, **offsets: int) -> None:
    """As some other client, or a person, would."""
    client = Consumer({"bootstrap.servers": bootstrap, "group.id": "readers", "enable.auto.commit": False})
    where = [TopicPartition("numbers", int(name.removeprefix("p")), offset) for name, offset in offsets.items()]
    client.commit(offsets=where, asynchronous=False)
    client.close()


EVERY_DELIVERY = pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once", None])


@EVERY_DELIVERY
def test_latest_is_a_place_which_is_kept_at_once(bootstrap: str, delivery: str | None) -> None:
    config = config_for(bootstrap, consumer={"delivery": delivery, "auto_offset_reset": "latest"})
    write(bootstrap, *range(8))
    # Stopped before anything was read; what comes while it is down must not be skipped.
    run_until(StreamingRunner.from_dict(FLOW, config), lambda _: len(positions(bootstrap, "numbers")) == 4)
    assert positions(bootstrap, "numbers") == dict.fromkeys(range(4), 2)
    write(bootstrap, 8, 9, 10)
    run_all(FLOW, config, 3)
    assert written(bootstrap) == [8, 9, 10]


def test_earliest_is_where_the_log_begins_and_is_kept_at_once(bootstrap: str) -> None:
    config = config_for(bootstrap, consumer={"delivery": "at_least_once"})
    run_until(StreamingRunner.from_dict(FLOW, config), lambda _: len(positions(bootstrap, "numbers")) == 4)
    assert positions(bootstrap, "numbers") == dict.fromkeys(range(4), 0)


@pytest.mark.parametrize("reset", ["earliest", "latest"])
def test_the_groups_position_rules_where_there_is_one(bootstrap: str, reset: str) -> None:
    write(bootstrap, *range(12))
    confirm(bootstrap, p0=1, p1=3, p2=0, p3=2)
    config = config_for(bootstrap, consumer={"delivery": "at_least_once", "auto_offset_reset": reset})
    run_all(FLOW, config, 6)
    assert written(bootstrap) == [2, 4, 6, 8, 10, 11]


@pytest.mark.parametrize("offset", [3, 1_000_000])
@EVERY_DELIVERY
def test_a_position_that_the_log_does_not_hold_is_an_error_and_never_a_jump(
    bootstrap: str, offset: int, delivery: str | None
) -> None:
    write(bootstrap, 0, 4)
    confirm(bootstrap, p0=offset)
    config = config_for(bootstrap, consumer={"delivery": delivery})
    with pytest.raises(OffsetOutOfRangeError) as refused:
        StreamingRunner.from_dict(FLOW, config).run()
    for told in ("'readers'", f"offset {offset}", "numbers[0]", "0 to 2", "Reset the group to an offset that exists"):
        assert told in str(refused.value)
    assert positions(bootstrap, "numbers")[0] == offset
    assert written(bootstrap) == []


@pytest.mark.parametrize(("policy", "goes_on"), [("earliest", 0), ("latest", 2)])
@EVERY_DELIVERY
def test_a_position_that_the_log_does_not_hold_is_left_for_one_that_the_config_names_and_that_is_said(
    bootstrap: str, capsys: pytest.CaptureFixture[str], policy: str, goes_on: int, delivery: str | None
) -> None:
    write(bootstrap, 0, 4)
    confirm(bootstrap, p0=7)
    config = config_for(bootstrap, consumer={"delivery": delivery, "on_out_of_range": policy})
    # The end is kept before anything is read, like any other position to begin at.
    done = all_done(2) if policy == "earliest" else lambda _: positions(bootstrap, "numbers")[0] == 2
    run_until(StreamingRunner.from_dict(FLOW, config), done)
    assert positions(bootstrap, "numbers")[0] == 2
    assert written(bootstrap) == ([0, 4] if policy == "earliest" else [])
    told = capsys.readouterr().err
    assert told.count("] offset_reset ") == 1
    assert f"offset=7 log_begins=0 log_ends=2 continues_at={goes_on}" in told


def test_every_missing_topic_is_named_at_once_before_anything_is_read(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loom.streaming.kafka.cluster_snapshot._APPEAR", 0.5)
    seen: list[LifecycleEvent] = []

    class Recorder:
        def on_event(self, event: LifecycleEvent) -> None:
            seen.append(event)

    observed = ObservabilityRuntime([Recorder()])
    with pytest.raises(TopicMissingError) as refused:
        StreamingRunner.from_dict(FLOW, config_for(broker.bootstrap), observability_runtime=observed).run()
    assert [(event.scope, event.kind) for event in seen] == [
        (Scope.POLL_CYCLE, EventKind.START),
        (Scope.POLL_CYCLE, EventKind.ERROR),
    ]
    for topic in TOPICS:
        assert f"'{topic}'" in str(refused.value)
    # Asking a broker for a topic by name may make it.
    listed = AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=LONG_S).topics
    assert set(listed) & set(TOPICS) == set()


def test_a_topic_that_appears_a_moment_later_is_waited_for(broker: EmbeddedBroker) -> None:
    import threading

    for topic in TOPICS[1:]:
        broker.create_topic(topic)
    later = threading.Timer(0.5, broker.create_topic, ["numbers"])
    later.start()
    run_until(
        StreamingRunner.from_dict(FLOW, config_for(broker.bootstrap, consumer={"delivery": "at_least_once"})),
        lambda _: len(positions(broker.bootstrap, "numbers")) == 4,
    )
    later.join()


def test_several_topics_are_read_as_one_source(bootstrap: str, broker: EmbeddedBroker) -> None:
    broker.create_topic("more")
    write(bootstrap, 0, 1, 2)
    write(bootstrap, 3, 4, topic="more")
    config = config_for(bootstrap, consumer={"delivery": "at_least_once", "topics": ["numbers", "more"]})
    run_all(FLOW, config, 5)
    assert written(bootstrap) == [0, 1, 2, 3, 4]
    assert (sum(positions(bootstrap, "numbers").values()), sum(positions(bootstrap, "more").values())) == (3, 2)


def test_logical_names_lead_to_physical_topics(broker: EmbeddedBroker) -> None:
    for topic in ("numbers-v2", "out-v7", "errors", "too-large"):
        broker.create_topic(topic)
    write(broker.bootstrap, 1, topic="numbers-v2")
    config: dict[str, Any] = config_for(broker.bootstrap, consumer={"topics": ["numbers-v2"]})
    config["kafka"]["producers"] = {"out": {"topic": "out-v7"}}
    run_all(FLOW, config, 1)
    assert len(content(broker.bootstrap, "out-v7")["out-v7"]) == 1
