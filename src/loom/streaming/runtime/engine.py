"""What the runtime asks of an engine, and the engines there are, by name. Loaded when a flow is built, not before."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from loom.core.async_bridge import AsyncBridge
from loom.core.observability import ObservabilityRuntime
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.errors import ErrorKind
from loom.streaming.runtime.assembly import BuiltDataflow
from loom.streaming.runtime.settings import BytewaxRuntimeConfig

__all__ = ["Engine", "load_engine"]

#: engines by name, each as `module:attribute`
_ENGINES = {"bytewax": "loom.streaming.bytewax.engine:ENGINE"}


class Engine(Protocol):
    """Lowers plans to its own dataflows and runs them."""

    def lower(
        self,
        plan: CompiledPlan,
        *,
        observability: ObservabilityRuntime,
        sink: Any,
        error_sinks: Mapping[ErrorKind, Any],
        audits: Mapping[str, Any],
        bridge: AsyncBridge,
        resumable: bool,
    ) -> BuiltDataflow:
        """The plan as a dataflow, with sinks in place of some of its outputs. Opens nothing.

        `resumable`: a later run may begin with the states that its sinks had at a snapshot.
        """

    def run(self, dataflow: Any, runtime: BytewaxRuntimeConfig) -> None:
        """Run a dataflow in this thread until it ends."""

    def is_sink(self, sink: object) -> bool:
        """Whether a sink of the caller's can be opened."""


def load_engine(name: str = "bytewax") -> Engine:
    """The engine of a name.

    >>> load_engine().is_sink(object())
    False
    """
    module, _, attribute = _ENGINES[name].partition(":")
    engine: Engine = getattr(import_module(module), attribute)
    return engine
