"""Positions on Apache Kafka: gaps in the log, and logs that were cut. What no imitation does."""

from __future__ import annotations

import threading

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from loom.streaming import step
from loom.streaming.kafka import ConsumerSettings, OffsetOutOfRangeError, TopicPartition
from loom.streaming.kafka.consumer import ConsumerClient
from tests.support.kafka_io import end_offsets, read_all
from tests.support.one_way import Number, OneWay, accounted, nothing, running
from tests.support.running import run_all, run_until
from tests.support.waiting import LONG_S, until


@pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once", "exactly_once"])
def test_gaps_in_offsets_at_the_end_of_a_log_hold_up_no_position(one_way: OneWay, delivery: str) -> None:
    """Transaction markers and aborted records: a lag tool must see a lag of zero, and retention no lost position."""
    writer = Producer({"bootstrap.servers": one_way.bootstrap, "transactional.id": one_way.group})
    writer.init_transactions()
    for ending in (writer.commit_transaction, writer.abort_transaction, writer.commit_transaction):
        writer.begin_transaction()
        for n in range(3):
            writer.produce(one_way.source, b'{"n":%d}' % n, partition=0)
        writer.flush()
        ending()
    ends = end_offsets(one_way.bootstrap, one_way.source)
    assert ends == {0: 12}
    run_until(one_way.runner(delivery=delivery), lambda _: one_way.position() == 12)
    assert one_way.written() == [0, 1, 2] * 2


def test_of_many_partitions_those_move_that_were_read_and_pass_the_markers_of_transactions(one_way: OneWay) -> None:
    topics = [one_way.fresh.create("many", 20) for _ in range(2)]
    written = [TopicPartition(topics[0], 3), TopicPartition(topics[1], 3), TopicPartition(topics[1], 7)]
    writer = Producer({"bootstrap.servers": one_way.bootstrap, "transactional.id": one_way.group})
    writer.init_transactions()
    client = ConsumerClient(ConsumerSettings(one_way.bootstrap, one_way.group))
    client.begin({TopicPartition(topic, number): 0 for topic in topics for number in range(20)})
    moved: dict[TopicPartition, int] = {}

    def has_moved(by: int) -> bool:
        client.read(10, 0.05)
        moved.update(client.moved())
        return moved == dict.fromkeys(written, by)

    for times, ending in ((1, writer.commit_transaction), (2, writer.abort_transaction)):
        writer.begin_transaction()
        for partition in written:
            writer.produce(partition.topic, b"", partition=partition.partition)
        writer.flush()
        ending()
        until(lambda times=times: has_moved(2 * times))
    client.close()


@pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once", "exactly_once"])
def test_positions_advance_though_every_record_was_filtered_out(one_way: OneWay, delivery: str) -> None:
    one_way.write(50)
    run_until(one_way.runner(nothing, delivery=delivery), lambda _: one_way.position() == 50)
    assert one_way.written() == []


def test_any_lag_tool_sees_the_group(one_way: OneWay) -> None:
    one_way.write(7)
    run_all(one_way.flow(), one_way.config(), 7)
    admin = AdminClient({"bootstrap.servers": one_way.bootstrap})
    assert one_way.group in {group.group_id for group in admin.list_consumer_groups().result(LONG_S).valid}


@pytest.mark.parametrize(("policy", "expected"), [("earliest", [5, 6, 7, 8, 9, 10, 11]), ("latest", [10, 11])])
@pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once", "exactly_once"])
def test_at_start_a_cut_log_is_gone_on_with_where_the_config_says(
    one_way: OneWay, capsys: pytest.CaptureFixture[str], policy: str, expected: list[int], delivery: str
) -> None:
    one_way.write(3)
    run_all(one_way.flow(), one_way.config(delivery=delivery), 3)
    one_way.write(7, start=3)
    one_way.cut(5)
    # "Latest" is a moment: what comes after it is read.
    runner = one_way.runner(delivery=delivery, on_out_of_range=policy)
    with running(runner) as raised:
        until(lambda: one_way.position() == (5 if policy == "earliest" else 10) or accounted(runner, 5)())
        one_way.write(2, start=10)
        until(accounted(runner, len(expected)))
    assert raised == []
    assert one_way.written() == [0, 1, 2, *expected]
    told = capsys.readouterr().err
    assert told.count("] offset_reset ") == 1
    assert "records_deleted_unread=2" in told
    assert f"records_skipped={0 if policy == 'earliest' else 5}" in told


@pytest.mark.parametrize("policy", ["fail", "earliest", "latest"])
def test_a_running_consumer_whose_log_is_cut_before_it_does_as_the_config_says(
    one_way: OneWay, capsys: pytest.CaptureFixture[str], policy: str
) -> None:
    hold, held = threading.Event(), threading.Event()

    @step
    def slow(number: Number) -> Number:
        if number.n == 0:
            held.set()
            assert hold.wait(LONG_S)
        return number

    # Nothing is fetched ahead, so that what is cut has not been read yet.
    runner = one_way.runner(
        slow,
        on_out_of_range=policy,
        batch_size=1,
        extra={"queued.min.messages": 1, "queued.max.messages.kbytes": 1, "fetch.max.bytes": 1_000, **SMALL_FETCHES},
    )
    # A batch of the broker's is handed out whole, so each record has one of its own.
    writer = Producer({"bootstrap.servers": one_way.bootstrap, "batch.num.messages": 1, "linger.ms": 0})
    for n in range(40):
        writer.produce(one_way.source, b'{"n":%d}' % n + b" " * 600, partition=0)
    writer.flush()
    with running(runner) as raised:
        assert held.wait(LONG_S)
        one_way.cut(38)
        hold.set()
        if policy == "fail":
            until(lambda: bool(raised))
        else:
            until(lambda: (one_way.position() or 0) == 40)
    if policy == "fail":
        (error,) = raised
        assert isinstance(error, OffsetOutOfRangeError)
        assert "on_out_of_range" in str(error)
        return
    assert raised == []
    told = capsys.readouterr().err
    assert told.count("] offset_reset ") == 1
    found = [
        int((record.value or b"").split(b":")[1].split(b"}")[0]) for record in read_all(one_way.bootstrap, one_way.out)
    ]
    assert found[-2:] == [38, 39] if policy == "earliest" else 38 not in found
    assert 30 not in found


#: the client takes no less than this in one answer
SMALL_FETCHES = {"max.partition.fetch.bytes": 1_000, "message.max.bytes": 1_000, "fetch.wait.max.ms": 10}
