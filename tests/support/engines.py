"""Which engine the flows of a test run on: that of the test's parameter, of `--engine`, else the one that a user would get.

Tests marked `both_engines` run once on each; `pytest --engine loop` (`make test ARGS="--engine loop"`) runs all of them on one.
Programs that tests start are told by the environment, and obey in the fork server (`tests/support/fork_server.py`).
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import loom.streaming.runtime.engine as engines

__all__ = ["ENGINES", "NO_BYTEWAX", "VARIABLE", "bytewax_installed", "chosen_engine", "importable", "take_engine"]

ENGINES = ("bytewax", "loop")
VARIABLE = "LOOM_TESTS_ENGINE"
NO_BYTEWAX = "needs Bytewax, which has no wheels for this Python"


def bytewax_installed() -> bool:
    """Whether the engine is there."""
    return find_spec("bytewax") is not None


def chosen_engine() -> engines.EngineName:
    """The engine of the test that runs."""
    return engines.default_engine()


def take_engine(name: str | None = None) -> None:
    """Make an engine the default of this process; without a name, the one that the environment names, if it does."""
    name = name or os.environ.get(VARIABLE)
    if name == "loop":
        engines.default_engine = lambda: "loop"
    elif name == "bytewax":
        engines.default_engine = lambda: "bytewax"


def importable(module: str) -> bool:
    """Whether a module of the package can be imported here: those of Bytewax may not."""
    of_the_engine = module.startswith("loom.streaming.bytewax.") and not module.endswith((".build", ".error_sink"))
    return bytewax_installed() or not of_the_engine
