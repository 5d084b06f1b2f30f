"""Builds a Bytewax dataflow for a caller who runs it. Loads the engine when it is called, and says so where it is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loom.core.async_bridge import AsyncBridge
from loom.core.observability import ObservabilityRuntime
from loom.streaming.compiler.model import NodePath
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.errors import ErrorKind
from loom.streaming.runtime.assembly import BuiltDataflow
from loom.streaming.runtime.build_options import BuildOptions
from loom.streaming.runtime.commit import CommitTracker
from loom.streaming.runtime.engine import load_engine

__all__ = ["build_dataflow", "build_dataflow_with_shutdown"]


def build_dataflow(
    plan: CompiledPlan,
    *,
    observability_runtime: ObservabilityRuntime | None = None,
    source: Any = None,
    sink: Any = None,
    terminal_sinks: Mapping[NodePath, Any] | None = None,
    error_sinks: Mapping[ErrorKind, Any] | None = None,
) -> Any:
    """The dataflow of a plan, for `cli_main` or any other way to run one. Opens nothing.

    What the dataflow opens is closed when its last part closes. If this is called from the main thread, SIGTERM and SIGINT stop
    a run in order.

    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> out = []
    >>> source = TestingSource([Message(Order(7), MessageMeta("mine"))])
    >>> run_main(build_dataflow(compiled(Price, output=IntoTopic("orders.priced")), source=source, sink=TestingSink(out)))
    >>> [message.payload for message in out]
    [PricedOrder(id=7)]

    Args:
        plan: the plan.
        observability_runtime: the observers of the run.
        source: a Bytewax source in place of the topic; yields `Message`s or `KafkaRecord`s.
        sink: a Bytewax sink or an `IntoSink` in place of the output.
        terminal_sinks: as `sink`, for outputs inside the process, by node path.
        error_sinks: as `sink`, for errors, by kind; they receive `ErrorEnvelope`s.

    Returns:
        A Bytewax `Dataflow`.

    Raises:
        ValueError: for a path that leads to no output, or a `sink` for a flow without one.
        TypeError: for a source or sink of another type.
        EngineMissingError: if Bytewax is not installed.
    """
    options = BuildOptions(observability_runtime, source, sink, terminal_sinks, error_sinks)
    return load_engine("bytewax").lower(plan, options).dataflow


def build_dataflow_with_shutdown(
    plan: CompiledPlan,
    *,
    observability_runtime: ObservabilityRuntime | None = None,
    source: Any = None,
    sink: Any = None,
    terminal_sinks: Mapping[NodePath, Any] | None = None,
    error_sinks: Mapping[ErrorKind, Any] | None = None,
    bridge: AsyncBridge | None = None,
    commit_tracker: CommitTracker | None = None,
) -> BuiltDataflow:
    """As `build_dataflow`; the result also has `.shutdown()`, which stops a run in order and is idempotent.

    >>> built = build_dataflow_with_shutdown(compiled(Price, output=IntoTopic("orders.priced")))
    >>> type(built.dataflow).__name__
    'Dataflow'
    >>> built.shutdown()

    Args:
        plan: the plan.
        observability_runtime: the observers of the run.
        source: a Bytewax source in place of the topic.
        sink: a Bytewax sink or an `IntoSink` in place of the output.
        terminal_sinks: as `sink`, for outputs inside the process, by node path.
        error_sinks: as `sink`, for errors, by kind.
        bridge: an `AsyncBridge` for async steps and for sinks that need one. Whoever creates it closes it; without one a flow
            with async steps gets an asyncio bridge of its own.
        commit_tracker: receives committable offsets instead of the consumer group; refused with `exactly_once`.

    Returns:
        An object with `.dataflow` and `.shutdown()`.

    Raises:
        ValueError: as `build_dataflow`, and for a `commit_tracker` with `exactly_once`.
        TypeError: as `build_dataflow`, and for a `commit_tracker` without a plain method `confirm`.
        EngineMissingError: if Bytewax is not installed.
    """
    options = BuildOptions(
        observability_runtime, source, sink, terminal_sinks, error_sinks, bridge=bridge, commit_tracker=commit_tracker
    )
    return load_engine("bytewax").lower(plan, options)
