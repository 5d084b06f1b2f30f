"""`loom run`: a flow in a process of its own, until somebody stops it or something fails."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from loom.cli.exit_codes import Exit
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from tests.cli.conftest import SECRET, Loom
from tests.support.flow_process import FlowProcess
from tests.support.running import content, positions, produce
from tests.support.waiting import LONG_S, until

TOPICS = ("numbers", "out", "errors", "refused")


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in TOPICS:
        broker.create_topic(topic)
    return broker.bootstrap


def write(bootstrap: str, *values: int) -> None:
    produce(bootstrap, "numbers", *(KafkaRecord("numbers", None, b'{"n":%d}' % n, partition=n % 2) for n in values))


class Running(FlowProcess):
    """A `loom run` whose output is looked through for the secret when it has ended."""

    def wait(self, timeout: float = LONG_S) -> int:
        code = super().wait(timeout)
        assert SECRET not in self.output(), "a secret was printed"
        return code


@pytest.fixture
def run(loom: Loom, bootstrap: str) -> Iterator[Any]:
    started: list[Running] = []

    def start(flow: str = "flows:everything", change: Any = None, *arguments: str) -> Running:
        config = loom.config(change, bootstrap=bootstrap)
        process = Running(flow, config=config, directory=loom.directory, arguments=arguments, server=loom.server)
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.kill_all()


@pytest.mark.parametrize("workers", [1, 3])
def test_it_runs_until_it_is_stopped_and_has_confirmed_all_it_wrote(bootstrap: str, run: Any, workers: int) -> None:
    write(bootstrap, *range(20))
    flow = run(change=lambda config: config["streaming"]["runtime"].update(workers_per_process=workers))
    flow.await_positions(bootstrap, "readers", "numbers", 20)
    flow.sigterm()
    assert flow.wait() == Exit.DONE, flow.output()
    assert positions(bootstrap, "numbers") == {0: 10, 1: 10, 2: 0, 3: 0}
    written = sorted(int((record.value or b"")[5:-1]) for record in content(bootstrap, "out")["out"])
    assert written == list(range(20))
    assert "Traceback" not in flow.output()


def test_a_stop_in_the_middle_and_a_new_start_lose_and_repeat_nothing(bootstrap: str, run: Any) -> None:
    def small_batches(config: dict[str, Any]) -> None:
        config["kafka"]["consumer"]["batch_size"] = 1
        config["streaming"]["runtime"]["workers_per_process"] = 2

    write(bootstrap, *range(400))
    flow = run("flows:dawdling", small_batches)
    flow.await_positions(bootstrap, "readers", "numbers", 1)
    flow.sigterm()
    assert flow.wait() == Exit.DONE, flow.output()
    once = sum(positions(bootstrap, "numbers").values())
    assert len(content(bootstrap, "out")["out"]) == once
    assert 0 < once < 400
    flow.start()
    flow.await_positions(bootstrap, "readers", "numbers", 400)
    flow.sigterm()
    assert flow.wait() == Exit.DONE, flow.output()
    written = sorted(int((record.value or b"")[5:-1]) for record in content(bootstrap, "out")["out"])
    assert written == list(range(400))


def test_an_interrupt_is_a_stop_as_well(bootstrap: str, run: Any) -> None:
    import os

    write(bootstrap, 1)
    flow = run()
    flow.await_positions(bootstrap, "readers", "numbers", 1)
    os.kill(flow.pid, signal.SIGINT)
    assert flow.wait() == Exit.DONE, flow.output()


def test_an_idle_flow_stops_at_once(bootstrap: str, run: Any) -> None:
    flow = run()
    flow.await_positions(bootstrap, "readers", "numbers", {0: 0, 1: 0, 2: 0, 3: 0})
    flow.sigterm()
    assert flow.wait() == Exit.DONE, flow.output()


def test_a_failed_run_tells_kind_step_record_and_cause(bootstrap: str, run: Any) -> None:
    write(bootstrap, 2, -4)
    flow = run("flows:numbers")
    assert flow.wait() == Exit.FAILED
    told = flow.output()
    (message,) = [line for line in told.splitlines() if line.startswith("loom: ")]
    for one in ("task error", "numbers.positive", "numbers[0]@1", "a negative number"):
        assert one in message
    # That of the author's own code, and none of ours.
    assert told.count("Traceback") == 1
    assert "/loom/" not in told


def test_a_failed_run_says_nothing_of_the_engines_insides(bootstrap: str, run: Any) -> None:
    write(bootstrap, -4)
    flow = run("flows:numbers")
    assert flow.wait() == Exit.FAILED
    assert "panicked" not in flow.output()
    assert ".rs:" not in flow.output()


def test_with_several_workers_a_failed_run_tells_the_same(bootstrap: str, run: Any) -> None:
    write(bootstrap, *range(20), -4)
    flow = run("flows:numbers", lambda config: config["streaming"]["runtime"].update(workers_per_process=2), "--debug")
    assert flow.wait() == Exit.FAILED
    told = flow.output()
    assert "task error at numbers.positive" in told
    assert "Traceback" in told
    assert 'raise ValueError("a negative number")' in told


def test_errors_go_to_their_route_and_the_run_goes_on(bootstrap: str, run: Any) -> None:
    write(bootstrap, 2, -4, 6)
    flow = run()
    flow.await_positions(bootstrap, "readers", "numbers", 3)
    flow.sigterm()
    assert flow.wait() == Exit.DONE, flow.output()
    found = content(bootstrap, "out", "errors")
    assert ([record.value for record in found["errors"]], len(found["out"])) == ([b'{"n":-4}'], 2)


def test_a_stop_that_takes_too_long_ends_the_process(bootstrap: str, run: Any) -> None:
    write(bootstrap, 1)
    flow = run("flows:hanging", lambda config: config["streaming"]["runtime"].update(force_shutdown_timeout_ms=200))
    flow.await_line("^stuck")
    flow.sigterm()
    assert flow.wait() == Exit.FORCED
    assert "force_shutdown_timeout_ms" in flow.output()
    assert sum(positions(bootstrap, "numbers").values()) == 0


def test_the_time_of_a_stop_begins_with_the_signal_whatever_the_main_thread_does(bootstrap: str, run: Any) -> None:
    write(bootstrap, 1)
    flow = run("flows:deafened", lambda config: config["streaming"]["runtime"].update(force_shutdown_timeout_ms=200))
    flow.await_line("^deaf")
    flow.sigterm()
    assert flow.wait() == Exit.FORCED, flow.output()


def test_a_second_signal_ends_a_process_whose_main_thread_hears_none(bootstrap: str, run: Any) -> None:
    write(bootstrap, 1)
    flow = run("flows:deafened")
    flow.await_line("^deaf")
    flow.sigterm()
    assert flow.sigterm_again() == 128 + signal.SIGTERM, flow.output()
    assert "a second SIGTERM came" in flow.output()


def test_a_second_signal_ends_a_process_that_does_not_stop(bootstrap: str, run: Any) -> None:
    write(bootstrap, 1)
    flow = run("flows:hanging")
    flow.await_line("^stuck")
    flow.sigterm()
    assert flow.sigterm_again() in (-signal.SIGTERM, 128 + signal.SIGTERM)


def test_a_position_out_of_range_is_told(loom: Loom, bootstrap: str) -> None:
    client = Consumer({"bootstrap.servers": bootstrap, "group.id": "readers", "enable.auto.commit": False})
    client.commit(offsets=[TopicPartition("numbers", 0, 77)], asynchronous=False)
    client.close()
    told = loom("run", "flows:everything", "-c", loom.config(bootstrap=bootstrap))
    assert told.code == Exit.ENVIRONMENT
    assert "numbers[0]" in told.messages[-1]
    assert "77" in told.messages[-1]
    assert "Traceback" not in told.err


def test_a_recovery_directory_that_cannot_be_written_is_told(loom: Loom, bootstrap: str) -> None:
    taken = loom.directory / "taken"
    taken.write_text("a file")

    def recovering(config: dict[str, Any]) -> None:
        config["streaming"]["runtime"]["recovery"] = {"db_dir": str(taken / "state")}

    told = loom("run", "flows:everything", "-c", loom.config(recovering, bootstrap=bootstrap))
    assert told.code == Exit.ENVIRONMENT
    assert len(told.messages) == 1
    assert str(taken / "state") in told.messages[0]
    assert "Traceback" not in told.err


@pytest.mark.parametrize(("client", "workers"), [("consumer", 2), ("producer", 1)])
def test_a_client_that_refuses_its_configuration_is_told_without_values(
    loom: Loom, bootstrap: str, client: str, workers: int
) -> None:
    def odd(config: dict[str, Any]) -> None:
        config["kafka"][client]["extra"] = {"no.such.property": SECRET}
        config["streaming"]["runtime"]["workers_per_process"] = workers

    write(bootstrap, 1)
    told = loom("run", "flows:everything", "-c", loom.config(odd, bootstrap=bootstrap))
    assert told.code != Exit.DONE
    assert "no.such.property" in told.messages[-1]
    assert "Traceback" not in told.err


def test_a_sink_that_cannot_be_opened_is_told(loom: Loom, bootstrap: str) -> None:
    def nowhere(config: dict[str, Any]) -> None:
        config["streaming"]["sinks"] = {"store": {"type": "lines", "text": "/nowhere/at/all"}}
        config["streaming"]["runtime"]["workers_per_process"] = 2

    write(bootstrap, 1)
    told = loom("run", "flows:everything", "-c", loom.config(nowhere, bootstrap=bootstrap), "--sink", "flows:Lines")
    assert told.code == Exit.FAILED
    assert "/nowhere/at/all" in told.messages[-1]


def test_a_sink_given_on_the_command_line_may_be_named_in_the_config(bootstrap: str, run: Any, loom: Loom) -> None:
    lines = loom.directory / "lines.txt"

    def named(config: dict[str, Any]) -> None:
        config["streaming"]["sinks"] = {"store": {"type": "lines", "text": str(lines)}}

    write(bootstrap, 1, 2, 3)
    flow = run("flows:everything", named, "--sink", "flows:Lines")
    flow.await_positions(bootstrap, "readers", "numbers", 3)
    flow.sigterm()
    assert flow.wait() == Exit.DONE, flow.output()
    assert sorted(lines.read_text().split()) == ["1", "2", "3"]


PLAIN = """
from datetime import timedelta
import flows
from bytewax.run import cli_main
from loom.core.config import ConfigContext
from loom.streaming import compile_flow
from loom.streaming.bytewax import build_dataflow

plan = compile_flow(flows.everything, config=ConfigContext.from_yaml("loom.yaml"))
cli_main(build_dataflow(plan), epoch_interval=timedelta(milliseconds=50), workers_per_process={workers})
print("ended in order")
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_dataflow_under_the_engines_own_runner_stops_in_order_too(
    loom: Loom, bootstrap: str, tmp_path: Path, workers: int
) -> None:
    import subprocess
    import sys

    from tests.support.die_with_parent import die_with_parent

    loom.config(bootstrap=bootstrap)
    write(bootstrap, *range(20))
    process = subprocess.Popen(
        die_with_parent([sys.executable, "-c", PLAIN.format(workers=workers)]),
        cwd=loom.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**loom.environment(), "PYTHONPATH": f"{loom.environment()['PYTHONPATH']}:{loom.directory}"},
    )
    try:
        until(lambda: process.poll() is not None or sum(positions(bootstrap, "numbers").values()) == 20)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=LONG_S)
    finally:
        process.kill()
    assert (process.returncode, out.splitlines()[-1]) == (0, "ended in order")
    assert positions(bootstrap, "numbers") == {0: 10, 1: 10, 2: 0, 3: 0}
    assert len(content(bootstrap, "out")["out"]) == 20
