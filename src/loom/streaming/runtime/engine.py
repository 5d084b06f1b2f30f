"""What the runtime asks of an engine, and the engines there are, by name. Loaded when a flow is built, not before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.runtime.assembly import BuiltDataflow
from loom.streaming.runtime.build_options import BuildOptions
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.run_errors import EngineMissingError
from loom.streaming.runtime.settings import BytewaxRuntimeConfig

__all__ = [
    "NO_BYTEWAX",
    "Engine",
    "EngineName",
    "available",
    "default_engine",
    "engine_for",
    "is_installed",
    "load_engine",
]

EngineName: TypeAlias = Literal["bytewax", "loop"]

#: engines by name, each as `module:attribute`, and the package that it needs
_ENGINES: Mapping[EngineName, tuple[str, str | None]] = {
    "bytewax": ("loom.streaming.bytewax.engine:ENGINE", "bytewax"),
    "loop": ("loom.streaming.runtime.loop.engine:ENGINE", None),
}
NO_BYTEWAX = "the package bytewax is not installed here; it has wheels for Python 3.11 and 3.12 only"


class Engine(LoomFrozenStruct):
    """What an engine can do."""

    #: makes a dataflow of a plan; opens nothing
    lower: Callable[[CompiledPlan, BuildOptions], BuiltDataflow]
    #: runs a dataflow of its own in this thread until it ends, as one process of a layout
    run: Callable[[Any, BytewaxRuntimeConfig, Layout], None]
    #: whether it keeps a recovery store, and can be a cluster of processes
    keeps_state: bool


def is_installed(name: EngineName) -> bool:
    """Whether the package of an engine is there."""
    _, package = _ENGINES[name]
    return package is None or find_spec(package) is not None


def default_engine() -> EngineName:
    """The engine of a flow whose config names none."""
    return "bytewax" if is_installed("bytewax") else "loop"


def engine_for(named: EngineName | None) -> EngineName:
    """The engine that a config asks for, which may name none."""
    return named or default_engine()


def available(named: EngineName | None) -> EngineName:
    """As `engine_for`, but the default one in the place of one that is not installed here."""
    return named if named is not None and is_installed(named) else default_engine()


def load_engine(name: EngineName) -> Engine:
    """The engine of a name. Raises `EngineMissingError` where its package is not installed.

    >>> load_engine("loop").keeps_state
    False
    """
    if not is_installed(name):
        raise EngineMissingError(
            f"{NO_BYTEWAX}. Run the flow with StreamingRunner.run() or `loom run`, which need no engine, or install bytewax"
        )
    module, _, attribute = _ENGINES[name][0].partition(":")
    engine: Engine = getattr(import_module(module), attribute)
    return engine
