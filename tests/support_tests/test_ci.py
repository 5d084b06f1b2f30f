"""What CI runs on GitHub are targets of the Makefile, so that a developer can run the same."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)) | {".venv/.ready"}


def _steps() -> Iterator[dict[str, Any]]:
    for job in WORKFLOW["jobs"].values():
        yield from job["steps"]


def test_every_command_is_a_target_of_the_makefile() -> None:
    commands = [step["run"] for step in _steps() if "run" in step]
    assert [command for command in commands if not command.startswith("make ")] == []
    assert {command.split()[1] for command in commands} <= TARGETS
    assert {"check", "test", "test-kafka", "demo", "package"} <= {command.split()[1] for command in commands}


def test_the_matrix_has_every_version_of_python_that_the_project_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {entry.rpartition(" ")[2] for entry in project["classifiers"] if re.search(r":: 3\.\d+$", entry)}
    matrix = WORKFLOW["jobs"]["test"]["strategy"]["matrix"]
    assert set(matrix["python"]) == named
    assert matrix["dependencies"] == ["locked", "lowest", "newest"]


def test_a_skip_for_want_of_a_broker_fails_there() -> None:
    assert WORKFLOW["jobs"]["kafka"]["env"]["LOOM_REQUIRE_KAFKA"] == "1"


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_every_file_of_github_is_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text()), dict)
