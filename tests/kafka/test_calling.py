"""Async calls in flight, on Apache Kafka: killed and stopped meanwhile."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.kafka.calling_flow import FAILED_EVERY, REFUSED_EVERY
from tests.support.broker import Broker
from tests.support.kafka_io import read_all
from tests.support.numbers_run import NumbersRun


class CallingRun(NumbersRun):
    """The topics of the numbers with the flow whose step is a call."""

    def assert_errors_are_known(self, count: int) -> None:
        letters = read_all(self.bootstrap, self.outputs["errors"], isolation="read_committed")
        found = {int(json.loads(letter.value or b"")["n"]) for letter in letters}
        assert found == {n for n in range(count) if n % REFUSED_EVERY == 0 or n % FAILED_EVERY == 0}


@pytest.mark.parametrize(("delivery", "workers"), [("at_least_once", 1), ("exactly_once", 2)])
def test_calls_in_progress_survive_a_kill(kafka: Broker, tmp_path: Path, delivery: str, workers: int) -> None:
    run = CallingRun(kafka, tmp_path, target="calling_flow:flow", delivery=delivery, workers=workers)
    count = 16_000
    assert run.killed_at_random(count, rate=4_000, every=(1.2, 2.5), rng=random.Random(11)) >= 1
    run.assert_promise_kept(count)
    run.assert_errors_are_known(count)


def test_a_stop_finishes_the_calls_in_progress_and_repeats_nothing(kafka: Broker, tmp_path: Path) -> None:
    run = CallingRun(kafka, tmp_path, target="calling_flow:flow", delivery="at_least_once")
    count = 6_000
    run.stopped_again_and_again(count, rate=4_000, every=1.0)
    run.assert_nothing_twice(count)
    run.assert_errors_are_known(count)
