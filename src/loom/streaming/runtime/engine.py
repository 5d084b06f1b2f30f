"""What the runtime asks of an engine, and the engines there are, by name. Loaded when a flow is built, not before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol

from loom.core.async_bridge import AsyncBridge
from loom.core.model import LoomFrozenStruct
from loom.core.observability import ObservabilityRuntime
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.errors import ErrorKind
from loom.streaming.runtime.assembly import BuiltDataflow
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.settings import BytewaxRuntimeConfig

__all__ = ["Engine", "load_engine"]

#: engines by name, each as `module:attribute`
_ENGINES = {"bytewax": "loom.streaming.bytewax.engine:ENGINE"}


class Lower(Protocol):
    """Makes a dataflow of a plan, with sinks in the place of some of its outputs. Opens nothing."""

    def __call__(
        self,
        plan: CompiledPlan,
        *,
        observability_runtime: ObservabilityRuntime | None = None,
        sink: Any = None,
        error_sinks: Mapping[ErrorKind, Any] | None = None,
        audits: Mapping[str, Any] | None = None,
        bridge: AsyncBridge | None = None,
        resumable: bool = True,
        layout: Layout = ...,
    ) -> BuiltDataflow:
        """`resumable`: a later run may begin with the states that its sinks had at a snapshot. `layout`: which process of
        how many this is.
        """


class Engine(LoomFrozenStruct):
    """What an engine can do."""

    lower: Lower
    #: runs a dataflow of its own in this thread until it ends, as one process of a layout
    run: Callable[[Any, BytewaxRuntimeConfig, Layout], None]
    #: whether a sink of the caller's can be opened
    is_sink: Callable[[object], bool]


def load_engine(name: str = "bytewax") -> Engine:
    """The engine of a name.

    >>> load_engine().is_sink(object())
    False
    """
    module, _, attribute = _ENGINES[name].partition(":")
    engine: Engine = getattr(import_module(module), attribute)
    return engine
