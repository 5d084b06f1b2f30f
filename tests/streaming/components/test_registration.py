"""A kind of node is registered once; what is wrong with a registration of another package is an issue of its node."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import pytest

import loom.core.entry_points
import loom.streaming
from loom.core.model import LoomFrozenStruct
from loom.streaming import Drain, IntoTopic, Process, payload
from loom.streaming.compiler import Code, CompilationError, compile_flow
from loom.streaming.compiler.registry import (
    COMPONENTS,
    ENTRY_POINTS,
    ComponentError,
    builder_of,
    built_in_components,
    component_of,
)
from loom.streaming.components import CompiledNode, NodeComponent
from loom.streaming.nodes.route import Router
from tests.streaming.orders import CONFIG, Price, flow, price

AUTHORING = Path(__file__).parents[3] / "docs" / "authoring.md"


class Mine(LoomFrozenStruct):
    """A node class that Loom does not know."""


class Below(Mine):
    """What inherits from it."""


class CompiledMine(CompiledNode, kw_only=True):
    """Its compiled form."""


def compile_mine(walk: Any, node: Any, path: Any, flowing: Any) -> Any:
    made = CompiledMine(
        path=path,
        step_id=walk.name(flowing.parent, "mine", path),
        in_shape=flowing.shape,
        out_shape=flowing.shape,
        accepts=flowing.payloads,
        returns=flowing.payloads,
    )
    return made, flowing.on(made)


MINE = NodeComponent((Mine,), compile_mine, CompiledMine, lambda build, node, after, above: after)


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Registers something for `Mine`, as an installed package does."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def register(value: Any, package: str = "mine") -> None:
        module = ModuleType(f"components_of_{package}")
        module.__dict__["IT"] = value
        monkeypatch.setitem(sys.modules, module.__name__, module)
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        name = f"{Mine.__module__}.{Mine.__qualname__}"
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{name} = {module.__name__}:IT\n")

    return register


def refused(node: Any) -> str:
    with pytest.raises(CompilationError) as raised:
        compile_flow(flow(price, node), config=CONFIG)
    (issue,) = [issue for issue in raised.value.errors if issue.path == (1,)]
    assert issue.code is Code.NODE_UNKNOWN
    return issue.message


def test_a_registered_node_is_compiled_and_so_is_what_inherits_from_it(registered: Any) -> None:
    registered(MINE)
    for node in (Mine(), Below()):
        plan = compile_flow(flow(price, node), config=CONFIG)
        assert plan.nodes[1].step_id.endswith(".mine")
    assert builder_of(CompiledMine) is MINE.build


def test_a_class_is_no_node_where_only_an_instance_is(registered: Any) -> None:
    registered(MINE)
    assert "Mine is no node" in refused(Mine)
    assert component_of(Price) is not None
    assert component_of(Router) is None


def test_a_node_that_nobody_registers_is_no_node() -> None:
    assert "is no node" in refused(Mine())


@pytest.mark.parametrize("node", [payload.total, "price", None, Process(price)])
def test_what_is_no_node_is_told_as_before(node: Any) -> None:
    assert component_of(node) is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param(3, "is a int, not a NodeComponent", id="something else"),
        pytest.param(MINE._replace(declares=(Drain,)), "does not declare Mine", id="another node"),
        pytest.param(MINE._replace(build=None), "each in its own way", id="a second builder"),
    ],
)
def test_a_registration_that_is_wrong_is_an_issue_that_names_it(registered: Any, value: Any, said: str) -> None:
    component_of(Drain())
    if said == "each in its own way":
        value = NodeComponent((Mine,), compile_mine, component_of(Drain()).compiled, MINE.build)  # type: ignore[union-attr]
    registered(value)
    assert said in refused(Mine())


def test_a_package_that_cannot_be_loaded_is_named(registered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(MINE)
    monkeypatch.delitem(sys.modules, "components_of_mine")
    message = refused(Mine())
    assert "of the package mine" in message
    assert "No module named 'components_of_mine'" in message


def test_two_packages_that_register_one_node_are_both_named(registered: Any) -> None:
    registered(MINE)
    registered(MINE, "other")
    message = refused(Mine())
    assert "package mine" in message
    assert "package other" in message


def test_nodes_of_our_own_are_not_looked_for_among_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def scan(**wanted: Any) -> Any:
        raise AssertionError(f"scanned for {wanted}")

    monkeypatch.setattr(loom.core.entry_points, "entry_points", scan)
    assert compile_flow(flow(price, IntoTopic("out"), output=None), config=CONFIG).nodes


def test_a_compiled_node_that_no_component_made_cannot_be_built() -> None:
    class Stranger(CompiledNode, kw_only=True):
        """Of no component."""

    with pytest.raises(ComponentError, match=r"no component builds a .*Stranger"):
        builder_of(Stranger)


def test_a_component_file_is_named_like_the_file_that_declares_its_nodes() -> None:
    modules = [
        import_module(f"{COMPONENTS}.{found.name}") for found in iter_modules(import_module(COMPONENTS).__path__)
    ]
    with_components = [module for module in modules if hasattr(module, "COMPONENTS")]
    assert len(with_components) >= 8
    for module in with_components:
        family = module.__name__.rpartition(".")[2]
        for component in module.COMPONENTS:
            assert {cls.__module__ for cls in component.declares} == {f"loom.streaming.nodes.{family}"}


def test_every_node_of_the_authoring_page_is_public_and_documented() -> None:
    text = AUTHORING.read_text()
    for component in built_in_components():
        for cls in component.declares:
            name = {"StepFunction": "step", "RetriedStep": "Retry"}.get(cls.__name__, cls.__name__)
            assert name in loom.streaming.__all__
            assert f"{name}" in text, f"docs/authoring.md does not mention {name}"
