"""Who may write under exactly once, on Apache Kafka: also the writers of a layout that nobody starts any more."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from loom.streaming import StreamingRunner, step
from loom.streaming.kafka import FencedError, ProducerSettings, TopicPartition
from loom.streaming.kafka.consumer import ConsumerClient
from loom.streaming.kafka.offset_metadata import OffsetMetadata
from loom.streaming.kafka.settings import ConsumerSettings
from loom.streaming.kafka.transactions import State, Transactions
from tests.support.one_way import Number, OneWay, running
from tests.support.running import run_all, run_until
from tests.support.waiting import LONG_S, until


def writer_of(one_way: OneWay, index: int, count: int) -> Transactions:
    config = ProducerSettings((one_way.bootstrap,)).to_confluent_config()
    made = Transactions(
        config,
        f"{one_way.group}-standing-{index}",
        metadata=lambda topic: f"loom-writers={count}",
        waiting=lambda what: None,
    )
    made.fence()
    return made


def group_of(one_way: OneWay) -> Any:
    reader = ConsumerClient(ConsumerSettings((one_way.bootstrap,), one_way.group))
    return reader.group_metadata()


def metadata_of(one_way: OneWay) -> OffsetMetadata:
    reader = ConsumerClient(ConsumerSettings((one_way.bootstrap,), one_way.group))
    try:
        committed = reader.group.committed([TopicPartition(one_way.source, 0)])
        return OffsetMetadata.parse(committed[TopicPartition(one_way.source, 0)].metadata)
    finally:
        reader.close()


def test_a_start_of_another_layout_fences_the_writers_that_are_gone_too(one_way: OneWay) -> None:
    """Writers of a layout of three that nobody starts any more, stopped for a while and then awake again."""
    one_way.write(6)
    old = [writer_of(one_way, index, 3) for index in range(3)]
    old[1].begin()
    old[1].producer.produce(one_way.out, b'{"n":999}', partition=0)
    old[1].commit({TopicPartition(one_way.source, 0): 2}, group_of(one_way))
    old[2].begin()
    old[2].producer.produce(one_way.out, b'{"n":998}', partition=0)
    old[2].producer.flush(LONG_S)
    assert metadata_of(one_way).writers == 3

    runner = one_way.runner(delivery="exactly_once")
    with running(runner) as raised:
        until(lambda: one_way.position() == 6)
        for index, writer in enumerate(old):

            def go_on(writer: Transactions = writer) -> None:
                if writer.state is State.READY:
                    writer.begin()
                writer.producer.produce(one_way.out, b'{"n":997}', partition=0)
                writer.commit({TopicPartition(one_way.source, 0): 3}, group_of(one_way))

            with pytest.raises(FencedError, match=f"standing-{index}"):
                go_on()
    assert raised == []
    assert (metadata_of(one_way).flow, metadata_of(one_way).writers) == ("standing", 1)
    # One of theirs was committed before; what they left open or tried since is not there.
    assert one_way.written() == [999, 2, 3, 4, 5]
    assert one_way.position() == 6


@pytest.mark.parametrize("note", ["", "a note of somebody's", "loom-writers=many", "loom-writers=1000000"])
def test_positions_with_unreadable_metadata_are_taken_over_with_our_own_writer_fenced(
    one_way: OneWay, note: str
) -> None:
    one_way.write(6)
    foreign = Transactions(
        ProducerSettings((one_way.bootstrap,)).to_confluent_config(),
        f"{one_way.group}-standing-0",
        metadata=lambda topic: note,
        waiting=lambda what: None,
    )
    foreign.fence()
    foreign.begin()
    foreign.commit({TopicPartition(one_way.source, 0): 4}, group_of(one_way))
    run_all(one_way.flow(), one_way.config(delivery="exactly_once"), 2)
    assert one_way.written() == [4, 5]
    assert (metadata_of(one_way).flow, metadata_of(one_way).writers) == ("standing", 1)


def test_the_number_of_writers_is_kept_before_anything_is_read(one_way: OneWay) -> None:
    run_until(one_way.runner(delivery="exactly_once"), lambda _: one_way.position() == 0)
    assert (metadata_of(one_way).flow, metadata_of(one_way).writers) == ("standing", 1)


@pytest.mark.parametrize("before", [0, 4], ids=["a new group", "one that has positions"])
def test_one_that_stood_still_past_the_time_out_while_a_successor_went_on_is_fenced_and_must_not_start_again(
    one_way: OneWay, before: int
) -> None:
    """The broker says the same of a transaction that it ended itself; where the group stands tells which it was."""
    if before:
        # Then the run commits nothing at its start.
        one_way.write(before)
        run_all(one_way.flow(), one_way.config(delivery="exactly_once"), before)
    one_way.write(3, start=before)
    reached, awake = threading.Event(), threading.Event()

    @step
    def stands_still(number: Number) -> Number:
        if number.n == before + 1 and not reached.is_set():
            reached.set()
            awake.wait(LONG_S)
        return number

    config = one_way.config(delivery="exactly_once", batch_size=1)
    config["kafka"]["producer"]["extra"] |= {"transaction.timeout.ms": 1_000}
    config["streaming"]["runtime"]["epoch_interval_ms"] = 250
    with running(StreamingRunner.from_dict(one_way.flow(stands_still), config)) as raised:
        assert reached.wait(LONG_S)
        stood_still_at = time.monotonic()
        run_all(one_way.flow(stands_still), config, before + 3 - len(one_way.written()))
        until(lambda: time.monotonic() - stood_still_at > 2)
        awake.set()
        until(lambda: bool(raised))
    assert isinstance(raised[0], FencedError), raised
    assert "another process took over" in str(raised[0])
    assert one_way.written() == list(range(before + 3))


def test_a_transaction_that_outlasted_the_brokers_patience_is_aborted_and_taken_up_again_in_place(
    one_way: OneWay,
) -> None:
    """One record that takes longer than the time-out: nothing of its epoch is visible, and the same run reads it again."""
    one_way.write(3)
    seen: list[int] = []

    @step
    def slow(number: Number) -> Number:
        seen.append(number.n)
        if number.n == 2 and seen.count(2) == 1:
            # The broker looks each second for transactions that are over.
            assert not threading.Event().wait(3)
        return number

    config = one_way.config(delivery="exactly_once", batch_size=1)
    config["kafka"]["producer"]["extra"] |= {"transaction.timeout.ms": 1_000}
    # Long enough that the first records open the transaction in which the slow one stands.
    config["streaming"]["runtime"]["epoch_interval_ms"] = 250
    with running(StreamingRunner.from_dict(one_way.flow(slow), config)) as raised:
        until(lambda: one_way.position() == 3)
    assert raised == []
    assert seen.count(2) > 1
    assert one_way.written() == [0, 1, 2]
