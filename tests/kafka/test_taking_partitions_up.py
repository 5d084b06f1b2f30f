"""How soon a member of a group reads what it is given, and shows what it made of it, on Apache Kafka."""

from __future__ import annotations

import logging

import pytest

from loom.streaming import StreamingRunner
from tests.support.kafka_io import produce_numbered
from tests.support.one_way import OneWay, accounted, running
from tests.support.waiting import LONG_S, until

#: milliseconds; no epoch of a test ends by itself while it waits
LONG_EPOCH, LONG_TRANSACTION = 200_000, 800_000
assert LONG_EPOCH > LONG_S * 1_000


def test_the_first_records_of_each_partition_that_was_taken_up_end_the_epoch_early(one_way: OneWay) -> None:
    one_way.source = one_way.fresh.create("in", 2)
    config = one_way.config(delivery="exactly_once", membership="group")
    config["streaming"]["runtime"]["epoch_interval_ms"] = LONG_EPOCH
    config["kafka"]["producer"]["transaction_timeout_ms"] = LONG_TRANSACTION
    runner = StreamingRunner.from_dict(one_way.flow(), config)
    with running(runner) as raised:
        for n in range(2):
            produce_numbered(
                one_way.bootstrap, one_way.source, 1, start=n, partitions=2, value=lambda n: b'{"n":%d}' % n
            )
            until(lambda n=n: len(one_way.written()) == n + 1)
    assert raised == []


def test_a_member_that_had_no_partition_does_not_search_for_the_topic_when_it_is_given_one(
    one_way: OneWay, caplog: pytest.LogCaptureFixture
) -> None:
    one_way.write(1)
    runner = one_way.runner(membership="group", extra={"debug": "topic"})
    with caplog.at_level(logging.DEBUG, "loom.streaming.kafka.client"), running(runner) as raised:
        until(accounted(runner, 1))
    assert raised == []
    # What the client says of a topic that it reads and has to look for, which it does once a second.
    assert "metadata information unknown" not in caplog.text
    assert "START" in caplog.text
