"""`loom dev`: a flow on a broker of its own, what it writes and what fails on the screen, and again when a file changes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from loom.cli.exit_codes import Exit
from tests.cli.conftest import Loom
from tests.support.flow_process import SOURCES
from tests.support.waiting import LONG_S

FLOW = """
from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, step


class Number(LoomFrozenStruct):
    n: int
    text: str | None = None


@step
def double(number: Number) -> Number:
    if number.n < 0:
        raise RuleViolation("negative")
    return Number(number.n * 2)


flow = StreamFlow("doubling", FromTopic("numbers", Number), Process(double), IntoTopic("doubled"), IntoTopic("failed"))
"""
CONFIG = """
kafka:
  consumer:
    brokers: "10.255.255.1:9092"
    group_id: g
    delivery: exactly_once
    membership: group
    group_instance_id: a
    security: {protocol: SASL_SSL, sasl_username: u}
  producer: {brokers: "10.255.255.1:9092", extra: {linger.ms: 50}}
  producers: {failed: {topic: failed-v2, brokers: "10.255.255.2:9092"}}
streaming: {supervision: {restarts: 3}, engine: loop, runtime: {workers_per_process: 2, async_backend: asyncio}}
"""


@pytest.fixture
def project(loom: Loom) -> Loom:
    (loom.directory / "doubling.py").write_text(FLOW)
    (loom.directory / "config.yaml").write_text(CONFIG)
    (loom.directory / "pyproject.toml").write_text('[tool.loom]\nflow = "doubling:flow"\n')
    return loom


def test_what_is_written_and_what_fails_is_shown_decoded_whatever_cluster_the_config_names(project: Loom) -> None:
    (project.directory / "in.jsonl").write_text('{"n": 1}\n{"n": -1}\n{"n": "x"}\nno JSON\n')
    told = project("dev", "--input", "in.jsonl", "--once")
    assert told.code == Exit.DONE, told.err
    lines = sorted(told.out.splitlines())
    assert 'doubled  {"n":2,"text":null}' in lines
    at = f"{project.directory}/doubling.py:15"
    assert f'failed-v2  business in doubling.double: negative at {at}  {{"n":-1,"text":null}}' in lines
    assert [line for line in lines if "wire in doubling.source: Expected `int`, got `str`" in line]
    assert [line for line in lines if line.endswith('  "no JSON"')]
    assert "-- 4 read, 1 written, 0 dropped, 3 failed (1 business, 2 wire)" in lines


def test_the_cells_of_a_csv_file_become_what_the_type_says(project: Loom) -> None:
    (project.directory / "in.csv").write_text("n,text\n3,a\n4,\n")
    told = project("dev", "-i", "in.csv", "--once", "--key", "n")
    found = [line for line in told.out.splitlines() if line.startswith("doubled")]
    assert sorted(found) == ['doubled  key=3  {"n":6,"text":null}', 'doubled  key=4  {"n":8,"text":null}']


def test_payloads_are_made_up_from_the_type_and_the_same_again(project: Loom) -> None:
    first, again = (project("dev", "--generate", "--count", "20", "--once") for _ in range(2))
    assert "-- 20 read, 20 written, 0 dropped, 0 failed" in first.out
    assert sorted(first.out.splitlines()) == sorted(again.out.splitlines())
    assert sorted(first.out.splitlines()) != sorted(
        project("dev", "--generate", "--count", "20", "--once", "--seed", "1").out.splitlines()
    )


def test_a_folder_without_a_flow_is_not_watched(loom: Loom) -> None:
    told = loom("dev")
    assert told.code == Exit.USAGE
    assert "no flow is named" in told.err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--once",), Exit.USAGE, "--once needs input that ends"),
        (("--input", "nowhere.jsonl", "--once"), Exit.USAGE, "nowhere.jsonl cannot be read"),
        (("--generate", "--input", "in.jsonl"), Exit.USAGE, "exclude each other"),
        (("doubling:flwo", "-n", "1", "--once"), Exit.USAGE, "did you mean doubling:flow"),
    ],
)
def test_what_cannot_be_run_is_one_message(project: Loom, arguments: tuple[str, ...], code: Exit, says: str) -> None:
    told = project("dev", *arguments)
    assert told.code == code
    assert says in told.messages[0]
    assert "Traceback" not in told.err


class Session:
    """`loom dev` as a person has it in a terminal."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.output = directory / "output.txt"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "loom.cli.main", "dev", *arguments],
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(SOURCES), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def until(self, seen: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + LONG_S
        while not seen(text := self.output.read_text()):
            assert self.process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.05)
        return text


@pytest.fixture
def session(project: Loom) -> Iterator[Callable[..., Session]]:
    started: list[Session] = []

    def start(*arguments: str) -> Session:
        started.append(Session(project.directory, *arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
        one.process.wait(LONG_S)


def test_a_change_of_the_flow_a_mistake_in_it_and_its_repair_are_taken_up(
    project: Loom, session: Callable[..., Session]
) -> None:
    running = session("--input", "-")
    assert running.process.stdin is not None
    running.process.stdin.write(json.dumps({"n": 5}).encode() + b"\n")
    running.process.stdin.flush()
    shown = running.until(lambda text: 'doubled  {"n":10' in text and "-- live: " in text)
    page = re.findall(r"^-- live: (http://127\.0\.0\.1:\d+/)$", shown, re.MULTILINE)[0]
    assert httpx.get(f"{page}live.json", timeout=LONG_S).json()["flow"] == "doubling"

    flow = project.directory / "doubling.py"
    flow.write_text(FLOW.replace("number.n * 2", "number.n * "))
    running.until(lambda text: "changed: doubling.py" in text and "SyntaxError" in text)
    flow.write_text(FLOW.replace("number.n * 2", "number.n * 3"))
    running.until(lambda text: 'doubled  {"n":15' in text)

    running.process.terminate()
    assert running.process.wait(LONG_S) in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    assert "Traceback" not in running.output.read_text().partition("SyntaxError")[2]
