"""From a plan to a stage: everything between source and sink as one batch function. Called by the adapter, once per client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loom.core.observability import ObservabilityRuntime
from loom.streaming.compiler.names import SOURCE, child_id
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.compiler.registry import builder_of
from loom.streaming.errors import ErrorEnvelope, ErrorKind
from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.metrics import Counts
from loom.streaming.runtime.error_log import ErrorLog
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.codegen import Lap
from loom.streaming.runtime.stages.decode import BareHead, Head, build_bare, build_head, build_record, can_watch, of_one
from loom.streaming.runtime.stages.failures import NOT_DECODED
from loom.streaming.runtime.stages.laps import noted_lap, timed_lap
from loom.streaming.runtime.stages.node_input import NOWHERE
from loom.streaming.runtime.stages.node_timer import NodeTimer
from loom.streaming.runtime.stages.replay_entry import honour_replays
from loom.streaming.runtime.stages.services import StageServices
from loom.streaming.runtime.stages.slots import OutputSlots
from loom.streaming.runtime.stages.stage import Stage, TracesRecords

__all__ = ["build_stage"]


def build_stage(
    plan: CompiledPlan,
    slots: OutputSlots,
    view: RecordAccessor,
    counts: Counts,
    log_drop: Callable[[ErrorEnvelope[Any]], None],
    error_log: ErrorLog | None = None,
    *,
    observability: ObservabilityRuntime | None = None,
    timer: NodeTimer | None = None,
    services: StageServices | None = None,
    tracer: TracesRecords | None = None,
) -> Stage:
    """Resolve a plan to closures for records of one view. What has a default is shared by the stages of a run."""
    stage = Stage(counts, slots.names, view, services)
    stage.tracer = tracer
    build = StageBuilder(
        builder_of, plan, slots, view, counts, stage, log_drop, error_log or ErrorLog(), observability, timer
    )
    entry, inside, undecoded = build.build()
    replays = honour_replays(build, undecoded) if plan.source.settings.replay_steps else lambda head: head
    stage.head = replays(build_head(plan.source, view, entry, undecoded, inside))
    if timer is not None:
        source = child_id(plan.name, SOURCE)

        def telling(lap: Lap) -> Head:
            return replays(build_head(plan.source, view, entry, undecoded, inside, lap=lap, begin=source))

        timed = telling(timed_lap(timer)) if timer.times_batches else stage.head
        if tracer is not None:
            watched: Head | None = None
            bare: tuple[BareHead, BareHead] | None = None
            if can_watch(plan.source):
                watched = build_head(plan.source, view, entry, undecoded, inside, watch=tracer.watch)
                unwatched = build_bare(plan.source, view, entry, undecoded, inside)
                looking = build_bare(plan.source, view, entry, undecoded, inside, tracer.watch)
                if unwatched is not None and looking is not None:
                    bare = unwatched, looking
                followed = build_record(plan.source, view, entry, undecoded, inside, timer=timer, begin=source)
            else:
                followed = of_one(telling(noted_lap(timer)))
            stage.head = timed = tracer.head(stage.head, timed, followed, watched, bare, stage.results)
        stage.time_with(timer, timed)

    def refuse(error: Exception, origin: Any) -> None:
        # Rare, and built late: as a way to the error route like any other it would hold back what need not wait.
        build.fail(child_id(plan.name, SOURCE), (), NOWHERE, kind=ErrorKind.TASK)(error, NOT_DECODED, origin, None)

    stage.refuse = refuse
    return stage
