"""Retries in flight, on Apache Kafka: killed and stopped while records wait for their next call."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.kafka.retrying_flow import ATTEMPTS, HOPELESS_EVERY, REFUSED_EVERY
from tests.support.broker import Broker
from tests.support.kafka_io import ReadRecord, read_all
from tests.support.numbers_run import NumbersRun


class RetryingRun(NumbersRun):
    """The topics of the numbers with the flow whose step fails."""

    def assert_errors_are_the_hopeless(self, count: int) -> None:
        letters = read_all(self.bootstrap, self.outputs["errors"], isolation="read_committed")
        found = {_number_of(letter): dict(letter.headers) for letter in letters}
        assert set(found) == {n for n in range(count) if n % REFUSED_EVERY == 0 or n % HOPELESS_EVERY == 0}
        for n, headers in found.items():
            attempts = headers.get("x-error-attempts")
            assert attempts == (None if n % REFUSED_EVERY == 0 else str(ATTEMPTS).encode())


def _number_of(record: ReadRecord) -> int:
    assert record.value is not None
    return int(json.loads(record.value)["n"])


@pytest.mark.parametrize(
    ("delivery", "workers", "flow"),
    [("at_least_once", 1, "flow"), ("exactly_once", 2, "flow"), ("exactly_once", 1, "scoped_flow")],
)
def test_records_that_wait_for_their_next_call_survive_a_kill(
    kafka: Broker, tmp_path: Path, delivery: str, workers: int, flow: str
) -> None:
    run = RetryingRun(kafka, tmp_path, target=f"retrying_flow:{flow}", delivery=delivery, workers=workers)
    count = 16_000
    assert run.killed_at_random(count, rate=4_000, every=(1.2, 2.5), rng=random.Random(7)) >= 1
    run.assert_promise_kept(count)
    run.assert_errors_are_the_hopeless(count)


def test_a_stop_leaves_records_that_wait_to_the_next_run_which_repeats_nothing(kafka: Broker, tmp_path: Path) -> None:
    run = RetryingRun(kafka, tmp_path, target="retrying_flow:flow", delivery="exactly_once")
    count = 8_000
    run.stopped_again_and_again(count, rate=4_000, every=1.0)
    run.assert_nothing_twice(count)
    run.assert_errors_are_the_hopeless(count)
