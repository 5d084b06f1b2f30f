"""Records that wait, on Apache Kafka: killed and stopped while batches are being collected."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.kafka.collecting_flow import DOUBLED_EVERY, REFUSED_EVERY
from tests.kafka.crash.verify import Verdict, seen, verify
from tests.support.broker import Broker
from tests.support.kafka_io import ReadRecord, read_all
from tests.support.numbers_run import PARTITIONS, NumbersRun

#: how many results a number may have
_MOST = 2


class CollectingRun(NumbersRun):
    """The same topics with the flow whose records wait. Result k of number n is known as n * 2 + k."""

    def verdict(self, count: int) -> Verdict:
        found = [
            one
            for topic in self.outputs.values()
            for one in seen(read_all(self.bootstrap, topic, isolation="read_committed"), _result_of)
        ]
        return verify(_expected(count), found, lambda result: result // _MOST % PARTITIONS)


def _expected(count: int) -> list[int]:
    return [
        n * _MOST + part
        for n in range(count)
        for part in range(2 if n % DOUBLED_EVERY == 0 and n % REFUSED_EVERY else 1)
    ]


def _result_of(record: ReadRecord) -> int:
    assert record.value is not None
    found = json.loads(record.value)
    return int(found["n"]) * _MOST + int(found.get("part", 0))


@pytest.mark.parametrize(("delivery", "workers"), [("at_least_once", 1), ("exactly_once", 1), ("exactly_once", 2)])
def test_collected_records_survive_being_killed(kafka: Broker, tmp_path: Path, delivery: str, workers: int) -> None:
    run = CollectingRun(kafka, tmp_path, target="collecting_flow:flow", delivery=delivery, workers=workers)
    count = 40_000
    assert run.killed_at_random(count, rate=4_000, every=(1.5, 3.5), rng=random.Random(11)) >= 2
    run.assert_promise_kept(count)


def test_a_stop_while_records_wait_leaves_them_to_the_next_run_which_repeats_nothing(
    kafka: Broker, tmp_path: Path
) -> None:
    run = CollectingRun(kafka, tmp_path, target="collecting_flow:flow", delivery="exactly_once")
    count = 12_000
    run.stopped_again_and_again(count, rate=4_000, every=1.2)
    run.assert_nothing_twice(count)
