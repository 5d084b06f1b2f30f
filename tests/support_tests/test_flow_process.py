"""The process that crash tests kill: what it reports is what happened. A stand-in for the command line is run here."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.support.flow_process import FlowProcess
from tests.support.processes import command_name, gone_within
from tests.support.waiting import LONG_S

STAND_IN = """
import os, signal, subprocess, sys, time
print("arguments", *sys.argv[1:])
print("read", open(sys.argv[4]).read(), os.environ["COLOUR"])
if "--end" in sys.argv:
    sys.exit(3)
if "--child" in sys.argv:
    print("child", subprocess.Popen(["sleep", "60"]).pid)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("ready")
time.sleep(60)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A folder whose `loom.cli.main`, found before the real one, only tells how it was called."""
    package = tmp_path / "loom" / "cli"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "main.py").write_text(STAND_IN)
    (tmp_path / "loom.yaml").write_text("config")
    return tmp_path


def flow(directory: Path, *arguments: str) -> FlowProcess:
    config = directory / "loom.yaml"
    return FlowProcess(
        "orders:flow", config=config, directory=directory, arguments=arguments, environment={"COLOUR": "green"}
    )


def test_it_is_started_through_the_command_line(directory: Path) -> None:
    with flow(directory, "--end") as process:
        assert process.start().wait(LONG_S) == 3
        assert process.output().splitlines()[:2] == [
            f"arguments run orders:flow --config {directory}/loom.yaml --end",
            "read config green",
        ]


def test_sigterm_lets_it_end_by_itself(directory: Path) -> None:
    with flow(directory) as process:
        process.start().await_line("ready")
        assert process.alive
        process.sigterm()
        assert process.wait(LONG_S) == 0
        assert not process.alive


def test_after_a_kill_it_can_be_started_again(directory: Path) -> None:
    with flow(directory) as process:
        process.start().await_line("ready")
        killed = process.pid
        process.sigkill()
        assert process.wait(0) == -signal.SIGKILL

        process.start().await_line("ready")
        assert process.pid != killed
        assert process.output().count("ready") == 1  # of this start alone


def test_waiting_for_what_never_comes_ends_with_the_process_and_shows_its_output(directory: Path) -> None:
    with flow(directory, "--end") as process, pytest.raises(RuntimeError, match=r"(?s)ended with 3:.*read config"):
        process.start().await_line("no such line")


def test_waiting_has_a_deadline(directory: Path) -> None:
    with flow(directory) as process:
        with pytest.raises(TimeoutError, match="no such line"):
            process.start().await_line("no such line", timeout=0.1)
        with pytest.raises(TimeoutError, match="has not ended"):
            process.wait(0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_leaving_the_block_takes_its_children_too(directory: Path) -> None:
    with flow(directory, "--child") as process:
        child = int(process.start().await_line("^child").split()[1])
        process.await_line("ready")
        assert command_name(child) == "sleep"

    assert gone_within(LONG_S, child)
