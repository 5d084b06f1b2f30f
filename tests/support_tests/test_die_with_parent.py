"""A test run that is killed takes its brokers and flows with it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.die_with_parent import die_with_parent
from tests.support.processes import command_name, gone_within
from tests.support.waiting import LONG_S

ROOT = Path(__file__).resolve().parents[2]

STARTS_A_SLEEPER_AND_WAITS = """
import subprocess, sys, time
from tests.support.die_with_parent import die_with_parent
child = subprocess.Popen(die_with_parent(["sleep", "60"]), start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone can bind a process to its parent")
def test_a_process_in_its_own_session_is_gone_when_its_parent_was_killed() -> None:
    program = [sys.executable, "-c", STARTS_A_SLEEPER_AND_WAITS]
    parent = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert parent.stdout is not None
        sleeper = int(parent.stdout.readline())
        _await_name(sleeper, "sleep")
    finally:
        parent.kill()
        parent.communicate()

    assert gone_within(LONG_S, sleeper)


def test_the_command_runs_under_the_process_id_that_its_parent_sees() -> None:
    command = [sys.executable, "-c", "import os, sys; print(os.getpid(), *sys.argv[1:]); sys.exit(7)", "a b", "c"]

    child = subprocess.Popen(die_with_parent(command), stdout=subprocess.PIPE, text=True)
    output, _ = child.communicate(timeout=LONG_S)

    assert output == f"{child.pid} a b c\n"
    assert child.returncode == 7


def _await_name(process: int, name: str) -> None:
    deadline = time.monotonic() + LONG_S
    while time.monotonic() < deadline:
        if command_name(process) == name:
            return
        time.sleep(0.01)
    raise AssertionError(f"process {process} never became {name}")
