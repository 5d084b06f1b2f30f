"""The sinks of a config, sorted by what they are for. Asked by the runner and by `loom check`; opens nothing.

Precedence among sinks of errors: what the caller gives explicitly, then these, then the flow's own routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loom.core.config import ConfigContext, ConfigError
from loom.core.config.problems import ConfigProblem
from loom.core.model import LoomFrozenStruct
from loom.core.observability import ObservabilityRuntime
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.errors import ErrorKind
from loom.streaming.runtime.registry import SINKS, RuntimeSinkBinding, SinkRegistry
from loom.streaming.runtime.run_errors import DuplicateErrorSinkError

__all__ = ["BoundSinks", "bind_sinks"]


class BoundSinks(LoomFrozenStruct):
    """The sinks of a config by what they are for."""

    #: by the names of their sections
    bindings: Mapping[str, RuntimeSinkBinding] = {}
    errors: Mapping[ErrorKind, Any] = {}
    terminal: Any | None = None
    #: by the names of their sections
    audits: Mapping[str, Any] = {}

    def check(self, plan: CompiledPlan) -> None:
        """Raise `ConfigError` where the plan has no place for one of them."""
        if self.terminal is None or plan.output is not None:
            return
        name = next(name for name, binding in self.bindings.items() if binding.purpose == "terminal")
        raise ConfigError(
            [
                ConfigProblem(
                    None,
                    f"{SINKS}.{name}",
                    f"takes the flow's output, and {plan.name!r} has none: its process ends itself",
                    remedy="put the sink into the process as a node, or give it another purpose",
                )
            ]
        )

    def describe(self) -> list[str]:
        """A line for each sink, for a person to read."""
        return [f"{name}: {_purpose(binding)} -> {_class(binding.sink)}" for name, binding in self.bindings.items()]


def bind_sinks(
    registry: SinkRegistry,
    config: ConfigContext,
    *,
    flow_name: str,
    observability_runtime: ObservabilityRuntime | None = None,
) -> BoundSinks:
    """Build what the config names under `streaming.sinks`.

    Raises `ConfigError` for a section that does not fit or a second sink that wants the output, and
    `DuplicateErrorSinkError` when two want the errors of one kind.
    """
    bindings = registry.resolve_named(config, flow_name=flow_name, observability_runtime=observability_runtime)
    takers: dict[ErrorKind, str] = {}
    terminal: str | None = None
    for name, binding in bindings.items():
        key = f"{SINKS}.{name}"
        if binding.purpose == "terminal":
            if terminal is not None:
                message = f"wants the flow's output, as {SINKS}.{terminal} does"
                raise ConfigError([ConfigProblem(config.file, key, message, remedy="keep one of the two sinks")])
            terminal = name
        for kind in _kinds(binding):
            if kind in takers:
                raise DuplicateErrorSinkError(
                    f"{SINKS}.{takers[kind]} and {key} both want the {kind.value} errors; name the kinds of each"
                )
            takers[kind] = name
    return BoundSinks(
        bindings,
        {kind: bindings[name].sink for kind, name in takers.items()},
        bindings[terminal].sink if terminal is not None else None,
        {name: binding.sink for name, binding in bindings.items() if binding.purpose == "audit"},
    )


def _kinds(binding: RuntimeSinkBinding) -> Iterable[ErrorKind]:
    if binding.purpose != "errors":
        return ()
    return [kind for kind in ErrorKind if not binding.kinds or kind in binding.kinds]


def _purpose(binding: RuntimeSinkBinding) -> str:
    if binding.purpose == "errors":
        return f"errors ({', '.join(kind.value for kind in _kinds(binding))})"
    return {"terminal": "the flow's output", "audit": "a copy of every output message"}[binding.purpose]


def _class(sink: Any) -> str:
    # Not its repr: a sink may hold secrets.
    return type(sink).__qualname__
