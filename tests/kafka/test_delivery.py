"""The guarantees on Apache Kafka: killed, stopped, and with the broker away. The flow runs through the real command line."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.apache_kafka import ApacheKafka
from tests.support.broker import Broker
from tests.support.numbers_run import NumbersRun
from tests.support.waiting import LONG_S, until


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_nothing_is_lost_when_the_flow_is_killed_at_random_moments(
    kafka: Broker, tmp_path: Path, delivery: str
) -> None:
    run = NumbersRun(kafka, tmp_path, delivery=delivery)
    count = 60_000
    assert run.killed_at_random(count, rate=5_000, every=(1, 4), rng=random.Random(7)) >= 3
    run.assert_promise_kept(count)


@pytest.mark.parametrize(
    ("delivery", "workers"), [("at_least_once", 1), ("at_least_once", 2), ("exactly_once", 1), ("exactly_once", 2)]
)
def test_sigterm_under_load_ends_in_order_and_the_next_run_repeats_nothing(
    kafka: Broker, tmp_path: Path, delivery: str, workers: int
) -> None:
    run = NumbersRun(kafka, tmp_path, runtime={"workers_per_process": workers}, delivery=delivery)
    count = 40_000
    with run.flow, run.producing(count, rate=5_000) as producer:
        while producer.is_alive():
            run.flow.start()
            run.flow.await_line("flow_started")
            producer.join(2.5)
            run.stop()
        run.flow.start()
        run.await_all_confirmed()
        run.stop()
    verdict = run.verdict(count)
    assert verdict.exactly_once, verdict.describe()


def test_a_successor_takes_over_under_load_without_a_duplicate_and_its_predecessor_says_why_it_ends(
    kafka: Broker, tmp_path: Path
) -> None:
    run = NumbersRun(kafka, tmp_path, delivery="exactly_once")
    take_overs, load = 6, run.load(rate=1_500)
    instances = [run.flow.twin(f"instance-{number}.log") for number in range(take_overs + 1)]
    with ExitStack() as stack:
        for flow in instances:
            stack.enter_context(flow)
        # An instance that has nothing to write does not notice its successor.
        load.start()
        instances[0].start()
        for flow, successor in pairwise(instances):
            flow.await_line("flow_started")
            load.run_on(1.0)
            assert flow.alive, flow.tail()
            successor.start()
            assert flow.wait(LONG_S) == 8, flow.tail()
            assert "took over" in flow.output()
        count = load.finish()
        instances[-1].await_positions(run.bootstrap, run.group, run.source, run.ends())
        instances[-1].sigterm()
        assert instances[-1].wait(LONG_S) == 0, instances[-1].tail()
    verdict = run.verdict(count)
    assert verdict.exactly_once, verdict.describe()


def test_of_two_instances_that_share_a_group_one_notices_and_nothing_is_lost(kafka: Broker, tmp_path: Path) -> None:
    run = NumbersRun(kafka, tmp_path)
    load = run.load(rate=3_000)
    first, second = run.flow.twin("first.log"), run.flow.twin("second.log")
    with run.flow, first, second:
        load.start()
        first.start()
        first.await_positions(run.bootstrap, run.group, run.source, 5_000)
        second.start()
        until(lambda: not (first.alive and second.alive), lambda: "two instances went on side by side")
        ended = second if first.alive else first
        assert ended.wait(LONG_S) == 8, ended.tail()
        assert "Two instances of one flow share a group" in ended.output()
        for flow in (first, second):
            flow.kill_all()
        run.flow.start()
        count = load.finish()
        run.await_all_confirmed()
        run.stop()
    verdict = run.verdict(count)
    assert verdict.at_least_once, verdict.describe()


def test_a_broker_that_is_away_for_twenty_seconds_costs_no_record(breakable_kafka: ApacheKafka, tmp_path: Path) -> None:
    run = NumbersRun(breakable_kafka, tmp_path)
    count = 100_000
    with run.flow, run.producing(count, rate=3_000) as producer:
        run.flow.start()
        run.flow.await_positions(run.bootstrap, run.group, run.source, 5_000)
        breakable_kafka.stop()
        # The outage itself is what is tested, so it lasts as long as it says.
        time.sleep(20)
        breakable_kafka.start()
        producer.join()
        if not run.flow.alive:
            # Ending with a reason is allowed, as long as the next run goes on from there.
            assert run.flow.wait(LONG_S) != 0
            assert "loom:" in run.flow.output()
            run.flow.start()
        run.await_all_confirmed()
        run.stop()
    verdict = run.verdict(count)
    assert verdict.at_least_once, verdict.describe()


def test_a_plain_engine_start_stops_on_sigterm_as_the_runner_does(kafka: Broker, tmp_path: Path) -> None:
    run = NumbersRun(kafka, tmp_path)
    plain = tmp_path / "plain.py"
    plain.write_text(
        "import sys\n"
        "from datetime import timedelta\n"
        "from bytewax.run import cli_main\n"
        "from loom.core.config import ConfigContext\n"
        "from loom.streaming.bytewax import build_dataflow\n"
        "from loom.streaming.compiler import compile_flow\n"
        "from numbers_flow import flow\n"
        "plan = compile_flow(flow, config=ConfigContext.from_yaml(sys.argv[-1]))\n"
        "cli_main(build_dataflow(plan), workers_per_process=2, epoch_interval=timedelta(seconds=1))\n"
    )
    run.flow._command = [str(plain), str(tmp_path / "numbers.yaml")]
    load = run.load(rate=2_000)
    with run.flow:
        load.start()
        run.flow.start()
        run.flow.await_positions(run.bootstrap, run.group, run.source, 2_000)
        run.stop(says_start=False)
        run.flow.start()
        count = load.finish()
        run.await_all_confirmed()
        run.stop(says_start=False)
    verdict = run.verdict(count)
    assert verdict.exactly_once, verdict.describe()
