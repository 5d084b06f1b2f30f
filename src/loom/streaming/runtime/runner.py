"""Runs a flow: load, compile, check the brokers, run the engine, stop in order, report what went wrong.

The entry point of programs and of the command line; everything it calls is a page of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

from loom.core.async_bridge import AsyncBridge
from loom.core.config import ConfigContext
from loom.core.errors import LoomError
from loom.core.logger import get_logger
from loom.core.observability import ObservabilityRuntime, Scope
from loom.streaming.errors import ErrorKind
from loom.streaming.flow import StreamFlow
from loom.streaming.metrics import FlowMetrics
from loom.streaming.runtime.build_options import BuildOptions
from loom.streaming.runtime.engine import EngineName, available, engine_for, load_engine
from loom.streaming.runtime.instance import instance_name
from loom.streaming.runtime.isolation import isolation_of, one_at_a_time
from loom.streaming.runtime.peers import awaiting_peers, peer_lost, raise_peer_stop
from loom.streaming.runtime.prepare import prepare
from loom.streaming.runtime.prepared_run import _PreparedStreamingRun
from loom.streaming.runtime.progress import reporting
from loom.streaming.runtime.registry import SinkRegistry
from loom.streaming.runtime.run_errors import raise_fault
from loom.streaming.runtime.settings import BytewaxRuntimeConfig
from loom.streaming.runtime.signals import stopping_on_signals
from loom.streaming.runtime.stop import StartGivenUp
from loom.streaming.runtime.supervised import Supervisor
from loom.streaming.runtime.telemetry.section import observers_of, progress_interval_ms
from loom.streaming.runtime.telemetry.serving import observed_run, serving_metrics
from loom.streaming.runtime.wall_clock import watching_clock
from loom.streaming.runtime.watchdog import watching

if TYPE_CHECKING:
    from bytewax.dataflow import Dataflow

    from loom.streaming.bytewax.error_sink import ErrorSink

__all__ = ["StreamingRunner"]

_log = get_logger(__name__)


class StreamingRunner:
    """Runs one flow with one config.

    The methods `from_…` only load; the flow is compiled at the first `build_dataflow`, `prepare_run` or `run`.

    >>> StreamingRunner.from_yaml(flow, "config.yaml").run()  # doctest: +SKIP
    """

    def __init__(self, *, _registry: SinkRegistry | None = None) -> None:
        self._registry = _registry or SinkRegistry()
        self._flow: StreamFlow[Any, Any] | None = None
        self._config: ConfigContext | None = None
        #: given by the caller; without one, what the config says
        self._observability: ObservabilityRuntime | None = None
        #: given by the caller, so that no config decides about it
        self._observability_given = False
        self._derived: ObservabilityRuntime | None = None
        self._prepared: _PreparedStreamingRun | None = None
        #: called, with what to say, when a stop is overdue and the run does not come back; for processes that may be ended
        self.on_overdue_stop: Callable[[LoomError], None] | None = None
        #: other flows that are known of; set by the command line
        self.beside: Iterable[StreamFlow[Any, Any]] = ()
        #: a static member leaves its group for good when it stops; set by the command line
        self.leaves_group = False
        #: who starts this process again when the run fails; set by the command line
        self.supervisor: Supervisor | None = None

    @classmethod
    def from_context(
        cls,
        flow: StreamFlow[Any, Any],
        *,
        config: ConfigContext,
        observability_runtime: ObservabilityRuntime | None = None,
    ) -> StreamingRunner:
        """A runner with a loaded config.

        Args:
            flow: the flow.
            config: the config.
            observability_runtime: the observers of the run; by default those that the config names.
        """
        runner = cls()
        runner._flow, runner._config, runner._observability = flow, config, observability_runtime
        runner._observability_given = observability_runtime is not None
        return runner

    @classmethod
    def from_yaml(
        cls,
        flow: StreamFlow[Any, Any],
        path: str | PathLike[str],
        *,
        observability_runtime: ObservabilityRuntime | None = None,
    ) -> StreamingRunner:
        """A runner with a config from a YAML file.

        Args:
            flow: the flow.
            path: the file.
            observability_runtime: the observers of the run; by default those that the config names.

        Raises:
            ConfigError: if the file cannot be loaded.
        """
        return cls.from_context(flow, config=ConfigContext.from_yaml(path), observability_runtime=observability_runtime)

    @classmethod
    def from_dict(
        cls,
        flow: StreamFlow[Any, Any],
        config: Mapping[str, Any],
        *,
        observability_runtime: ObservabilityRuntime | None = None,
    ) -> StreamingRunner:
        """A runner with a config from a mapping.

        Args:
            flow: the flow.
            config: the mapping.
            observability_runtime: the observers of the run; by default those that the config names.
        """
        return cls.from_context(
            flow, config=ConfigContext.from_dict(config), observability_runtime=observability_runtime
        )

    def register_sink(self, sink_class: Any) -> None:
        """Let the config name a sink class.

        Args:
            sink_class: a `RegisteredSink`.

        Raises:
            TypeError: if it is none.
        """
        self._registry.register(sink_class)

    @property
    def metrics(self) -> FlowMetrics | None:
        """The counters of the current run, or of the last one; `None` before the first.

        `metrics.read()` adds them up, from any thread and as often as you like: records read, written and dropped, errors by kind
        and step, results by topic.

        >>> StreamingRunner.from_dict(flow, {}).metrics is None
        True
        """
        return self._prepared.built.state.metrics if self._prepared is not None else None

    def build_dataflow(self) -> Dataflow:
        """The Bytewax `Dataflow` of the flow, whatever `streaming.engine` says; `shutdown()` releases what it opens.

        Raises:
            EngineMissingError: if Bytewax is not installed.
        """
        return self.prepare_run().dataflow

    def prepare_run(self, *, error_sinks: Mapping[ErrorKind, ErrorSink] | None = None) -> _PreparedStreamingRun:
        """Compile the flow and build its Bytewax dataflow, for an engine that you start yourself.

        Releases what an earlier call holds.

        Args:
            error_sinks: sinks for errors, by kind; they win over those of the config and over the flow's routes.

        Returns:
            An object with `.dataflow`, which needs Bytewax, and `.shutdown()`.

        Raises:
            CompilationError: if the flow does not compile.
            ConfigError: if the config does not fit.
        """
        return self._prepare(error_sinks, None, available("bytewax"))

    def run(
        self,
        *,
        flow: StreamFlow[Any, Any] | None = None,
        config: ConfigContext | Mapping[str, Any] | None = None,
        config_path: str | PathLike[str] | None = None,
        error_sinks: Mapping[ErrorKind, ErrorSink] | None = None,
        runtime: BytewaxRuntimeConfig | None = None,
    ) -> None:
        """Run the flow in this thread until it is stopped or its input ends.

        In the main thread, SIGTERM and SIGINT stop the run in order; `shutdown()` does so from any thread. Nothing is restarted
        here: only `loom run` acts on `streaming.supervision.restarts`.

        Args:
            flow: another flow, together with `config` or `config_path`.
            config: another config.
            config_path: another config, from a YAML file.
            error_sinks: sinks for errors, by kind; they win over those of the config and over the flow's routes.
            runtime: replaces the section `streaming.runtime`.

        Raises:
            CompilationError: if the flow does not compile.
            ConfigError: if the config does not fit.
            BrokerUnavailableError: if no broker answers.
            TopicMissingError: if a topic does not exist.
            FlowFailedError: if the run fails; its cause is the exception of the author's code.
        """
        self._reconfigure(flow, config, config_path)
        observability = self._observability_runtime()
        name = self._flow.name if self._flow is not None else "?"
        instance = instance_name(self._config)
        with observed_run(observability, name, instance):
            prepared = self._prepare(error_sinks, runtime)
            progress_ms = progress_interval_ms(self._config)
            try:
                self._take_hold(prepared)
                with (
                    serving_metrics(observability, prepared.built, prepared.supervision.stall_timeout_ms, instance),
                    stopping_on_signals(prepared.built.state.stop),
                ):
                    _log.info("broker_check_started", flow=name)
                    prepared.built.check_brokers()
                    self._start_log(prepared)
                    with (
                        reporting(name, prepared.built.state, progress_ms),
                        observability.span(Scope.FLOW, name),
                    ):
                        self._run_engine(prepared)
            except StartGivenUp as given_up:
                _log.info("flow_stopped_before_start", flow=name, waiting_for=str(given_up))
            finally:
                prepared.built.state.stop.held = False
                prepared.finish()

    def shutdown(self) -> None:
        """Stop the current run, from any thread, or release what `prepare_run` holds. Idempotent."""
        if self._prepared is not None:
            self._prepared.shutdown()

    def _run_engine(self, prepared: _PreparedStreamingRun) -> None:
        """Run the engine, and surface what really went wrong.

        A part of ours notes its fault and leaves the engine without raising it there: the engine would report places in its
        own source, and with several workers nothing else. What it raises all the same comes from somewhere else.
        """
        runtime, state = prepared.runtime, prepared.built.state
        state.runs_with(runtime.epoch_ms / 1000, runtime.workers_per_process)
        fault: BaseException | None
        try:
            with (
                watching(prepared.plan.source.settings, state, prepared.supervision.stall_timeout_ms),
                watching_clock(state),
                awaiting_peers(prepared.layout, state, prepared.plan.source.settings.start_timeout_ms / 1000),
            ):
                load_engine(prepared.engine).run(prepared.built.dataflow, runtime, prepared.layout)
        except BaseException as surfaced:  # noqa: BLE001 - the engine's panics are no Exception
            fault = state.fault or surfaced.__cause__ or surfaced
            if prepared.layout.is_cluster and state.fault is None and surfaced.__cause__ is None:
                fault = peer_lost(prepared.layout)
        else:
            fault = state.fault
        if state.stop.stalled is not None:
            raise state.stop.stalled from fault
        if fault is not None:
            raise_fault(prepared.plan.name, fault)
        raise_peer_stop(state.stop)

    def _take_hold(self, prepared: _PreparedStreamingRun) -> None:
        """From here on a signal is a request to stop, and a stop has its time."""
        stop, limit = prepared.built.state.stop, prepared.runtime.force_shutdown_timeout_ms
        if limit is not None:
            stop.limit_s = limit / 1000
        stop.overdue = self.on_overdue_stop
        stop.held = True
        prepared.built.state.leaves_group = self.leaves_group
        prepared.built.state.aborts_quietly = (
            prepared.runtime.workers_per_process == 1 and not prepared.layout.is_cluster
        )
        if self.supervisor is not None:
            stop.forced_by_signal = False
            prepared.built.state.supervisor = self.supervisor
        elif prepared.supervision.restarts:
            _log.warning("restarts_ignored", note="only `loom run` restarts a flow (streaming.supervision.restarts)")

    def _prepare(
        self,
        error_sinks: Mapping[ErrorKind, ErrorSink] | None,
        runtime: BytewaxRuntimeConfig | None,
        engine: EngineName | None = None,
    ) -> _PreparedStreamingRun:
        """`engine` goes before the one that the config names."""
        if self._flow is None or self._config is None:
            raise LoomError("this runner has no flow yet: use StreamingRunner.from_yaml(flow, path), or run(flow=…)")
        if self._prepared is not None:
            self._prepared.shutdown()
            self._prepared = None
        observability = self._observability_runtime()
        prepared = prepare(
            self._flow,
            self._config,
            self._registry,
            error_sinks=error_sinks,
            runtime=runtime,
            observability=observability,
            observed_by_caller=self._observability_given,
            beside=self.beside,
        )
        chosen = prepared.runtime
        if isolation_of(self.supervisor, prepared.plan.source) is not None:
            chosen = one_at_a_time(chosen)
        bridge = AsyncBridge(chosen.async_backend, use_uvloop=chosen.use_uvloop)
        engine = engine or engine_for(prepared.section.engine)
        built = load_engine(engine).lower(
            prepared.plan,
            BuildOptions(
                observability_runtime=observability,
                sink=prepared.sinks.terminal,
                error_sinks=prepared.error_sinks,
                bridge=bridge,
                resumable=chosen.recovery is not None,
                layout=prepared.layout,
                audits=prepared.sinks.audits,
            ),
        )
        supervision = prepared.section.supervision
        built.recovers(supervision.recoveries, prepared.renew)
        layout = prepared.layout
        self._prepared = _PreparedStreamingRun(prepared.plan, engine, built, chosen, supervision, bridge, layout)
        return self._prepared

    def _reconfigure(
        self,
        flow: StreamFlow[Any, Any] | None,
        config: ConfigContext | Mapping[str, Any] | None,
        config_path: str | PathLike[str] | None,
    ) -> None:
        if config is not None and config_path is not None:
            raise ValueError("run() takes config or config_path, not both")
        if flow is not None:
            self._flow = flow
        if config is not None or config_path is not None:
            self._derived = None
        if (config is not None or config_path is not None) and not self._observability_given:
            self._observability = None
        if config_path is not None:
            self._config = ConfigContext.from_yaml(config_path)
        elif config is not None:
            self._config = config if isinstance(config, ConfigContext) else ConfigContext.from_dict(config)

    def _observability_runtime(self) -> ObservabilityRuntime:
        if self._observability is not None:
            return self._observability
        if self._derived is None:
            derived = observers_of(self._config)
            if derived is None:
                return ObservabilityRuntime.noop()  # `prepare` tells what is wrong, with everything else
            self._derived = derived
        return self._derived

    @staticmethod
    def _start_log(prepared: _PreparedStreamingRun) -> None:
        plan, layout = prepared.plan, prepared.layout
        shared = {} if layout.is_alone else {"process": layout.index, "processes": layout.processes}
        source, engine = plan.source, prepared.engine
        topics, mode = list(source.topics), source.mode.summary
        _log.info("flow_started", flow=plan.name, topics=topics, delivery=mode, engine=engine, **shared)
        for warning in plan.warnings:
            _log.warning("flow_warning", code=warning.code.value, where=warning.where, message=warning.message)
