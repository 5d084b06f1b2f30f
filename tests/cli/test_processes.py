"""`loom run --processes`: several processes under one supervisor, each with its partitions."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loom.cli import processes
from loom.cli.exit_codes import Exit
from loom.cli.supervisor.prefixed_output import PrefixedOutput
from loom.core.config import ConfigContext
from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, step
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from tests.cli.supervised import Supervised, written
from tests.support.fork_server import ForkServer
from tests.support.processes import gone_within
from tests.support.running import config_for, positions, produce
from tests.support.waiting import LONG_S

Start = Callable[..., Supervised]


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


@pytest.fixture
def served(broker: EmbeddedBroker) -> EmbeddedBroker:
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    return broker


@pytest.fixture
def start(served: EmbeddedBroker, tmp_path: Path, fork_server: ForkServer) -> Iterator[Start]:
    started: list[Supervised] = []

    def begin(*arguments: str, environment: dict[str, str] | None = None, **settings: Any) -> Supervised:
        flow = Supervised(served.bootstrap, tmp_path, server=fork_server, **settings).variant(
            *arguments, **(environment or {})
        )
        started.append(flow)
        flow.start()
        return flow

    yield begin
    for flow in started:
        flow.kill_all()


def write_everywhere(broker: EmbeddedBroker, *numbers: int, ends: str = "") -> None:
    produce(
        broker.bootstrap,
        "numbers",
        *(KafkaRecord("numbers", None, b'{"n":%d,"end":"%s"}' % (n, ends.encode()), partition=n % 4) for n in numbers),
    )


def await_all(flow: Supervised, broker: EmbeddedBroker, each: int) -> None:
    flow.await_positions(broker.bootstrap, "readers", "numbers", dict.fromkeys(range(4), each))


def stop(flow: Supervised) -> None:
    flow.sigterm()
    assert flow.wait(LONG_S) == Exit.DONE, flow.output()


def test_two_processes_share_the_partitions_and_one_sigterm_stops_both(served: EmbeddedBroker, start: Start) -> None:
    write_everywhere(served, *range(8))
    flow = start("--processes", "2", restarts=0)
    await_all(flow, served, 2)
    stop(flow)
    assert sorted(written(served)) == list(range(8))
    starts = re.findall(r"^\[(\d)\] .*flow_started.*process=(\d).*processes=(\d)", flow.output(), re.MULTILINE)
    assert sorted(starts) == [("0", "0", "2"), ("1", "1", "2")]
    assert flow.output().count("flow_stopped") == 2
    # All that the processes write is behind their number; what is not is the supervisor's.
    assert set(re.findall(r"^(?!\[[01]\] ).*?([a-z]+_[a-z]+)", flow.output(), re.MULTILINE)) == {"signal_forwarded"}


def test_one_that_is_killed_is_restarted_alone(served: EmbeddedBroker, start: Start) -> None:
    write_everywhere(served, *range(4))
    flow = start("--processes", "2", restarts=0)
    await_all(flow, served, 1)
    before = set(flow.children())
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    line = flow.await_line("flow_restarting")
    assert "killed by SIGKILL" in line
    write_everywhere(served, *range(4, 12))
    await_all(flow, served, 3)
    assert before - {killed} <= set(flow.children())
    assert len(flow.children()) == 2
    stop(flow)
    assert set(written(served)) == set(range(12))
    assert len(re.findall("flow_started", flow.output())) == 3


def test_one_that_is_stopped_alone_is_followed_by_another(served: EmbeddedBroker, start: Start) -> None:
    flow = start("--processes", "2", restarts=0)
    await_all(flow, served, 0)
    flow.await_starts(2)
    os.kill(max(flow.children()), signal.SIGTERM)
    flow.await_starts(3)
    write_everywhere(served, *range(4))
    await_all(flow, served, 1)
    stop(flow)


def test_one_that_stays_down_takes_the_others_with_it(served: EmbeddedBroker, start: Start) -> None:
    write_everywhere(served, *range(4))
    flow = start("--processes", "2", restarts=1)
    await_all(flow, served, 1)
    write_everywhere(served, 5, ends="raise")
    assert flow.wait(LONG_S) == Exit.FAILED, flow.output()
    assert "[1] loom: the flow ended 2 times without advancing" in flow.output()
    assert "processes_stopping" in flow.output()
    assert flow.output().count("SIGTERM") >= 1
    assert positions(served.bootstrap, "numbers") == {0: 1, 1: 1, 2: 1, 3: 1}


def test_when_the_supervisor_is_killed_the_processes_stop_in_order(served: EmbeddedBroker, start: Start) -> None:
    write_everywhere(served, *range(4))
    flow = start("--processes", "2", restarts=0)
    await_all(flow, served, 1)
    children = flow.children()
    flow.sigkill()
    assert all(gone_within(LONG_S, child) for child in children)
    # They go on writing, where the supervisor wrote.
    assert flow.output().count("the supervisor is gone") == 2
    assert flow.output().count("flow_stopped") == 2


def test_a_second_sigterm_kills_what_hangs(served: EmbeddedBroker, start: Start) -> None:
    write_everywhere(served, 0, ends="hang")
    flow = start("--processes", "2", restarts=0)
    flow.await_line(r"^\[0\] hanging")
    children = flow.children()
    flow.sigterm()
    flow.await_line("signal_forwarded")
    flow.sigterm()
    assert flow.wait(LONG_S) == 128 + signal.SIGTERM
    assert all(gone_within(LONG_S, child) for child in children)


def test_more_processes_than_partitions_are_refused(start: Start) -> None:
    flow = start("--processes", "5", restarts=3)
    assert flow.wait(LONG_S) == Exit.CONFIG, flow.output()
    assert "5 processes share the topics of the flow (numbers), and the largest has 4 partitions" in flow.output()
    assert "flow_restarting" not in flow.output()


@pytest.mark.bytewax
def test_each_process_has_a_recovery_store_and_another_number_of_them_is_refused(
    served: EmbeddedBroker, start: Start, tmp_path: Path
) -> None:
    """What a store knows of a partition without an offset is not overridden by process 0."""
    write_everywhere(served, *range(8))
    runtime = {"recovery": {"db_dir": str(tmp_path / "state")}}
    flow = start("--processes", "2", restarts=0, runtime=runtime)
    await_all(flow, served, 2)
    stop(flow)
    # Another group has no offsets: without the stores it would begin at the beginning.
    again = start("--processes", "2", restarts=0, runtime=runtime, consumer={"group_id": "others"})
    again.await_positions(served.bootstrap, "others", "numbers", dict.fromkeys(range(4), 2))
    stop(again)
    assert sorted(written(served)) == list(range(8))
    three = start("--processes", "3", restarts=0, runtime=runtime)
    assert three.wait(LONG_S) == Exit.ENVIRONMENT
    assert "was written by 2 processes, and this flow runs as 3 processes" in three.output()


def test_members_of_a_group_may_be_more_than_there_are_partitions(served: EmbeddedBroker, start: Start) -> None:
    write_everywhere(served, *range(8))
    flow = start("--processes", "5", restarts=0, consumer={"membership": "group"})
    flow.await_starts(5)
    await_all(flow, served, 2)
    stop(flow)
    assert set(written(served)) == set(range(8))


@pytest.mark.parametrize("asked", ["0", "65", "two", "-1"])
def test_what_is_no_number_of_processes_is_refused(start: Start, asked: str) -> None:
    flow = start(f"--processes={asked}", restarts=0)
    assert flow.wait(LONG_S) == Exit.USAGE
    assert "--processes: must be a number from 1 to 64, or auto" in flow.output()


@pytest.mark.parametrize(
    ("environment", "runtime", "named"),
    [
        ({"LOOM_PROCESS_ID": "0"}, {}, "LOOM_PROCESS_ID"),
        ({"LOOM_ADDRESSES": "a:1,b:2"}, {}, "LOOM_ADDRESSES"),
        ({}, {"process_id": 0, "addresses": ["a:1", "b:2"]}, "streaming.runtime.addresses"),
    ],
)
def test_the_option_and_another_layout_are_refused_together(
    start: Start, environment: dict[str, str], runtime: dict[str, Any], named: str
) -> None:
    flow = start("--processes", "2", environment=environment, runtime=runtime, restarts=0)
    assert flow.wait(LONG_S) == Exit.CONFIG
    assert f"{named}: cannot be combined with --processes" in flow.output()


def test_processes_that_something_else_starts(served: EmbeddedBroker, start: Start) -> None:
    """As containers are: process 1 waits until process 0 has taken the group over."""
    write_everywhere(served, *range(4))
    second = start(environment={"LOOM_PROCESS_ID": "1", "LOOM_PROCESSES": "2"}, restarts=0)
    second.await_line("broker_check_started")
    first = second.twin("first.log").variant(LOOM_PROCESS_ID="0")
    with first:
        first.start()
        await_all(first, served, 1)
        first.sigterm()
        assert first.wait(LONG_S) == Exit.DONE
    stop(second)
    assert "layout_claimed" in first.output()
    assert sorted(written(served)) == list(range(4))


def test_a_process_without_process_0_gives_up_and_says_why(start: Start) -> None:
    flow = start(
        environment={"LOOM_PROCESS_ID": "1", "LOOM_PROCESSES": "2"}, restarts=0, consumer={"start_timeout_ms": 300}
    )
    assert flow.wait(LONG_S) == Exit.ENVIRONMENT
    assert "gave up waiting for process 0 of 2 to take over the group's offsets" in flow.output()
    assert "process 0 is not running" in flow.output()


def test_auto_is_one_for_each_core_and_never_more_than_there_are_partitions(
    served: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = StreamFlow("numbers", FromTopic("numbers", Number), Process(same), IntoTopic("out"))
    settings = ConfigContext.from_dict(config_for(served.bootstrap))
    for cores, expected in ((2, 2), (16, 4)):
        monkeypatch.setattr(processes, "cores", lambda cores=cores: cores)
        assert processes.process_count("auto", lambda: flow, settings) == expected


def test_a_quota_of_the_container_counts_as_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(processes, "_QUOTA", quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for text, expected in (("250000 100000", 3), ("max 100000", 8), ("50000 100000", 1), ("nonsense", 8)):
        quota.write_text(text)
        assert processes.cores() == expected


def test_lines_are_passed_on_whole(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        output = PrefixedOutput("[3] ", out.fileno())
        os.write(output.write_end, b"one\ntw")
        output.pass_on()
        assert (tmp_path / "out").read_bytes() == b"[3] one\n"
        os.write(output.write_end, b"o\nthree")
        output.started()
        output.close()
    assert (tmp_path / "out").read_bytes() == b"[3] one\n[3] two\n[3] three\n"
