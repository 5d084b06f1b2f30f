"""Sinks named in the config: a class that was registered under a type is built from its section and bound to a purpose.

Filled by the runner and the command line; `bindings.py` sorts what it resolves to.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, get_args, runtime_checkable

from msgspec.structs import replace

from loom.core.config import ConfigContext, ConfigError
from loom.core.config.conversion import convert_section
from loom.core.config.problems import ConfigProblem
from loom.core.config.refusal import raised_by_user_code
from loom.core.model import LoomFrozenStruct
from loom.core.observability import ObservabilityRuntime
from loom.streaming.errors import ErrorKind
from loom.streaming.runtime.custom_sinks import is_sink

__all__ = [
    "SINKS",
    "RegisteredSink",
    "RuntimeSinkBinding",
    "SinkBuildContext",
    "SinkRegistry",
]

_Purpose: TypeAlias = Literal["errors", "terminal", "audit"]

#: where the config names sinks
SINKS = "streaming.sinks"


class RuntimeSinkBinding(LoomFrozenStruct):
    """A sink and its purpose.

    >>> class ErrorTable:
    ...     def build_partition(self, config, worker_index, worker_count, bridge=None, session_manager=None): ...
    >>> RuntimeSinkBinding("errors", ErrorTable(), kinds=(ErrorKind.TASK,)).purpose
    'errors'

    Args:
        purpose: `errors` takes the error envelopes of `kinds`, `terminal` takes the output of the flow in place of the topic,
            `audit` receives a copy of every output message: of the flow's output, inner topics, the outputs of broadcasts
            and storage sinks.
        sink: a Bytewax sink or an `IntoSink`.
        kinds: the kinds of errors it takes; all if empty.
    """

    purpose: _Purpose
    sink: object
    kinds: tuple[ErrorKind, ...] = ()


class SinkBuildContext(LoomFrozenStruct):
    """What a registered sink knows when it is built.

    >>> from loom.core.observability import ObservabilityRuntime
    >>> context = SinkBuildContext("failures", "orders", ConfigContext.from_dict({}), ObservabilityRuntime.noop())
    >>> context.name
    'failures'

    Args:
        name: the name of its section.
        flow_name: the name of the flow.
        config: the whole config.
        observability_runtime: the observers of the run.
    """

    name: str
    flow_name: str
    config: ConfigContext
    observability_runtime: ObservabilityRuntime


@runtime_checkable
class RegisteredSink(Protocol):
    """A class whose sinks can be named in the config, under `streaming.sinks.<name>` with `type: <sink_type>`.

    `config_type` is a struct into which the rest of the section is decoded.

    >>> from loom.core.model import LoomFrozenStruct
    >>> class TableSettings(LoomFrozenStruct):
    ...     path: str
    >>> class ErrorTable:
    ...     sink_type, config_type = "error_table", TableSettings
    ...     @classmethod
    ...     def build_binding(cls, cfg, ctx):
    ...         return RuntimeSinkBinding("errors", cls())
    ...     def build_partition(self, config, worker_index, worker_count, bridge=None, session_manager=None): ...
    >>> isinstance(ErrorTable, RegisteredSink)
    True
    """

    sink_type: ClassVar[str]
    config_type: ClassVar[type]

    @classmethod
    def build_binding(cls, cfg: Any, ctx: Any) -> RuntimeSinkBinding:
        """The sink for one section. Called when a flow is prepared or checked, so it opens nothing.

        Args:
            cfg: the section, as a `config_type`.
            ctx: a `SinkBuildContext`.

        Returns:
            The sink with its purpose.

        Raises:
            Exception: becomes a `ConfigError` that names the section.
        """


class SinkRegistry:
    """The sink classes that a config may name.

    >>> SinkRegistry().resolve(ConfigContext.from_dict({}))
    ()
    """

    def __init__(self) -> None:
        self._classes: dict[str, Any] = {}

    def register(self, sink_class: Any) -> None:
        """Register a class under its `sink_type`; it replaces another class with that type.

        Args:
            sink_class: a `RegisteredSink`.

        Raises:
            TypeError: if it is none.
        """
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

        Args:
            config: the whole config.
            flow_name: passed to the sinks.
            observability_runtime: passed to the sinks.

        Raises:
            ConfigError: for a section without a type, with a type that is not registered, or that does not fit.
        """
        named = self.resolve_named(config, flow_name=flow_name, observability_runtime=observability_runtime)
        return tuple(named.values())

    def resolve_named(
        self,
        config: ConfigContext,
        *,
        flow_name: str = "",
        observability_runtime: ObservabilityRuntime | None = None,
    ) -> dict[str, RuntimeSinkBinding]:
        """As `resolve`, by the names of the sections.

        Args:
            config: the whole config.
            flow_name: passed to the sinks.
            observability_runtime: passed to the sinks.

        Raises:
            ConfigError: as `resolve`.
        """
        if not config.has(SINKS):
            return {}
        sections = config.section_or_default(SINKS, dict[str, dict[str, Any] | None], {})
        observability = observability_runtime or ObservabilityRuntime.noop()
        return {
            name: self._bind(section or {}, SinkBuildContext(name, flow_name, config, observability))
            for name, section in sections.items()
        }

    def _bind(self, section: Mapping[str, Any], ctx: SinkBuildContext) -> RuntimeSinkBinding:
        key, file = f"{SINKS}.{ctx.name}", ctx.config.file
        found = dict(section)
        sink_type = found.pop("type", None)
        if sink_type not in self._classes:
            raise ConfigError([self._no_such_type(key, file, sink_type)])
        sink_class = self._classes[sink_type]
        cfg = convert_section(found, sink_class.config_type, key=key, file=file)
        try:
            binding = sink_class.build_binding(cfg, ctx)
        except ConfigError:
            raise
        except Exception as error:  # noqa: BLE001 - what the author of a sink raises, reported without its arguments
            said = raised_by_user_code(error, str(error), found)
            # Not chained: a traceback would print the values.
            problem = ConfigProblem(file, key, f"{sink_class.__qualname__}.build_binding failed: {said}")
        else:
            wrong = _what_is_wrong(binding)
            if wrong is None:
                checked: RuntimeSinkBinding = binding
                return replace(checked, kinds=tuple(map(ErrorKind, checked.kinds)))
            problem = ConfigProblem(file, key, f"{sink_class.__qualname__}.build_binding returned {wrong}")
        raise ConfigError([problem])

    def _no_such_type(self, key: str, file: str | None, sink_type: Any) -> ConfigProblem:
        known = sorted(self._classes)
        if sink_type is None:
            what, nearest = "a sink needs a type", []
        else:
            what = f"no sink of type {sink_type!r} is registered"
            nearest = difflib.get_close_matches(str(sink_type), known, n=1)
        remedy = "register its class: runner.register_sink(…), --sink MODULE:CLASS, or an entry point of its package"
        message = f"{what}; registered: {', '.join(known) or 'none'}"
        return ConfigProblem(file, f"{key}.type", message, next(iter(nearest), None), remedy)


def _what_is_wrong(binding: object) -> str | None:
    """What makes this no binding, or `None`."""
    if not isinstance(binding, RuntimeSinkBinding):
        return f"a {type(binding).__qualname__}, not a RuntimeSinkBinding"
    if binding.purpose not in get_args(_Purpose):
        return f"the purpose {binding.purpose!r}; there are {', '.join(get_args(_Purpose))}"
    kinds: tuple[object, ...] = binding.kinds
    strange = [kind for kind in kinds if kind not in tuple(ErrorKind)]
    if strange:
        return f"the kind {strange[0]!r}, which is no ErrorKind"
    if binding.kinds and binding.purpose != "errors":
        return f"kinds for the purpose {binding.purpose!r}; only sinks of errors have kinds"
    if not is_sink(binding.sink):
        return f"{type(binding.sink).__qualname__} as its sink, which is neither a Bytewax sink nor an IntoSink"
    return None
