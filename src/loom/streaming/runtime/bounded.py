"""A flow over records that come to an end, from a file say: the plan, the stages and the epochs of a stream, in this thread.

Called by `loom run --source`. Results go to their topics, or to writers of the caller's in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from msgspec.structs import replace

from loom.core.async_bridge import AsyncBridge
from loom.core.model import LoomFrozenStruct
from loom.streaming.kafka.delivery import Delivery, mode_of
from loom.streaming.metrics import FlowCounts
from loom.streaming.record import KafkaRecord, TopicPartition
from loom.streaming.runtime.assembly import BuiltDataflow, MakeStage, Transport
from loom.streaming.runtime.build_options import BuildOptions
from loom.streaming.runtime.commit import CommitTracker, TrackerCommitter
from loom.streaming.runtime.engine import load_engine
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.offsets import WorkerOffsets
from loom.streaming.runtime.output_table import OutputTable
from loom.streaming.runtime.override_view import override_view
from loom.streaming.runtime.prepare import PreparedFlow
from loom.streaming.runtime.producers import RecordWriter
from loom.streaming.runtime.run_errors import raise_fault
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.source_loop import SourceLoop
from loom.streaming.runtime.stages.stage import Stage
from loom.streaming.runtime.stages.stage_io import Positions, SourceBatch
from loom.streaming.runtime.worker_source import OpenWorker, WorkerSource

__all__ = ["BoundedRun", "run_bounded"]


class BoundedRun(LoomFrozenStruct):
    """What became of a run over records."""

    counts: FlowCounts
    #: why it ended before its input was over
    stopped: str | None = None


def run_bounded(
    prepared: PreparedFlow,
    records: Iterator[KafkaRecord],
    tracker: CommitTracker,
    *,
    writers: Callable[[OutputTable], RecordWriter] | None = None,
) -> BoundedRun:
    """Run a flow until its records are over, or it is stopped in order by a signal. One thread does all of it.

    `tracker` is told of the offsets before which everything is durable, at the end of each epoch. Without `writers` results
    go to their topics, at least once. Raises what a run raises.
    """
    plan, runtime = prepared.plan, replace(prepared.runtime, workers_per_process=1)
    plan = replace(plan, source=replace(plan.source, mode=mode_of(Delivery.AT_LEAST_ONCE)))
    view, tables, ends = override_view(plan.source), list[OutputTable](), list[bool]()

    def numbered() -> Iterator[KafkaRecord]:
        yield from records
        ends.append(True)

    def source(state: RunState, make_stage: MakeStage) -> OpenWorker:
        batch_size, read = plan.source.settings.batch_size, numbered()

        def open_worker(_index: int, _count: int) -> WorkerSource:
            return _RecordWorker(read, batch_size, state, make_stage(), tracker)

        return open_worker

    def noted(table: OutputTable) -> OutputTable:
        tables.append(table)
        return table

    transport = Transport(view, source, None if writers is None else lambda: writers(tables[0]), noted)
    engine = load_engine("loop")
    bridge = AsyncBridge(runtime.async_backend, use_uvloop=runtime.use_uvloop)
    built = engine.lower(
        plan,
        BuildOptions(
            sink=prepared.sinks.terminal,
            error_sinks=prepared.error_sinks,
            audits=prepared.sinks.audits,
            bridge=bridge,
            commit_tracker=tracker,
            transport=transport,
            resumable=False,
        ),
    )
    built.state.epochs.interval_s = runtime.epoch_ms / 1000
    try:
        _run(plan.name, built, lambda: engine.run(built.dataflow, runtime, Layout()))
    finally:
        bridge.shutdown()
    return BoundedRun(built.state.metrics.read(), None if ends else built.state.stop.reason)


def _run(flow: str, built: BuiltDataflow, run: Callable[[], None]) -> None:
    try:
        run()
    except BaseException as surfaced:  # noqa: BLE001 - whatever it is, the fault of a part explains it
        raise_fault(flow, built.state.fault or surfaced.__cause__ or surfaced)
    else:
        if built.state.fault is not None:
            raise_fault(flow, built.state.fault)
    finally:
        built.finish()


class _RecordWorker:
    """The worker of such a run."""

    def __init__(
        self, records: Iterator[KafkaRecord], batch_size: int, state: RunState, stage: Stage, tracker: CommitTracker
    ) -> None:
        offsets = state.offsets.worker()
        reader = _RecordReader(records, offsets)
        self._feed = SourceLoop(reader, stage, state, TrackerCommitter(offsets, tracker), batch_size=batch_size)
        self._state = state
        state.opened(self, "source", stage.close)

    def next_batch(self) -> list[SourceBatch]:
        return self._feed.next_batch()

    def close(self) -> None:
        self._state.closed(self)


class _RecordReader:
    def __init__(self, records: Iterator[KafkaRecord], offsets: WorkerOffsets) -> None:
        self._records = records
        self._offsets = offsets

    def read(self, most: int) -> tuple[Sequence[KafkaRecord], Positions, bool]:
        found = list(islice(self._records, most))
        positions = {}
        for record in found:
            if record.partition is not None and record.offset is not None:
                place = TopicPartition(record.topic, record.partition)
                self._offsets.adopt(place, record.offset)
                positions[place] = record.offset + 1
        self._offsets.advance(positions)
        return found, positions, not found
