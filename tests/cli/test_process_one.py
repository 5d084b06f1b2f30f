"""As process 1 of a container, where the kernel applies no default action: signals are heard all the same."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from loom.streaming.testing import BrokerTopics
from tests.cli.conftest import Loom
from tests.support.die_with_parent import die_with_parent
from tests.support.waiting import LONG_S

NAMESPACE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
IMPORTS = """
import time
print("importing", flush=True)
time.sleep(60)
"""
PROGRAM = """
import flows
from loom.streaming import StreamingRunner

StreamingRunner.from_yaml(flows.hanging, "loom.yaml").run()
"""


class ProcessOne:
    """A command as process 1 of a namespace of its own."""

    def __init__(self, loom: Loom, *arguments: str) -> None:
        self.log = loom.directory / "output"
        with self.log.open("wb") as output:
            self._outer = subprocess.Popen(
                die_with_parent([*NAMESPACE, sys.executable, *arguments]),
                cwd=loom.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**loom.environment(), "PYTHONPATH": f"{loom.environment()['PYTHONPATH']}:{loom.directory}"},
            )

    def await_line(self, pattern: str) -> None:
        """Wait until it has written such a line."""
        until = time.monotonic() + LONG_S
        while not re.search(pattern, self.log.read_text(), re.MULTILINE):
            assert self._outer.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.02)

    def sigterm(self) -> None:
        """Signal process 1 itself, as a container's runtime does."""
        (inner,) = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        os.kill(int(inner), signal.SIGTERM)

    def wait(self) -> int:
        """What it ended with."""
        return self._outer.wait(LONG_S)

    def kill(self) -> None:
        """Leave nothing behind."""
        self._outer.kill()
        self._outer.wait()


@pytest.fixture
def process_one(loom: Loom) -> Iterator[type[ProcessOne]]:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare on this machine")
    tried = subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"this machine allows no PID namespace: {tried.stderr.strip()}")
    started: list[ProcessOne] = []

    class Started(ProcessOne):
        def __init__(self, *arguments: str) -> None:
            super().__init__(loom, *arguments)
            started.append(self)

    yield Started  # type: ignore[misc]
    for process in started:
        process.kill()


@pytest.fixture
def hanging(loom: Loom, broker: EmbeddedBroker) -> Loom:
    """A config for a flow that hangs in its first record."""
    topics = BrokerTopics(broker)
    topics.create("numbers")
    topics.create("out")
    topics.produce_records([KafkaRecord("numbers", None, b'{"n":1}')])
    loom.config(bootstrap=broker.bootstrap)
    return loom


def test_a_signal_is_heard_while_the_flow_is_imported(loom: Loom, process_one: type[ProcessOne]) -> None:
    (loom.directory / "slow.py").write_text(IMPORTS)
    process = process_one("-m", "loom.cli.main", "check", "slow:flow", "-c", str(loom.config()))
    process.await_line("^importing")
    process.sigterm()
    assert process.wait() == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    "program", [("-m", "loom.cli.main", "run", "flows:hanging", "-c", "loom.yaml"), ("-c", PROGRAM)]
)
def test_a_second_signal_ends_a_run_whose_step_hangs(
    hanging: Loom, process_one: type[ProcessOne], program: tuple[str, ...]
) -> None:
    process = process_one(*program)
    process.await_line("^stuck")
    process.sigterm()
    time.sleep(0.2)  # two signals at once are one
    process.sigterm()
    assert process.wait() == 128 + signal.SIGTERM
