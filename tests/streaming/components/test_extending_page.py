"""What docs/extending.md shows is a package that works: its files, registered as its pyproject.toml says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "extending.md"

PROGRAM = """
from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow
from loom.streaming.kafka import KafkaRecord
from loom.streaming.testing import StreamingTestRunner
from sampling import Sample


class Order(LoomFrozenStruct):
    id: int
    total: float


flow = StreamFlow("orders", FromTopic("raw", Order), Process(Sample(2)), IntoTopic("out"))

if __name__ == "__main__":
    runner = StreamingTestRunner.from_yaml(flow, "config.yaml").capture_errors("wire")
    runner.with_payloads([Order(n, n / 2) for n in range(1, 6)]).run()
    print([m.payload.id for m in runner.output])
    runner.reset()
    values = [b"1,0.5", b"2,1.5", b"a,b,c", b"4,2"]
    runner.with_records([KafkaRecord("raw", None, value) for value in values]).run()
    print([m.payload for m in runner.output], len(runner.errors["wire"]))
"""

CONFIG = """
kafka:
  consumer: {brokers: ["localhost:9092"], group_id: readers, delivery: at_least_once, format: csv}
  producer: {brokers: ["localhost:9092"], format: csv}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    blocks = re.findall(r"^```(\w+)\n# ([\w.]+\.\w+).*?\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    files = {name: text for _, name, text in blocks}
    assert {"pyproject.toml", "sampling.py", "sampling_component.py", "csv_format.py", "group_command.py"} == set(files)
    groups = tomllib.loads(files.pop("pyproject.toml"))["project"]["entry-points"]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    lines = [[f"[{group}]", *(f"{name} = {value}" for name, value in named.items())] for group, named in groups.items()]
    (info / "entry_points.txt").write_text("\n".join(line for group in lines for line in group) + "\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def python(folder: Path, *arguments: str) -> str:
    run = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (folder, ROOT / "src")))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_node_and_the_format_of_the_page_work(folder: Path) -> None:
    sampled, decoded = python(folder, "program.py").splitlines()
    assert sampled == "[2, 4]"
    assert decoded == "[Order(id=2, total=1.5)] 1"


def test_the_command_and_the_plan_of_the_page_work(folder: Path) -> None:
    assert python(folder, "-m", "loom.cli.main", "group", "-c", "config.yaml", "--upper") == "READERS\n"
    said = python(folder, "-m", "loom.cli.main", "check", "program:flow", "-c", "config.yaml")
    assert "[0] orders.sample keeps one in 2" in said
    assert "(csv)" in said
