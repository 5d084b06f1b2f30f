"""What every engine begins with: a plan and the ends of the caller's own become the parts of one run. Opens nothing.

An engine's `lower` calls `begin`, and makes a dataflow of its own of what it gets.
"""

from __future__ import annotations

import inspect
from typing import Any

from msgspec.structs import replace

from loom.core.observability import ObservabilityRuntime
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.kafka.client_records import CLIENT_RECORDS
from loom.streaming.kafka.delivery import Delivery, mode_of
from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.runtime.assembly import Assembly, BuiltDataflow
from loom.streaming.runtime.build_options import BuildOptions
from loom.streaming.runtime.commit import CommitTracker
from loom.streaming.runtime.custom_sinks import refuse_unshareable
from loom.streaming.runtime.early_writers import EarlyWriters
from loom.streaming.runtime.group_workers import GroupWorkers
from loom.streaming.runtime.kafka_workers import KafkaWorkers
from loom.streaming.runtime.member_checks import check_member_build
from loom.streaming.runtime.output_table import OutputTable, output_table_of
from loom.streaming.runtime.override_view import override_view
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.stages.stage import Stage

__all__ = ["Lowering", "begin"]


class Lowering:
    """The parts of one run, for an engine to put together."""

    def __init__(
        self, assembly: Assembly, view: RecordAccessor, writers: EarlyWriters, tracker: CommitTracker | None
    ) -> None:
        self.assembly = assembly
        self.writers = writers
        self.tracker = tracker
        self._view = view

    @property
    def state(self) -> RunState:
        """What the parts share."""
        return self.assembly.state

    @property
    def outputs(self) -> OutputTable:
        """The ways out."""
        return self.assembly.outputs

    def make_stage(self) -> Stage:
        """The stage of one worker."""
        return self.assembly.make_stage(self._view)

    @property
    def shares_group(self) -> bool:
        """Whether this process is a member of its group, so that what its workers read changes while it runs."""
        return self.assembly.plan.source.settings.shares_group

    def group_workers(self) -> GroupWorkers:
        """The workers of a member of a group. Raises `ValueError` for what a member cannot be combined with."""
        assembly = self.assembly
        by_snapshots = self.state.epochs.by_snapshots
        check_member_build(assembly.plan, has_tracker=self.tracker is not None, by_snapshots=by_snapshots)
        return GroupWorkers(
            assembly.plan.source,
            assembly.state,
            assembly.source_partitions,
            assembly.preflight.group,
            lambda: assembly.preflight.snapshot().source_topics,
            self.make_stage,
            assembly.metadata,
            assembly.member_transactions,
        )

    def kafka_workers(self) -> KafkaWorkers:
        """The workers of a run with a fixed assignment."""
        assembly = self.assembly
        return KafkaWorkers(
            assembly.plan.source,
            assembly.state,
            assembly.source_partitions,
            assembly.own_partitions,
            assembly.preflight.group,
            lambda: assembly.preflight.snapshot().source_topics,
            self.make_stage,
            self.tracker,
            assembly.metadata,
            assembly.exactly_once,
        )

    def built(self, dataflow: Any) -> BuiltDataflow:
        """The dataflow that was made of them, with the way to stop it."""
        return BuiltDataflow(dataflow, self.assembly, self.writers)


def begin(plan: CompiledPlan, options: BuildOptions) -> Lowering:
    """Check what the caller gave, and make the parts that do not depend on the engine.

    Raises `TypeError` and `ValueError` as `build_dataflow_with_shutdown` says, and `UnshareableSinkError` for a sink that several
    processes cannot have.
    """
    transport, commit_tracker = options.transport, options.commit_tracker
    if commit_tracker is not None:
        if not isinstance(commit_tracker, CommitTracker):
            raise TypeError(f"commit_tracker needs a method confirm(positions); {commit_tracker!r} has none")
        if inspect.iscoroutinefunction(commit_tracker.confirm):
            raise TypeError("commit_tracker.confirm is async and would never be awaited; make it a plain method")
        if plan.source.mode.transaction:
            raise ValueError("a commit_tracker cannot be kept with delivery: exactly_once")
    state = RunState(options.observability_runtime or ObservabilityRuntime.noop(), plan.source.name)
    outputs = output_table_of(
        plan,
        sink=options.sink,
        terminal_sinks=options.terminal_sinks,
        error_sinks=options.error_sinks,
        audits=options.audits,
    )
    if transport is not None and transport.outlets is not None:
        outputs = transport.outlets(outputs)
    if options.source is not None or outputs.has_sinks:
        plan = _without_transactions(plan)
    refuse_unshareable(outputs, options.layout)
    # What brings both ends along, or its records alone, has no broker to ask where they end.
    reads_kafka = options.source is None and transport is None
    owns_group = reads_kafka and commit_tracker is None
    assembly = Assembly(
        plan,
        outputs,
        state,
        reads_kafka=reads_kafka,
        owns_group=owns_group,
        bridge=options.bridge,
        layout=options.layout,
        resumable=options.resumable,
    )
    if transport is not None and transport.writers is not None:
        return Lowering(assembly, transport.view, EarlyWriters(transport.writers), commit_tracker)
    view = CLIENT_RECORDS if reads_kafka else override_view(plan.source)
    return Lowering(assembly, view, EarlyWriters(lambda: assembly.open_producers(view)), commit_tracker)


def _without_transactions(plan: CompiledPlan) -> CompiledPlan:
    """Ends of the caller's own cannot take part in a transaction: such a build keeps at-least-once instead."""
    if not plan.source.mode.transaction:
        return plan
    return replace(plan, source=replace(plan.source, mode=mode_of(Delivery.AT_LEAST_ONCE)))
