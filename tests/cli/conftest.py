"""The command line as its users have it: a process of its own, in a folder with a module of flows and a config.

Nearly all of them are forked from one process that has done the imports (`ForkServer`).
Every config holds a password that nothing may ever print; `Loom` looks for it in all that a command writes.
"""

from __future__ import annotations

import copy
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.flow_process import SOURCES
from tests.support.fork_server import ForkedProcess, ForkServer
from tests.support.running import NOBODY, QUICK
from tests.support.waiting import LONG_S

SECRET = "hunter2-is-nobodys-business"

FLOWS = '''
"""Flows for tests of the command line."""

import hashlib
import time

from loom.core.model import LoomFrozenStruct
from loom.streaming import ErrorKind, ErrorRoute, FromTopic, IntoTopic
from loom.streaming import Process, StreamFlow, With, step


class Number(LoomFrozenStruct):
    n: int


class Text(LoomFrozenStruct):
    text: str


@step
def positive(number: Number) -> Number:
    if number.n < 0:
        raise ValueError("a negative number")
    return number


@step
def shout(text: Text) -> Text:
    return Text(text.text.upper())


@step
def stuck(number: Number) -> Number:
    print("stuck", flush=True)
    while True:
        time.sleep(0.05)


@step
def deaf(number: Number) -> Number:
    """Minutes in C code, which hears no signal."""
    print("deaf", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
    return number


@step
def dawdle(number: Number) -> Number:
    time.sleep(0.003)
    return number


source = FromTopic("numbers", Number)
numbers = StreamFlow("numbers", source, Process(positive), IntoTopic("out"))
everything = StreamFlow(
    "everything", source, Process(positive), IntoTopic("out", dlq="refused"), IntoTopic("errors")
)
mistyped = StreamFlow("mistyped", source, Process(shout), IntoTopic("out"))
dawdling = StreamFlow("dawdling", source, Process(dawdle), IntoTopic("out"))
hanging = StreamFlow("hanging", source, Process(stuck), IntoTopic("out"))
scoped = StreamFlow("scoped", source, Process(With(process=Process(positive), prices={})), IntoTopic("out"))
deafened = StreamFlow("deafened", source, Process(deaf), IntoTopic("out"))


class Lines:
    """A sink that writes one line for each message."""

    sink_type = "lines"
    config_type = Text

    @classmethod
    def build_binding(cls, cfg, ctx):
        from loom.streaming.bytewax import RuntimeSinkBinding

        made = cls()
        made.path = cfg.text
        return RuntimeSinkBinding("terminal", made)

    def build_partition(self, config, worker_index, worker_count, bridge=None, session_manager=None):
        self.file = open(self.path, "a")
        return self

    def write_batch(self, items):
        self.file.writelines(f"{item.payload.n}\\n" for item in items)

    def flush(self):
        self.file.flush()

    def close(self):
        self.file.close()
'''


@dataclass(frozen=True)
class Told:
    """What a command wrote, and what it ended with."""

    code: int
    out: str
    err: str

    @property
    def messages(self) -> list[str]:
        """What Loom itself says on stderr, a message each."""
        parts = ("\n" + self.err).split("\nloom: ")
        return [part.strip() for part in parts[1:]]


class Loom:
    """Runs commands in one folder."""

    def __init__(self, directory: Path, server: ForkServer) -> None:
        self.directory = directory
        self.server = server
        (directory / "flows.py").write_text(FLOWS)

    def config(self, change: Callable[[dict[str, Any]], object] | None = None, *, bootstrap: str = NOBODY) -> Path:
        """Write a config, changed in one place, and return its file."""
        security = {"protocol": "PLAINTEXT", "sasl_username": "ann", "sasl_password": SECRET}
        made = {
            "kafka": {
                "consumer": {
                    "brokers": [bootstrap],
                    "group_id": "readers",
                    "delivery": "at_least_once",
                    "security": security,
                },
                "producer": {"brokers": [bootstrap], "security": security, "extra": dict(QUICK)},
            },
            "streaming": {"runtime": {"epoch_interval_ms": 50}},
        }
        made = copy.deepcopy(made)
        if change is not None:
            change(made)
        return self.write(yaml.safe_dump(made, sort_keys=False))

    def write(self, text: str) -> Path:
        """Write a config as it stands."""
        file = self.directory / "loom.yaml"
        file.write_text(text)
        return file

    def start(self, *arguments: str | Path) -> ForkedProcess:
        """Start a command."""
        return self.server.start(["loom.cli.main", *map(str, arguments)], cwd=self.directory, env=self.environment())

    def __call__(self, *arguments: str | Path, timeout: float = LONG_S) -> Told:
        """Run a command to its end."""
        return self.end(self.start(*arguments), timeout)

    def end(self, process: ForkedProcess, timeout: float = LONG_S) -> Told:
        """Wait for a command to end."""
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise TimeoutError(f"it has not ended after {timeout} s:\n{out}\n{err}") from None
        assert SECRET not in out + err, "a secret was printed"
        return Told(process.wait(), out, err)

    @staticmethod
    def environment() -> Mapping[str, str]:
        """That of a user who knows nothing of this checkout but where it is."""
        return {**os.environ, "PYTHONPATH": str(SOURCES), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """What the processes of these tests are forked from."""
    with ForkServer() as server:
        yield server


@pytest.fixture
def loom(tmp_path: Path, fork_server: ForkServer) -> Loom:
    """The command, in a folder of its own."""
    return Loom(tmp_path, fork_server)
