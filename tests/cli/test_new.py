"""`loom new`: each template is a project that compiles, and whose tests pass, as they come."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml

from loom.cli.exit_codes import Exit
from loom.cli.new import TEMPLATES
from tests.cli.conftest import Loom
from tests.support.waiting import LONG_S


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_project_compiles_and_its_tests_pass(loom: Loom, template: str) -> None:
    made = loom("new", "my-shop", "--template", template)
    assert made.code == Exit.DONE, made.err
    loom.directory /= "my-shop"

    told = loom("check")
    assert (told.code, told.err) == (Exit.DONE, "")
    assert told.out.startswith("flow my-shop")
    pytest_of_it = ["pytest", "-q", "-p", "no:cacheprovider"]
    tests = loom.end(loom.server.start(pytest_of_it, cwd=loom.directory, env=loom.environment()), timeout=LONG_S)
    assert tests.code == 0, tests.out


def test_a_project_has_all_that_it_is_shipped_with(loom: Loom) -> None:
    listed = loom("new", "shop").out.split()
    here = loom.directory
    for name in (
        "Dockerfile",
        ".github/workflows/ci.yml",
        ".gitignore",
        "config.yaml",
        "shop/flow.py",
        "tests/test_flow.py",
    ):
        assert f"shop/{name}" in listed
        assert (here / "shop" / name).is_file()
    yaml.safe_load((here / "shop/.github/workflows/ci.yml").read_text())
    assert tomllib.loads((here / "shop/pyproject.toml").read_text())["tool"]["loom"]["flow"] == "shop.flow:flow"
    assert not any("@@" in path.read_text() or "PACKAGE" in path.name for path in here.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["1shop", "my shop", "../shop", "loom", "class"])
def test_what_is_no_name_of_a_project_is_refused(loom: Loom, name: str) -> None:
    before = sorted(loom.directory.rglob("*"))
    told = loom("new", name)
    assert told.code == Exit.USAGE
    assert repr(name) in told.messages[0]
    assert sorted(loom.directory.rglob("*")) == before


def test_nothing_is_overwritten(loom: Loom) -> None:
    (loom.directory / "shop").mkdir()
    (loom.directory / "shop" / "flow.py").write_text("mine")
    told = loom("new", "shop")
    assert told.code == Exit.USAGE
    assert "exists already" in told.messages[0]
    assert [path.read_text() for path in (loom.directory / "shop").iterdir()] == ["mine"]


def test_arguments_win_over_the_project(loom: Loom) -> None:
    Path(loom.directory, "pyproject.toml").write_text('[tool.loom]\nflow = "flows:mistyped"\nconfig = "loom.yaml"\n')
    loom.config()
    assert loom("check").code == Exit.COMPILATION
    assert loom("check", "flows:numbers").code == Exit.DONE
    assert loom("check", "flows:numbers", "-c", "nowhere.yaml").code == Exit.CONFIG


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ('[tool.loom]\nflwo = "a:b"\n', Exit.CONFIG, "flow"),
        ("[tool.loom\n", Exit.CONFIG, "is no TOML"),
        ("", Exit.USAGE, "no flow is named"),
        ('[tool.loom]\nflow = "flows:numbers"\n', Exit.USAGE, "no config is named"),
    ],
)
def test_a_project_that_says_too_little_is_told_what_to_write(loom: Loom, text: str, code: Exit, says: str) -> None:
    Path(loom.directory, "pyproject.toml").write_text(text)
    told = loom("check")
    assert told.code == code
    assert says in told.messages[0]
    assert "Traceback" not in told.err
