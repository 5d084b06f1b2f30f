"""The examples in docstrings are run, each with the names of its module and of a small world of orders."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module

import pytest

import loom
from tests import docstring_world

#: examples that need a broker or a file of the reader's
MOST_SKIPPED = 6
_MODULES = [found.name for found in pkgutil.walk_packages(loom.__path__, "loom.")]


def _examples(name: str) -> list[doctest.DocTest]:
    module = import_module(name)
    world = {**vars(docstring_world), **vars(module)}
    found = doctest.DocTestFinder(exclude_empty=True).find(module, name, globs=world)
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", _MODULES)
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
