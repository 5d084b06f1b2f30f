"""A node, a wire format, a sink and a command of a package that Loom knows nothing of, found by their entry points."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.wheels import EXTRAS, build_wheel, install_wheel

SOURCES = Path(__file__).parents[3] / "src"

FLOW = """
from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, step
from loom_extras.nodes import Every


class Number(LoomFrozenStruct):
    value: int


@step
def double(number: Number) -> Number:
    if number.value == 4:
        raise ValueError("four")
    return Number(2 * number.value)


flow = StreamFlow("numbers", FromTopic("in", Number), Process(Every(2), double, Every(1, name="all")), IntoTopic("out"))
"""

RUN = """
import json
from flows import Number, flow
from loom.streaming.testing import StreamingTestRunner

runner = StreamingTestRunner.from_flow(flow).capture_errors("task")
runner.with_payloads([Number(n) for n in range(1, 8)]).run()
print(json.dumps([m.payload.value for m in runner.output]))
print(json.dumps([e.reason for e in runner.errors["task"]]))
"""

FRAMED = """
import json
from flows import flow
from loom.streaming.kafka import KafkaRecord
from loom.streaming.testing import StreamingTestRunner

kafka = {"consumer": {"brokers": ["x:1"], "group_id": "g"}, "producer": {"brokers": ["x:1"]}}
for client in kafka.values():
    client["format"] = "prefixed"
runner = StreamingTestRunner.from_flow(flow, {"kafka": kafka}).capture_errors("wire")
values = [b'\\x06number{"value":%d}' % n for n in (1, 2)] + [b"\\x09cut"]
runner.with_records([KafkaRecord("in", None, value) for value in values]).run()
print(json.dumps([record.value.decode("latin-1") for record in runner.written("out")]))
print(json.dumps([error.reason for error in runner.errors["wire"]]))
"""

CONFIG = """
kafka:
  consumer: {brokers: ["localhost:9092"], group_id: readers, delivery: at_least_once}
  producer: {brokers: ["localhost:9092"]}
streaming:
  sinks:
    failures: {type: file, path: errors.txt}
"""


class Installed:
    """A folder with a flow, and an environment in which the package is installed."""

    def __init__(self, folder: Path, packages: Path) -> None:
        self._folder = folder
        self._path = os.pathsep.join(map(str, (packages, SOURCES)))
        (folder / "flows.py").write_text(FLOW)
        (folder / "config.yaml").write_text(CONFIG)
        (folder / "framed.yaml").write_text(CONFIG.replace("producer: {", "producer: {format: prefixed, "))

    def python(self, *arguments: str) -> str:
        run = subprocess.run(
            [sys.executable, *arguments],
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": self._path, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    def loom(self, *arguments: str) -> str:
        return self.python("-m", "loom.cli.main", *arguments)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return install_wheel(build_wheel(EXTRAS, folder), folder / "packages")


@pytest.fixture
def installed(packages: Path, tmp_path: Path) -> Installed:
    return Installed(tmp_path, packages)


def test_a_node_of_another_package_runs_in_a_flow(installed: Installed) -> None:
    output, errors = map(json.loads, installed.python("-c", RUN).splitlines())
    assert output == [4, 12]
    assert errors == ["four"]


def test_a_wire_format_of_another_package_reads_and_writes(installed: Installed) -> None:
    written, errors = map(json.loads, installed.python("-c", FRAMED).splitlines())
    assert written == ['\x0cflows.Number{"value":4}']
    assert errors == ["the frame is cut off"]


def test_a_config_may_name_the_format(installed: Installed) -> None:
    assert "prefixed" in installed.loom("check", "flows:flow", "-c", "framed.yaml")


def test_a_plan_tells_of_a_node_of_another_package(installed: Installed) -> None:
    said = installed.loom("check", "flows:flow", "-c", "config.yaml")
    assert "[0] numbers.every 2. record" in said
    assert "failures: errors" in said
    plan = json.loads(installed.loom("graph", "flows:flow", "-c", "config.yaml", "--format", "json"))
    assert [node["kind"] for node in plan["nodes"]] == ["every", "step", "every"]


def test_a_command_of_another_package_is_one_of_loom(installed: Installed) -> None:
    assert installed.loom("extras", "-c", "config.yaml", "--loud") == "READERS\n"
    told = installed.loom("--help")
    assert "Name the group of a config." in told
    assert "Draw the plan of a flow." in told
