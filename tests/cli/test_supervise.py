"""`loom run` with `streaming.supervision.restarts`: what fails is started again, until that is of no use."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from loom.cli.exit_codes import Exit
from loom.streaming.kafka import EmbeddedBroker
from tests.cli.supervised import Supervised, impatient, long_pauses, patient, write, written
from tests.support.fork_server import ForkServer
from tests.support.processes import gone_within
from tests.support.running import positions
from tests.support.waiting import LONG_S

Start = Callable[..., Supervised]


@pytest.fixture
def served(broker: EmbeddedBroker) -> EmbeddedBroker:
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    return broker


@pytest.fixture
def supervised(served: EmbeddedBroker, tmp_path: Path, fork_server: ForkServer) -> Iterator[Start]:
    started: list[Supervised] = []

    def start(**settings: Any) -> Supervised:
        settings = {"server": fork_server, **settings}
        flow = Supervised(settings.pop("bootstrap", served.bootstrap), tmp_path, **settings)
        started.append(flow)
        flow.start()
        return flow

    yield start
    for flow in started:
        flow.kill_all()


def stop(flow: Supervised) -> None:
    flow.sigterm()
    assert flow.wait(LONG_S) == Exit.DONE, flow.output()


def test_a_run_that_crashed_goes_on_where_it_stood(served: EmbeddedBroker, supervised: Start) -> None:
    """As its users have it: new interpreters, and real pauses."""
    write(served, "", "", "once", "", "")
    flow = supervised(server=None)
    flow.await_confirmed(served.bootstrap, 5)
    stop(flow)
    assert set(written(served)) == set(range(5))
    assert "killed by SIGABRT" in flow.output()
    assert flow.output().count("flow_started") == 2


@pytest.mark.parametrize(
    ("end", "code", "told"),
    [
        ("abort", 128 + signal.SIGABRT, "killed by SIGABRT"),
        ("exit", 1, "exit code 1, not by the runner"),
        ("raise", 1, "exit code 1"),
    ],
)
def test_a_run_that_does_not_move_on_stays_down_in_the_end_and_names_where_it_stood(
    served: EmbeddedBroker, supervised: Start, end: str, code: int, told: str
) -> None:
    write(served, "", "")
    flow = supervised(restarts=1)
    flow.await_confirmed(served.bootstrap, 2)
    write(served, end, start=2)
    assert flow.wait(LONG_S) == code, flow.output()
    last = [line for line in flow.output().splitlines() if line.startswith("loom: the flow ended")]
    assert len(last) == 1, flow.output()
    assert f"2 times without advancing ({told}, {told})" in last[0]
    assert "numbers[0]@2" in last[0]
    assert "streaming.supervision.restarts is 1" in last[0]
    assert positions(served.bootstrap, "numbers")[0] == 2


def test_the_budget_is_renewed_when_positions_move_on(served: EmbeddedBroker, supervised: Start) -> None:
    flow = supervised(restarts=1)
    for n in range(3):
        write(served, "once", start=n)
        flow.await_confirmed(served.bootstrap, n + 1)
    stop(flow)
    # Three crashes on a budget of one.
    assert flow.output().count("killed by SIGABRT") == 3
    assert flow.restarts_left() == [0, 0, 0]
    assert set(written(served)) == {0, 1, 2}


@pytest.mark.parametrize(
    ("mistake", "code"),
    [("no-such-flow", Exit.USAGE), ("unknown-key", Exit.CONFIG), ("unregistered-sink", Exit.CONFIG)],
)
def test_a_mistake_is_told_once(
    served: EmbeddedBroker, tmp_path: Path, fork_server: ForkServer, mistake: str, code: Exit
) -> None:
    flow = Supervised(served.bootstrap, tmp_path, server=fork_server)
    file = tmp_path / "loom.yaml"
    config = yaml.safe_load(file.read_text())
    if mistake == "no-such-flow":
        (tmp_path / "ends.py").write_text("")
    elif mistake == "unknown-key":
        config["kafka"]["consumer"]["group_idd"] = "readers"
    else:
        config["streaming"]["sinks"] = {"store": {"type": "none"}}
    file.write_text(yaml.safe_dump(config))
    with flow:
        flow.start()
        assert flow.wait(LONG_S) == code, flow.output()
    assert "flow_restarting" not in flow.output()
    assert flow.output().count("loom: ") == 1


def test_sigterm_is_passed_on_and_the_flow_ends_in_order(served: EmbeddedBroker, supervised: Start) -> None:
    write(served, "", "", "")
    flow = supervised()
    flow.await_confirmed(served.bootstrap, 3)
    child = flow.child
    stop(flow)
    assert gone_within(LONG_S, child)
    assert "flow_restarting" not in flow.output()


def test_signals_that_reach_both_processes_are_one(served: EmbeddedBroker, supervised: Start) -> None:
    """As from a terminal or an init system, which signal the whole group. The stop takes as long as it may."""
    write(served, "hang")
    flow = supervised(runtime={"force_shutdown_timeout_ms": 3_000})
    flow.await_line("^hanging")
    os.kill(flow.child, signal.SIGTERM)
    time.sleep(0.2)  # two signals at once are one
    assert flow.alive
    flow.sigterm()
    assert flow.wait(LONG_S) == Exit.FORCED, flow.output()


def test_a_second_sigterm_forces_the_end(served: EmbeddedBroker, supervised: Start) -> None:
    write(served, "hang")
    flow = supervised()
    flow.await_line("^hanging")
    child = flow.child
    flow.sigterm()
    flow.await_line("signal_forwarded")
    assert flow.alive
    flow.sigterm()
    assert flow.wait(LONG_S) == 128 + signal.SIGTERM, flow.output()
    assert gone_within(LONG_S, child)


def test_a_stop_during_a_pause_ends_at_once_with_what_the_last_run_ended_with(
    served: EmbeddedBroker, supervised: Start
) -> None:
    write(served, "raise")
    flow = supervised(restarts=9, setup=long_pauses)
    flow.await_line(r"flow_restarting.*pause_s=3600")
    flow.sigterm()
    assert flow.wait(LONG_S) == Exit.FAILED, flow.output()


def test_a_run_whose_supervisor_is_killed_ends_in_order(served: EmbeddedBroker, supervised: Start) -> None:
    write(served, "", "")
    flow = supervised(server=None)
    flow.await_confirmed(served.bootstrap, 2)
    child = flow.child
    flow.sigkill()
    assert gone_within(LONG_S, child)
    assert "the supervisor is gone" in flow.output()
    assert positions(served.bootstrap, "numbers")[0] == 2


def test_a_run_that_hangs_while_its_supervisor_is_killed_ends_too(served: EmbeddedBroker, supervised: Start) -> None:
    write(served, "hang")
    flow = supervised(runtime={"force_shutdown_timeout_ms": 300})
    flow.await_line("^hanging")
    child = flow.child
    flow.sigkill()
    assert gone_within(LONG_S, child)


@pytest.mark.slow
def test_a_broker_that_is_away_does_not_spend_the_budget(served: EmbeddedBroker, supervised: Start) -> None:
    flow = supervised(restarts=1, bootstrap="127.0.0.1:1", setup=impatient)
    flow.await_line("no broker answered")
    assert flow.restarts_left() == [1]
    flow.sigterm()
    assert flow.wait(LONG_S) in (Exit.ENVIRONMENT, 128 + signal.SIGTERM, Exit.DONE)


def test_killing_the_run_from_outside_does_not_spend_the_budget(served: EmbeddedBroker, supervised: Start) -> None:
    flow = supervised(restarts=1, observability={"prometheus": {"config": {"port": 0}}})
    for starts in range(1, 4):
        flow.await_starts(starts)
        # Wait until it stands somewhere, so that it is the same place each time.
        flow.await_confirmed(served.bootstrap, 0)
        os.kill(flow.child, signal.SIGKILL)
    flow.await_starts(4)
    # Each run serves anew, and none counts from 0.
    url = re.findall(r"metrics_server_started .*url=(\S+)", flow.output())[-1]
    assert 'loom_restarts_total{flow="perhaps"} 3.0' in httpx.get(url, timeout=LONG_S).text
    stop(flow)
    assert flow.output().count("killed by SIGKILL") == 3
    assert set(flow.restarts_left()) == {1}


def test_without_restarts_there_is_no_child(served: EmbeddedBroker, supervised: Start) -> None:
    flow = supervised(restarts=0)
    flow.await_confirmed(served.bootstrap, 0)
    assert flow.children() == []
    stop(flow)


def test_a_run_that_stands_still_is_started_again_and_counts(served: EmbeddedBroker, supervised: Start) -> None:
    write(served, "")
    flow = supervised(restarts=1, runtime={"force_shutdown_timeout_ms": 200}, supervision={"stall_timeout_ms": 3_000})
    flow.await_confirmed(served.bootstrap, 1)
    write(served, "hang", start=1)
    assert flow.wait(LONG_S) == Exit.STALLED, flow.output()
    assert "2 times without advancing (exit code 9, exit code 9)" in flow.output()
    assert "numbers[0] at 1 (lag 1)" in flow.output()
    assert "in perhaps" in flow.output()


def test_a_stop_while_the_broker_is_away_at_the_start_is_quick(fork_server: ForkServer, tmp_path: Path) -> None:
    """With and without a supervisor, by either signal; side by side, since each waits for most of its time."""
    with contextlib.ExitStack() as all_of_them:
        flows: list[tuple[Supervised, int]] = []
        for restarts, number in itertools.product((0, 1), (signal.SIGTERM, signal.SIGINT)):
            directory = tmp_path / f"{restarts}-{number.name}"
            directory.mkdir()
            flow = Supervised("127.0.0.1:1", directory, restarts=restarts, server=fork_server, setup=patient)
            flows.append((all_of_them.enter_context(flow), number))
            flow.start()
        for flow, number in flows:
            flow.await_line("broker_check_started")
            os.kill(flow.pid, number)
        for flow, _ in flows:
            assert flow.wait(LONG_S) == Exit.DONE, flow.output()
