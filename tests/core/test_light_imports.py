"""Importing the kernel costs nothing: what is heavy is loaded when it is used."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

HEAVY = ("omegaconf", "yaml", "structlog", "anyio", "asyncio")


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_the_packages_loads_nothing_heavy() -> None:
    code = "import loom.core.config, loom.core.expr, loom.core.observability, loom.core.async_bridge, loom.core.logger"
    assert loaded_after(code) == set()


def test_naming_everything_they_export_loads_nothing_heavy() -> None:
    code = (
        "from loom.core.config import *\nfrom loom.core.expr import *\nfrom loom.core.observability import *\n"
        "from loom.core.async_bridge import AsyncBridge\nfrom loom.core.logger import get_logger\n"
        "AsyncBridge()\nget_logger('a').bind(b=1)\nObservabilityRuntime.noop()"
    )
    assert loaded_after(code) == set()


def test_loading_a_configuration_that_resolves_something_loads_omegaconf_alone() -> None:
    code = "from loom.core.config import ConfigContext\nConfigContext.from_dict({'a': '${b}', 'b': 1}).raw('a')"
    assert loaded_after(code) >= {"omegaconf", "yaml"}
    assert not loaded_after(code) & {"structlog", "anyio"}


def test_loading_a_configuration_that_means_what_it_says_loads_nothing_but_the_reader_of_its_file() -> None:
    code = "from loom.core.config import ConfigContext\nConfigContext.from_dict({'a': {'b': [1, 'x']}}).raw('a')"
    assert loaded_after(code) == set()
    code = (
        "import pathlib, tempfile\nfrom loom.core.config import ConfigContext\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    file = pathlib.Path(folder, 'a.yaml'); file.write_text('a: {b: [1, x]}'); ConfigContext.from_yaml(file).raw('a')"
    )
    assert loaded_after(code) == {"yaml"}


@pytest.mark.parametrize("name", ["loom.core.config", "loom.core.expr", "loom.core.observability"])
def test_every_public_name_can_be_had_and_no_other(name: str) -> None:
    package = importlib.import_module(name)
    for public in package.__all__:
        assert getattr(package, public).__name__ == public
    assert dir(package) == sorted(package.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        package.nonsense  # noqa: B018
