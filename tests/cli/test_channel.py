"""What a supervised run and its supervisor tell each other."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from loom.cli.exit_codes import Exit
from loom.cli.supervisor.channel import MARK, ChildEnd, Report, SupervisorEnd
from loom.streaming.kafka import TopicPartition
from tests.support.die_with_parent import die_with_parent
from tests.support.waiting import LONG_S

A, B = TopicPartition("numbers", 0), TopicPartition("numbers", 1)


@pytest.fixture
def ends() -> Iterator[tuple[ChildEnd, SupervisorEnd]]:
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least that the kernel has: a few kilobytes
    supervisor = SupervisorEnd(ours)
    yield ChildEnd(theirs.detach()), supervisor
    supervisor.close()


def test_positions_and_faults_arrive_in_order(ends: tuple[ChildEnd, SupervisorEnd]) -> None:
    child, supervisor = ends
    child.moved({A: 1, B: 2})
    child.moved({A: 3})
    child.broker_fault()
    told, more = supervisor.read()
    assert more
    assert told == [Report({"numbers[0]": 1, "numbers[1]": 2}), Report({"numbers[0]": 3}), Report(broker=True)]


def test_a_supervisor_that_does_not_listen_holds_up_nobody_and_hears_the_last_positions_later(
    ends: tuple[ChildEnd, SupervisorEnd],
) -> None:
    child, supervisor = ends
    for position in range(10_000):
        child.moved({A: position, TopicPartition("numbers", position): position})
    child.moved({B: 7})
    heard: dict[str, int] = {}
    reports = 0
    for _ in range(1_000):
        told, _ = supervisor.read()
        reports += len(told)
        for report in told:
            heard.update(report.positions)
        child.moved({})
        if "numbers[9999]" in heard:
            break
    assert (heard["numbers[0]"], heard["numbers[1]"], heard["numbers[9999]"]) == (9_999, 7, 9_999)
    assert reports < 10_000


def test_a_run_that_has_ended_is_no_more_to_be_heard_of(ends: tuple[ChildEnd, SupervisorEnd]) -> None:
    child, supervisor = ends
    child.moved({A: 1})
    child._socket.close()
    assert supervisor.read() == ([Report({"numbers[0]": 1})], False)


DEAF = f"""
import signal, threading
signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
from loom.cli.supervisor.channel import ChildEnd
end = ChildEnd.from_environment()
assert ChildEnd.from_environment() is None, "the mark {MARK} is for this process alone"
end.orphan_limit_s = 0.2
print("ready", flush=True)
while True:
    threading.Event().wait(1)
"""


def test_a_run_that_does_not_stop_when_its_supervisor_is_gone_ends_all_the_same() -> None:
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        die_with_parent([sys.executable, "-c", DEAF]),
        env={**os.environ, MARK: str(theirs.fileno())},
        pass_fds=[theirs.fileno()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        theirs.close()
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert process.poll() is None
        ours.close()
        out, err = process.communicate(timeout=LONG_S)
    finally:
        process.kill()
    assert (process.returncode, out) == (Exit.FORCED, "asked\n")
    assert "the supervisor is gone" in err
