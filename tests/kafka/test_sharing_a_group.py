"""Who else may use a group, on Apache Kafka: another flow, an operator, a consumer that subscribes. Noticed, and said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from loom.cli.exit_codes import Exit, exit_for
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner
from loom.streaming.kafka import ConsumerSettings, FencedError, SecondInstanceError
from loom.streaming.kafka.cluster_snapshot import fetch_cluster
from loom.streaming.kafka.group_snapshot import KEEP_ALIVE, GroupSnapshot
from tests.support.apache_kafka import PROPERTIES
from tests.support.broker import Broker
from tests.support.one_way import Number, OneWay, accounted, running, same
from tests.support.running import run_all
from tests.support.waiting import LONG_S, until

RENAMED = StreamFlow("a@renamed", FromTopic("in", Number), Process(same), IntoTopic("out"))


@contextmanager
def subscribed(one_way: OneWay) -> Iterator[None]:
    """A consumer of somebody's that is a member of the group, and reads another topic."""
    member = Consumer({"bootstrap.servers": one_way.bootstrap, "group.id": one_way.group, "enable.auto.commit": False})
    joined, over = Event(), Event()

    def poll() -> None:
        member.subscribe([one_way.out], on_assign=lambda *_: joined.set())
        while not over.is_set():
            member.poll(0.1)
        member.close()

    thread = Thread(target=poll)
    thread.start()
    try:
        assert joined.wait(LONG_S)
        yield
    finally:
        over.set()
        thread.join(LONG_S)


def test_a_renamed_flow_takes_over_and_the_one_that_still_runs_ends(
    one_way: OneWay, capsys: pytest.CaptureFixture[str]
) -> None:
    config = one_way.config(delivery="exactly_once")
    one_way.write(3)
    first = one_way.runner(delivery="exactly_once")
    with running(first) as raised:
        until(accounted(first, 3))
        second = StreamingRunner.from_dict(RENAMED, config)
        with running(second) as none_raised:
            until(lambda: "flow_renamed" in capsys.readouterr().err)
            one_way.write(3, start=3)
            until(lambda: bool(raised))
            until(accounted(second, 3))
    (error,) = raised
    assert isinstance(error, FencedError | SecondInstanceError)
    assert exit_for(error) is Exit.REPLACED
    assert none_raised == []
    assert one_way.written() == list(range(6))


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_reset_by_hand_of_a_running_flow_is_not_overwritten(one_way: OneWay, delivery: str) -> None:
    one_way.write(3)
    runner = one_way.runner(delivery=delivery)
    with running(runner) as raised:
        until(lambda: one_way.position() == 3)
        reset = [ConsumerGroupTopicPartitions(one_way.group, [TopicPartition(one_way.source, 0, 1)])]
        admin = AdminClient({"bootstrap.servers": one_way.bootstrap})
        for answer in admin.alter_consumer_group_offsets(reset).values():
            answer.result(LONG_S)
        one_way.write(2, start=3)
        until(lambda: bool(raised))
    (error,) = raised
    assert isinstance(error, SecondInstanceError)
    assert "is at 1, and this run left it at 3" in str(error)
    assert exit_for(error) is Exit.REPLACED
    assert one_way.position() == 1
    if delivery == "exactly_once":
        # Nothing of the epoch that met it is visible, so that the operator's choice holds.
        assert one_way.written() == [0, 1, 2]
        run_all(one_way.flow(), one_way.config(delivery=delivery), 4)
        assert one_way.written() == [0, 1, 2, 1, 2, 3, 4]


def test_a_group_that_is_deleted_by_hand_under_a_running_exactly_once_flow_ends_it(one_way: OneWay) -> None:
    one_way.write(3)
    runner = one_way.runner(delivery="exactly_once")
    with running(runner) as raised:
        until(lambda: one_way.position() == 3)
        admin = AdminClient({"bootstrap.servers": one_way.bootstrap})
        admin.delete_consumer_groups([one_way.group])[one_way.group].result(LONG_S)
        one_way.write(2, start=3)
        until(lambda: bool(raised))
    (error,) = raised
    assert isinstance(error, SecondInstanceError)
    assert "someone deleted the offset" in str(error)
    assert one_way.written() == [0, 1, 2]
    assert one_way.position() is None


@pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once", "exactly_once", None])
def test_a_start_refuses_a_group_that_somebody_is_subscribed_with_and_writes_nothing(
    one_way: OneWay, delivery: str | None
) -> None:
    one_way.write(2)
    with subscribed(one_way), pytest.raises(SecondInstanceError, match="other consumers are subscribed") as e:
        one_way.runner(delivery=delivery).run()
    assert exit_for(e.value) is Exit.REPLACED
    assert one_way.written() == []
    assert one_way.position() is None


def test_a_consumer_that_subscribes_while_a_flow_runs_ends_it_in_words(one_way: OneWay) -> None:
    one_way.write(1)
    with running(one_way.runner()) as raised:
        until(lambda: one_way.position() == 1)
        with subscribed(one_way):
            one_way.write(1, start=1)
            until(lambda: bool(raised))
    (error,) = raised
    assert isinstance(error, SecondInstanceError)
    assert "other consumers are subscribed" in str(error)


def test_idle_positions_are_confirmed_as_often_as_the_broker_wants(kafka: Broker) -> None:
    def look(**security: Any) -> GroupSnapshot:
        settings = ConsumerSettings((kafka.bootstrap,), "nobody", **security)
        found = fetch_cluster(settings.to_confluent_config(), {}, group_id=settings.group_id).group
        assert found is not None
        return found

    kept = int(PROPERTIES["offsets.retention.minutes"]) * 60
    assert look() == GroupSnapshot((), kept * 0.45)
    assert look().keep_alive_s < KEEP_ALIVE
