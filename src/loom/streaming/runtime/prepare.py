"""Flow, config and sinks become something that is ready to run, or one error with everything that prevents it.

All checks that need no broker are here. The runner, `loom check` and the test kit call it, so that none of them accepts
what another one refuses. Opens nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from loom.core.async_bridge import AsyncBridge, AsyncBridgeError
from loom.core.config import ConfigContext, ConfigError, ConfigProblem
from loom.core.config.keys import render
from loom.core.errors import LoomError, NotSupportedYetError
from loom.core.model import LoomFrozenStruct
from loom.core.observability import ObservabilityConfig, ObservabilityRuntime
from loom.core.observability.extras import MissingExtraError, check_otel, check_prometheus
from loom.streaming.compiler.catalogue import Code, CompilationError, Issue
from loom.streaming.compiler.compile import compile_flow
from loom.streaming.compiler.exactly_once import check_exactly_once_run
from loom.streaming.compiler.issues import Issues
from loom.streaming.compiler.names import engine_id
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.compiler.unrouted import routed_to_sinks
from loom.streaming.errors import ErrorKind
from loom.streaming.flow import StreamFlow
from loom.streaming.kafka.probe import ClientRefusal, client_refusals
from loom.streaming.kafka.settings import KafkaSettings
from loom.streaming.runtime.engine_choice import check_engine
from loom.streaming.runtime.isolation import check_poison_route
from loom.streaming.runtime.layout import Layout, layout_of
from loom.streaming.runtime.member_checks import check_member_run
from loom.streaming.runtime.recovery_directory import check_recovery
from loom.streaming.runtime.registry import SinkRegistry
from loom.streaming.runtime.run_errors import DuplicateErrorSinkError, RecoveryDirectoryError
from loom.streaming.runtime.settings import BytewaxRuntimeConfig, StreamingSection
from loom.streaming.runtime.sink_bindings import BoundSinks, bind_sinks

__all__ = ["PreparedFlow", "prepare"]

T = TypeVar("T")


class PreparedFlow(LoomFrozenStruct):
    """A compiled flow with everything that its run needs."""

    plan: CompiledPlan
    runtime: BytewaxRuntimeConfig
    section: StreamingSection
    #: which process of how many this is
    layout: Layout
    #: the sinks of the config
    sinks: BoundSinks
    #: what takes errors in place of the flow's own routes
    error_sinks: Mapping[ErrorKind, Any]
    #: compiles the flow again, with steps that have seen nothing
    renew: Callable[[], CompiledPlan]


def prepare(
    flow: StreamFlow[Any, Any],
    config: ConfigContext,
    registry: SinkRegistry | None,
    *,
    error_sinks: Mapping[ErrorKind, Any] | None = None,
    runtime: BytewaxRuntimeConfig | None = None,
    observability: ObservabilityRuntime | None = None,
    observed_by_caller: bool = False,
    elsewhere: bool = False,
    beside: Iterable[StreamFlow[Any, Any]] = (),
) -> PreparedFlow:
    """Make a flow ready to run.

    `registry` is `None` where the sinks of the config take no part; `observability` is what they are built with. `runtime`
    overrides the config's. `observed_by_caller`: no observer of the config is made. `elsewhere`: the flow is to run
    on another machine, so files, directories and packages are not checked. `beside`: as for `compile_flow`.

    Raises `CompilationError`, with what is wrong in the config among its issues, where the flow does not compile, else
    `ConfigError` with all of its problems. What is wrong alone may raise its own class: `NotSupportedYetError`,
    `DuplicateErrorSinkError`, `RecoveryDirectoryError`.
    """
    found = _Findings()
    section = found.of(lambda: config.section_or_default("streaming", StreamingSection, StreamingSection()))
    chosen = runtime or (section.runtime if section is not None else None)
    layout: Layout | None = Layout()
    if chosen is not None:
        if not elsewhere or chosen.process_id is not None:
            layout = found.of(lambda: layout_of(chosen, {} if elsewhere else os.environ, config.file))
        if not elsewhere:
            found.of(lambda: _check_machine(chosen, config.file))
            found.of(lambda: _check_store(chosen, flow.name, layout))
    if section is not None and chosen is not None:
        found.of(lambda: check_engine(section.engine, chosen, layout, config.file, elsewhere=elsewhere))
    found.of(lambda: _check_observability(config, observed_by_caller, elsewhere=elsewhere))
    bound = BoundSinks()
    if registry is not None and section is not None:
        bound = found.of(lambda: _bound(registry, config, flow.name, observability)) or bound
    taken = {**bound.errors, **(error_sinks or {})}
    plan = found.of(lambda: compile_flow(flow, config=config, beside=beside))
    if plan is not None:
        plan = routed_to_sinks(plan, taken)
        if chosen is not None and layout is not None:
            found.of(lambda: check_member_run(plan, chosen, layout, section, config.file))
        _check_plan(plan, section, chosen, bound, taken, found, config.file)
        found.problems += _client_problems(plan, config, files=not elsewhere)
    found.raise_all(flow.name)
    assert plan is not None
    assert section is not None
    assert chosen is not None
    assert layout is not None
    return PreparedFlow(
        plan, chosen, section, layout, bound, taken, lambda: compile_flow(flow, config=config, beside=beside)
    )


def _bound(
    registry: SinkRegistry, config: ConfigContext, flow: str, observability: ObservabilityRuntime | None
) -> BoundSinks:
    return bind_sinks(registry, config, flow_name=flow, observability_runtime=observability)


def _check_observability(config: ConfigContext, observed_by_caller: bool, *, elsewhere: bool) -> None:
    section = config.section_optional("observability", ObservabilityConfig)
    if section is None or observed_by_caller:
        return
    for key, part, check in (
        ("prometheus", section.prometheus, check_prometheus),
        ("otel", section.otel, check_otel),
    ):
        if part is not None and part.enabled and not elsewhere:
            try:
                check()
            except MissingExtraError as error:
                raise ConfigError([ConfigProblem(config.file, f"observability.{key}", str(error))]) from None


def _check_machine(runtime: BytewaxRuntimeConfig, file: str | None) -> None:
    """Whether this machine has what the runtime asks for."""
    try:
        AsyncBridge(runtime.async_backend, use_uvloop=runtime.use_uvloop)
    except AsyncBridgeError as error:
        key = "async_backend" if runtime.async_backend == "trio" else "use_uvloop"
        raise ConfigError([ConfigProblem(file, f"streaming.runtime.{key}", str(error))]) from None


def _check_store(runtime: BytewaxRuntimeConfig, flow: object, layout: Layout | None) -> None:
    # A flow without a usable name does not compile.
    if runtime.recovery is not None and layout is not None and isinstance(flow, str):
        check_recovery(runtime.recovery, engine_id(flow), layout)


def _check_plan(
    plan: CompiledPlan,
    section: StreamingSection | None,
    runtime: BytewaxRuntimeConfig | None,
    bound: BoundSinks,
    taken: Mapping[ErrorKind, Any],
    found: _Findings,
    config_file: str | None,
) -> None:
    """Whether the plan goes with the rest."""
    found.of(lambda: bound.check(plan))
    if section is not None:
        found.of(lambda: check_poison_route(plan, taken, section.supervision, config_file))
    if plan.source.mode.transaction and section is not None and runtime is not None:
        foreign = bool(taken) or bool(section.sinks)
        found.of(lambda: check_exactly_once_run(plan, epoch_ms=runtime.epoch_ms, foreign_sinks=foreign))


def _client_problems(plan: CompiledPlan, config: ConfigContext, *, files: bool) -> Iterator[ConfigProblem]:
    """What the Kafka client says against the settings of everything that is read and written."""
    source = plan.source
    asked = [("consumer", source.name, list(client_refusals(source.settings, files=files)))]
    by_producer: dict[int, list[ClientRefusal]] = {}
    for output in plan.topics():
        number = output.producer.index
        if number not in by_producer:
            found = client_refusals(output.settings, transactional=source.mode.transaction, files=files)
            by_producer[number] = list(found)
        asked.append(("producer", output.name, by_producer[number]))
    if not any(refusals for _, _, refusals in asked):
        return
    kafka = config.section_or_default("kafka", KafkaSettings, KafkaSettings())
    told: set[ConfigProblem] = set()
    for role, name, refusals in asked:
        named = (kafka.consumers if role == "consumer" else kafka.producers).get(name, {})
        for refusal in refusals:
            place = ("kafka", f"{role}s", name) if _holds(named, refusal.key) else ("kafka", role)
            problem = ConfigProblem(config.file, render((*place, *refusal.key)), refusal.message, remedy=refusal.remedy)
            if problem not in told:
                told.add(problem)
                yield problem


def _holds(entry: Any, key: tuple[str, ...]) -> bool:
    """Whether an entry itself says something under a key; without a key, whether it says anything of the client."""
    if not key:
        return bool({"extra", "security"} & set(entry))
    for part in key:
        if not isinstance(entry, Mapping) or part not in entry:
            return False
        entry = entry[part]
    return True


class _Findings:
    """Everything that prevents a run, collected so that it is reported at once."""

    def __init__(self) -> None:
        self.problems: list[ConfigProblem] = []
        self._issues: list[Issue] = []
        self._others: list[LoomError] = []

    def of(self, work: Callable[[], T]) -> T | None:
        """What the work returns, or `None` when it refuses."""
        try:
            return work()
        except ConfigError as error:
            self.problems += error.problems
        except CompilationError as error:
            self._issues += error.errors
        except (NotSupportedYetError, DuplicateErrorSinkError, RecoveryDirectoryError) as error:
            self._others.append(error)
        return None

    def raise_all(self, flow: str) -> None:
        """Raise what was found, if anything was."""
        if len(self._others) == 1 and not self.problems and not self._issues:
            raise self._others[0]
        problems = [*self.problems, *(ConfigProblem(None, "", str(error)) for error in self._others)]
        if self._issues:
            issues = Issues()
            issues.config(Code.CONFIG_INVALID, ConfigError(problems))
            told = dict.fromkeys((*self._issues, *issues.errors))
            raise CompilationError(flow, told)
        if problems:
            raise ConfigError(problems)
