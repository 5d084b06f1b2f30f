"""Packages whose names load on first use: the block that a type checker reads is the list, `__all__` says the same."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

import pytest

import loom
from loom.core.errors import NotSupportedYetError
from loom.core.lazy import exports_of, lazy_exports

PACKAGES = [
    found.name
    for found in pkgutil.walk_packages(loom.__path__, "loom.")
    if found.ispkg
    and "lazy_exports(__name__" in Path(*loom.__path__, *found.name.split(".")[1:], "__init__.py").read_text()
]


def test_the_packages_are_found() -> None:
    assert {"loom.streaming", "loom.streaming.bytewax", "loom.streaming.kafka", "loom.core.config"} <= set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_exported_is_what_all_says(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(exports_of(package)) == dir(module)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_loads_from_its_module(package: str) -> None:
    module = importlib.import_module(package)
    for name, home in exports_of(package).items():
        assert getattr(module, name) is getattr(importlib.import_module(home), name)


def written(folder: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> str:
    """A package of these files, importable in this test."""
    package = folder / "lazily"
    package.mkdir()
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == "lazily"]:
        monkeypatch.delitem(sys.modules, name)
    return "lazily"


INIT = """
from typing import TYPE_CHECKING

from loom.core.lazy import lazy_exports

if TYPE_CHECKING:
    from lazily.one import (
        First,
        Second,
    )

    from lazily.two import Third
OTHER = 1
__getattr__, __dir__ = lazy_exports(__name__, later=("Fourth", "Mongo*"))
"""


def test_a_module_is_imported_with_the_first_of_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = written(tmp_path, monkeypatch, __init__=INIT, one="First = 1\nSecond = 2\n", two="Third = 3\n")
    lazily = importlib.import_module(package)
    assert "lazily.one" not in sys.modules
    assert (lazily.Second, lazily.First) == (2, 1)
    assert "lazily.one" in sys.modules
    assert "lazily.two" not in sys.modules
    assert vars(lazily)["Second"] == 2


def test_a_name_that_is_not_built_yet_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lazily = importlib.import_module(written(tmp_path, monkeypatch, __init__=INIT))
    for name in ("Fourth", "MongoSink"):
        with pytest.raises(NotSupportedYetError, match=f"lazily.{name} is not supported yet"):
            getattr(lazily, name)
    with pytest.raises(AttributeError, match="has no attribute 'Fifth'"):
        lazily.Fifth  # noqa: B018


def test_a_package_without_its_source_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lazily = importlib.import_module(written(tmp_path, monkeypatch, __init__=INIT))
    exports_of.cache_clear()
    monkeypatch.setattr(lazily.__spec__.loader, "get_source", lambda name: None)
    with pytest.raises(ImportError, match=r"lazily/__init__\.py"):
        lazy_exports("lazily")[0]("First")
