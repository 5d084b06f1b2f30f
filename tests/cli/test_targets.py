"""How a flow or a sink class is named on the command line."""

from __future__ import annotations

import pytest

from loom.cli.exit_codes import Exit
from tests.cli.conftest import Loom


@pytest.mark.parametrize("target", ["./flows.py:numbers", "flows.py:numbers", "{here}/flows.py:numbers"])
def test_a_flow_may_be_named_by_its_file(loom: Loom, target: str) -> None:
    told = loom("check", target.format(here=loom.directory), "-c", loom.config())
    assert (told.code, told.err) == (Exit.DONE, "")
    assert "flow numbers" in told.out


def test_a_file_in_a_package_is_the_module_of_that_package(loom: Loom) -> None:
    inner = loom.directory / "src" / "shop" / "orders"
    inner.mkdir(parents=True)
    for package in (inner, inner.parent):
        (package / "__init__.py").touch()
    (loom.directory / "flows.py").rename(inner / "words.py")
    (inner / "flows.py").write_text("from shop.orders.words import *\nassert __name__ == 'shop.orders.flows'\n")
    told = loom("check", "src/shop/orders/flows.py:numbers", "-c", loom.config())
    assert told.code == Exit.DONE, told.err


def test_a_sink_class_may_be_named_by_its_file(loom: Loom) -> None:
    config = loom.config(lambda c: c["streaming"].update(sinks={"store": {"type": "lines", "text": "x"}}))
    told = loom("check", "flows.py:numbers", "-c", config, "--sink", "./flows.py:Lines")
    assert told.code == Exit.DONE, told.err
    assert "store: the flow's output -> Lines" in told.out


@pytest.mark.parametrize(
    ("target", "tells"),
    [
        (".flows:numbers", "did you mean flows?"),
        ("flows..inner:numbers", "did you mean flows.inner?"),
        ("./nowhere.py:numbers", "there is no file"),
        ("folder/:numbers", "is no Python file"),
        ("my-flow.py:numbers", "rename the file"),
        ("sys.py:numbers", "'sys' is another module already"),
        ("./flows.py", "FILE.py:FLOW"),
        ("flows.py:nmbers", "did you mean flows.py:numbers?"),
    ],
)
def test_a_target_that_leads_nowhere_is_usage_and_told_how_it_is_written(loom: Loom, target: str, tells: str) -> None:
    (loom.directory / "folder").mkdir()
    for name in ("my-flow.py", "sys.py"):
        (loom.directory / name).write_text("numbers = None\n")
    told = loom("check", target, "-c", loom.config())
    assert told.code == Exit.USAGE, told.err
    assert tells in told.err
    assert len(told.messages) == 1


def test_the_version_is_told(loom: Loom) -> None:
    told = loom("--version")
    assert (told.code, told.err) == (Exit.DONE, "")
    assert told.out.startswith("loom-streaming ")
    assert "confluent-kafka" in told.out
