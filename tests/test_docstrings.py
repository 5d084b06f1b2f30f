"""The examples in docstrings are run, each with the names of its module and of a small world of orders."""

from __future__ import annotations

import doctest
import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

import loom
from tests import docstring_world
from tests.support.engines import importable

#: examples that need a broker or a file of the reader's
MOST_SKIPPED = 6
#: where public names are imported from
PUBLIC = [
    "loom.core.config",
    "loom.core.errors",
    "loom.core.expr",
    "loom.core.model",
    "loom.core.observability",
    "loom.streaming",
    "loom.streaming.bytewax",
    "loom.streaming.compiler",
    "loom.streaming.formats",
    "loom.streaming.kafka",
    "loom.streaming.testing",
]
_MODULES = [found.name for found in pkgutil.walk_packages(loom.__path__, "loom.") if importable(found.name)]
#: their examples build a dataflow of the engine
_OF_BYTEWAX = ("loom.streaming.bytewax", "loom.streaming.bytewax.build")


def _examples(name: str) -> list[doctest.DocTest]:
    module = import_module(name)
    world = {**vars(docstring_world), **vars(module)}
    found = doctest.DocTestFinder(exclude_empty=True).find(module, name, globs=world)
    return [test for test in found if test.examples]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.bytewax if name in _OF_BYTEWAX else ()) for name in _MODULES]
)
def test_the_examples_of_a_module_run(name: str) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in _examples(name):
        said: list[str] = []
        result = runner.run(test, out=said.append)
        assert result.failed == 0, "".join(said)


def test_few_examples_are_skipped() -> None:
    skipped = [
        f"{test.name}:{(test.lineno or 0) + example.lineno}"
        for name in _MODULES
        for test in _examples(name)
        for example in test.examples
        if example.options.get(doctest.SKIP)
    ]
    assert len(skipped) <= MOST_SKIPPED, skipped


def test_there_are_examples() -> None:
    assert sum(len(test.examples) for name in _MODULES for test in _examples(name)) > 100


def _public() -> Iterator[tuple[str, Any]]:
    """Every public class and function that exists already, by the name it is imported by."""
    for module_name in PUBLIC:
        module = import_module(module_name)
        for name in module.__all__:
            found = getattr(module, name, None)
            if inspect.isclass(found) or inspect.isfunction(found):
                yield f"{module_name}.{name}", found


def _doc(found: Any) -> str:
    """The docstring of a class or function itself, not that of a base."""
    return inspect.cleandoc((found.__dict__.get("__doc__") if inspect.isclass(found) else found.__doc__) or "")


def test_every_public_name_has_an_example() -> None:
    without = [name for name, found in _public() if ">>> " not in _doc(found)]
    assert without == []


def _arguments(function: Any) -> list[str]:
    ours = str(getattr(function, "__module__", "")).startswith("loom")
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")] if ours else []


def test_docstrings_have_one_form() -> None:
    """Sections are called `Args:`, `Returns:` and `Raises:`, and name the arguments that there are."""
    wrong = []
    for name, found in _public():
        members = [found, *(vars(found).values() if inspect.isclass(found) else ())]
        for member in members:
            function = getattr(member, "__func__", member)
            if not (inspect.isclass(function) or inspect.isfunction(function)):
                continue
            doc = _doc(function)
            if re.search(r"^(Parameters|Attributes|Arguments|Return|Raise|Yields):$", doc, re.MULTILINE):
                wrong.append(f"{name}: {function.__qualname__} has a section of another name")
            section = re.search(r"^Args:\n((?:    .*\n?|\n(?=    ))+)", doc, re.MULTILINE)
            if section is None:
                if inspect.isfunction(function) and not function.__name__.startswith("_") and _arguments(function):
                    wrong.append(f"{name}: {function.__qualname__} does not explain its arguments")
                continue
            told = set(re.findall(r"^    (\w+):", section[1], re.MULTILINE))
            taken = {parameter.lstrip("*") for parameter in inspect.signature(function).parameters}
            if told - taken:
                wrong.append(f"{name}: {function.__qualname__} has no argument {', '.join(sorted(told - taken))}")
    assert wrong == []
