"""Sinks named in the config: a class that was registered under a type is built from its section and bound to a purpose."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

from bytewax.outputs import Sink

from loom.core.config import ConfigContext, ConfigError
from loom.core.config.conversion import convert_section
from loom.core.config.problems import ConfigProblem
from loom.core.errors import NotSupportedYetError
from loom.core.model import LoomFrozenStruct
from loom.core.observability import ObservabilityRuntime
from loom.streaming.bytewax.errors import DuplicateErrorSinkError
from loom.streaming.errors import ErrorKind
from loom.streaming.nodes.sink import IntoSink

__all__ = [
    "ErrorSink",
    "RegisteredSink",
    "ResolvedSinks",
    "RuntimeSinkBinding",
    "SinkBuildContext",
    "SinkRegistry",
    "sort_bindings",
]

#: what `error_sinks` takes: a Bytewax sink, or an `IntoSink`, of `ErrorEnvelope`s
ErrorSink: TypeAlias = Sink[Any] | IntoSink

_SECTION = "streaming.sinks"


class RuntimeSinkBinding(LoomFrozenStruct):
    """A sink and what it is for.

    `errors` takes the error envelopes of `kinds` (all of them where none is named), `terminal` takes the flow's output in
    the place of the topic, `audit` gets a copy of every output message.
    """

    purpose: Literal["errors", "terminal", "audit"]
    sink: object
    kinds: tuple[ErrorKind, ...] = ()


class SinkBuildContext(LoomFrozenStruct):
    """What a registered sink is told when it is built."""

    name: str
    flow_name: str
    config: ConfigContext
    observability_runtime: ObservabilityRuntime


@runtime_checkable
class RegisteredSink(Protocol):
    """A class whose sinks can be named in the config."""

    sink_type: ClassVar[str]
    config_type: ClassVar[type]

    @classmethod
    def build_binding(cls, cfg: Any, ctx: Any) -> RuntimeSinkBinding:
        """The sink for one section; `cfg` is a `config_type`, `ctx` a `SinkBuildContext`."""


class ResolvedSinks(LoomFrozenStruct):
    """The bindings of a config by what they are for."""

    errors: dict[ErrorKind, Any]
    terminal: Any | None


class SinkRegistry:
    """The sink classes that a config may name."""

    def __init__(self) -> None:
        self._classes: dict[str, Any] = {}

    def register(self, sink_class: Any) -> None:
        """Make a class known under its `sink_type`. Raises `TypeError` when it is no `RegisteredSink`."""
        wanted: tuple[tuple[str, Any], ...] = (("sink_type", str), ("config_type", type), ("build_binding", Callable))
        wrong = [name for name, kind in wanted if not isinstance(getattr(sink_class, name, None), kind)]
        if not inspect.isclass(sink_class) or wrong:
            raise TypeError(
                f"{sink_class!r} is no RegisteredSink: it lacks {', '.join(wrong) or 'a class'} "
                "(sink_type: str, config_type: type, classmethod build_binding(cls, cfg, ctx))"
            )
        found: Any = sink_class
        self._classes[found.sink_type] = found

    def resolve(
        self,
        config: ConfigContext,
        *,
        flow_name: str = "",
        observability_runtime: ObservabilityRuntime | None = None,
    ) -> tuple[RuntimeSinkBinding, ...]:
        """The bindings of every section under `streaming.sinks`, in their order.

        Raises `ConfigError` for a section without a type, of a type that nobody registered, or that does not fit.
        """
        if not config.has(_SECTION):
            return ()
        bindings = []
        for name, section in (config.raw(_SECTION) or {}).items():
            key = f"{_SECTION}.{name}"
            found = dict(section or {})
            sink_type = found.pop("type", None)
            if sink_type not in self._classes:
                known = ", ".join(sorted(self._classes)) or "none"
                what = f"no sink of type {sink_type!r} is registered" if sink_type else "a sink needs a type"
                raise ConfigError([ConfigProblem(config.file, f"{key}.type", f"{what}; registered: {known}")])
            sink_class = self._classes[sink_type]
            cfg = convert_section(found, sink_class.config_type, key=key, file=config.file)
            ctx = SinkBuildContext(name, flow_name, config, observability_runtime or ObservabilityRuntime.noop())
            bindings.append(sink_class.build_binding(cfg, ctx))
        return tuple(bindings)


def sort_bindings(bindings: tuple[RuntimeSinkBinding, ...]) -> ResolvedSinks:
    """Bindings by what they are for.

    Raises `DuplicateErrorSinkError` when two want the errors of one kind, `ValueError` when two want the output.
    """
    errors: dict[ErrorKind, Any] = {}
    terminal = None
    for binding in bindings:
        if binding.purpose == "audit":
            raise NotSupportedYetError("sinks with the purpose 'audit' are not supported yet")
        if binding.purpose == "terminal":
            if terminal is not None:
                raise ValueError("two sinks under streaming.sinks want the flow's output; keep one of them")
            terminal = binding.sink
            continue
        for kind in binding.kinds or tuple(ErrorKind):
            if kind in errors:
                raise DuplicateErrorSinkError(f"two sinks under streaming.sinks want the {kind.value} errors")
            errors[kind] = binding.sink
    return ResolvedSinks(errors, terminal)
