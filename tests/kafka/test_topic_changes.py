"""Topics that are deleted, recreated or given more partitions while a flow reads them, on Apache Kafka."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from loom.streaming import CollectBatch, ForEach, StreamingRunner
from loom.streaming.kafka import OffsetOutOfRangeError, TopicPartition, TopicsChangedError
from loom.streaming.kafka.consumer import ConsumerClient
from loom.streaming.kafka.settings import ConsumerSettings
from tests.support.kafka_io import delete_topic, produce_numbered
from tests.support.one_way import OneWay, accounted, running
from tests.support.running import positions, run_all
from tests.support.waiting import LONG_S, until

QUICKLY = {"topic_check_interval_ms": 100}


def test_a_deleted_topic_is_said_once_and_the_others_are_read_on(one_way: OneWay, said: Said) -> None:
    other = one_way.fresh.create("other")
    one_way.write(3)
    runner = one_way.runner(topics=[one_way.source, other], **QUICKLY)
    with running(runner) as raised:
        until(lambda: one_way.position() == 3)
        delete_topic(one_way.bootstrap, one_way.source)
        until(lambda: "was deleted" in said())
        produce_numbered(one_way.bootstrap, other, 4, partitions=1, value=lambda n: b'{"n":%d}' % n)
        until(lambda: positions(one_way.bootstrap, other, one_way.group) == {0: 4})
    assert raised == []
    assert said().count("was deleted") == 1


def test_a_deleted_topic_ends_the_run_in_order_where_the_config_says(one_way: OneWay) -> None:
    other = one_way.fresh.create("other")
    runner = one_way.runner(topics=[one_way.source, other], on_topic_change="stop", **QUICKLY)
    with running(runner) as raised:
        one_way.write(3)
        produce_numbered(one_way.bootstrap, other, 4, partitions=1, value=lambda n: b'{"n":%d}' % n)
        until(accounted(runner, 7))
        delete_topic(one_way.bootstrap, one_way.source)
        until(lambda: bool(raised))
    (error,) = raised
    assert isinstance(error, TopicsChangedError)
    assert "was deleted" in str(error)
    assert positions(one_way.bootstrap, other, one_way.group) == {0: 4}


def test_exactly_once_reads_on_when_a_topic_is_deleted_of_which_records_are_kept(one_way: OneWay, said: Said) -> None:
    other = one_way.fresh.create("other")
    runner = one_way.runner(
        *(CollectBatch(4, timeout_ms=60_000), ForEach()),
        delivery="exactly_once",
        topics=[one_way.source, other],
        **QUICKLY,
    )
    with running(runner) as raised:
        one_way.write(6)
        until(lambda: one_way.position() == 4)
        delete_topic(one_way.bootstrap, one_way.source)
        until(lambda: "was deleted" in said())
        produce_numbered(one_way.bootstrap, other, 6, start=6, partitions=1, value=lambda n: b'{"n":%d}' % n)
        until(lambda: positions(one_way.bootstrap, other, one_way.group) == {0: 6})
    assert raised == []
    # What was read of the topic before it went is worked on to its end.
    assert one_way.written() == list(range(12))


def test_under_exactly_once_a_topic_that_is_recreated_is_begun_anew_and_its_positions_are_confirmed(
    one_way: OneWay,
) -> None:
    one_way.write(5)
    runner = one_way.runner(delivery="exactly_once", on_out_of_range="earliest", **QUICKLY)
    with running(runner) as raised:
        until(lambda: one_way.position() == 5)
        one_way.make_anew()
        one_way.write(7, start=100)
        until(lambda: set(one_way.written()) >= set(range(100, 107)))
        until(lambda: one_way.position() == 7)
    assert raised == []


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_partitions_added_end_the_run_in_order_and_the_next_one_reads_them(
    one_way: OneWay, delivery: str, workers: int
) -> None:
    config = one_way.config(delivery=delivery, on_topic_change="stop", **QUICKLY)
    config["streaming"]["runtime"]["workers_per_process"] = workers
    runner = StreamingRunner.from_dict(one_way.flow(), config)
    with running(runner) as raised:
        one_way.write(3)
        until(accounted(runner, 3))
        admin = AdminClient({"bootstrap.servers": one_way.bootstrap})
        admin.create_partitions([NewPartitions(one_way.source, 2)])[one_way.source].result(LONG_S)
        until(lambda: bool(raised))
    (error,) = raised
    assert isinstance(error, TopicsChangedError)
    assert "2 partitions instead of 1" in str(error)
    produce_numbered(one_way.bootstrap, one_way.source, 4, start=3, partitions=2, value=lambda n: b'{"n":%d}' % n)
    run_all(one_way.flow(), config, 4)
    assert sorted(one_way.written()) == list(range(7))


@pytest.mark.parametrize("policy", ["fail", "earliest"])
@pytest.mark.parametrize("length", [2, 9], ids=["shorter", "longer"])
def test_a_topic_that_is_recreated_is_not_read_on_from_the_middle(
    one_way: OneWay, said: Said, policy: str, length: int
) -> None:
    one_way.write(5)
    runner = one_way.runner(on_out_of_range=policy, **QUICKLY)
    with running(runner) as raised:
        until(lambda: one_way.position() == 5)
        one_way.make_anew()
        one_way.write(length, start=100)
        if policy == "fail":
            until(lambda: bool(raised))
        else:
            until(lambda: set(one_way.written()) >= set(range(100, 100 + length)))
            until(lambda: one_way.position() == length)
    if policy == "fail":
        (error,) = raised
        assert isinstance(error, OffsetOutOfRangeError)
    else:
        assert raised == []
        assert "recreated" in said()


def test_at_start_a_topic_that_was_recreated_and_is_shorter_is_told(one_way: OneWay) -> None:
    one_way.write(5)
    run_all(one_way.flow(), one_way.config(), 5)
    one_way.make_anew()
    # The broker forgets a group's positions in a topic that is deleted; a tool may have put them back.
    reader = ConsumerClient(ConsumerSettings((one_way.bootstrap,), one_way.group))
    reader.group.commit_now({TopicPartition(one_way.source, 0): 5})
    reader.close()
    with pytest.raises(OffsetOutOfRangeError, match="recreated"):
        one_way.runner().run()


class Said:
    """All that was printed since the test began."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def __call__(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)
