"""A plan and everything that one run of it shares, put together for an engine. Opens nothing.

The engine's adapter makes an `Assembly`, and of it a source, one fused stage for each worker, and a sink part.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from loom.core.async_bridge import AsyncBridge
from loom.core.logger import get_logger
from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.compiler.step_memory import CannotForgetError, Memory
from loom.streaming.errors import ErrorEnvelope
from loom.streaming.failpoints import Failpoint, failpoint
from loom.streaming.kafka.client_records import CLIENT_RECORDS
from loom.streaming.kafka.log_ends import LogEnds
from loom.streaming.kafka.offset_metadata import RunMetadata
from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.claim import LayoutClaim
from loom.streaming.runtime.early_writers import EarlyWriters
from loom.streaming.runtime.exactly_once import ExactlyOnce
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.member_transactions import MemberTransactions
from loom.streaming.runtime.output_table import OutputTable
from loom.streaming.runtime.preflight import Preflight
from loom.streaming.runtime.producers import NoProducers, ProducerPool, RecordWriter
from loom.streaming.runtime.recoveries import NextTransaction, OtherProducers, Recoveries, Recovery
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.signals import SignalHandlers
from loom.streaming.runtime.stages.fuse import build_stage
from loom.streaming.runtime.stages.services import StageServices
from loom.streaming.runtime.stages.stage import Stage
from loom.streaming.runtime.telemetry.broker_monitor import BrokerMonitor
from loom.streaming.runtime.telemetry.flow_metrics import FlowMetricsSource
from loom.streaming.runtime.telemetry.node_times import timer_of
from loom.streaming.runtime.telemetry.record_tracing import TracedErrors, tracer_of
from loom.streaming.runtime.worker_source import OpenWorker

if TYPE_CHECKING:
    from loom.streaming.runtime.telemetry.live import LivePicture

__all__ = ["Assembly", "BuiltDataflow", "MakeStage", "Transport"]

_log = get_logger(__name__)

MakeStage: TypeAlias = Callable[[], Stage]


class Transport(LoomFrozenStruct):
    """Both ends of a run: how its records are read, where they come from, where results that are records go."""

    view: RecordAccessor
    #: makes the source of each worker
    source: Callable[[RunState, MakeStage], OpenWorker]
    #: `None` for the producers of the plan's topics
    writers: Callable[[], RecordWriter] | None
    #: may replace the ways out of the plan
    outlets: Callable[[OutputTable], OutputTable] | None = None


class Assembly:
    """What the parts of one run share."""

    def __init__(
        self,
        plan: CompiledPlan,
        outputs: OutputTable,
        state: RunState,
        *,
        reads_kafka: bool,
        owns_group: bool,
        bridge: AsyncBridge | None = None,
        layout: Layout = Layout(),  # noqa: B008 - frozen
        resumable: bool = False,
    ) -> None:
        self.plan = plan
        self.layout = layout
        self._reads_kafka = reads_kafka
        self.outputs = outputs
        self.state = state
        self.preflight = Preflight(
            plan,
            outputs,
            reads_kafka=reads_kafka,
            owns_group=owns_group,
            waiting=state.stop.check_start,
            clusters=state.clusters,
        )
        shares = plan.source.settings.shares_group
        writers = None if shares else layout.processes
        self.metadata = RunMetadata(
            plan.name, self.source_partitions, writers=writers, mode=plan.source.settings.membership.value
        )
        self._counts = state.metrics.part()
        self.services = StageServices(state, bridge)
        self.exactly_once: ExactlyOnce | None = None
        if plan.source.mode.transaction:
            self.exactly_once = (
                MemberTransactions(plan, self.preflight, state.stop, self.metadata, state.clusters, state.offsets)
                if shares
                else ExactlyOnce(plan, self.preflight, state.stop, self.metadata, state.clusters, layout)
            )
            state.logs_gone.append(self.exactly_once.renewed)
        self._lock = threading.Lock()
        #: the plan whose steps the current attempt uses, and the number of that
        self._in_use = plan, 0
        self.claim: LayoutClaim | None = None
        if owns_group and self.exactly_once is None and not shares:
            self.claim = LayoutClaim(
                plan, layout, self.preflight, state.stop, self.metadata, state.clusters, keeps_unknown=resumable
            )
        #: what is measured of the run, and who asks the brokers for it, where an observer serves metrics
        self.monitor: BrokerMonitor | None = None
        self.metrics: FlowMetricsSource | None = None
        self.live: LivePicture | None = None
        if state.observability.measures is not None:
            if reads_kafka:
                self.monitor = BrokerMonitor(
                    lambda: LogEnds(plan.source.settings.to_confluent_config()), self._read_now
                )
            state.process_index = layout.index
            self.metrics = FlowMetricsSource(plan, outputs, state, self.monitor, reads_kafka=reads_kafka)
            # Most runs show nothing, and need not load it.
            from loom.streaming.runtime.telemetry.live import LivePicture

            self.live = LivePicture(plan, state, self.monitor, self.metrics, layout)
            self.metrics.also = self.live.pages
            state.observability.attach(self.metrics)

    def _read_now(self) -> list[TopicPartition]:
        return [row.partition for standing in list(self.state.standings) for row in standing.offsets.rows]

    def source_partitions(self) -> Mapping[str, tuple[int, ...]]:
        """The partition numbers of the source's topics, asked of the broker once."""
        return self.preflight.snapshot().source_partitions

    def check_layout(self) -> None:
        """Raise `TooManyProcessesError` where a process would have nothing to read."""
        if self._reads_kafka and not self.layout.is_alone and not self.plan.source.settings.shares_group:
            self.layout.check(self.source_partitions())

    def own_partitions(self) -> list[TopicPartition]:
        """The partitions of the source's topics that this process reads, with the group taken over by its layout."""
        if self.claim is not None:
            self.claim.open()
        return self.layout.owned(self.source_partitions())

    def make_stage(self, view: RecordAccessor) -> Stage:
        """The fused stage of one worker."""
        state, counts = self.state, self.state.metrics.part()
        timer = timer_of(self.plan, state.observability, counts)
        tracer = tracer_of(self.plan, self.outputs, view, state.observability, timer)
        if tracer is not None:
            view = tracer.view
        return build_stage(
            self._plan_in_use(),
            self.outputs.slots,
            view,
            counts,
            _log_drop,
            state.error_log if tracer is None else TracedErrors(state.error_log, tracer),
            observability=state.observability,
            tracer=tracer,
            services=self.services,
            timer=timer,
        )

    def _plan_in_use(self) -> CompiledPlan:
        """The plan, with steps that have seen nothing of an earlier attempt."""
        state = self.state
        with self._lock:
            if state.recoveries is not None and self._in_use[1] != state.attempt:
                self._in_use = state.recoveries.renewed_plan(), state.attempt
            return self._in_use[0]

    @property
    def member_transactions(self) -> MemberTransactions | None:
        """The transactions of a member of a group, where there are any."""
        return self.exactly_once if isinstance(self.exactly_once, MemberTransactions) else None

    def recovers(self, most: int, renew: Callable[[], CompiledPlan]) -> None:
        """Let the run be taken up again after an aborted transaction or a failed producer.

        `renew` makes a plan with fresh steps.
        """
        recovery = self._recovery() if most else None
        if recovery is None:
            return
        memory = Memory(self.plan)
        try:
            memory.check()
        except CannotForgetError as error:
            # Without transactions it takes a client that fails for good, which is rare.
            log = _log.info if self.exactly_once is None else _log.warning
            log("recovery_needs_restart", reason=str(error))
            return

        def renewed() -> CompiledPlan:
            memory.restore()
            return renew()

        self.state.recoveries = Recoveries(most, renewed, recovery, self.state.stop)

    def _recovery(self) -> Recovery | None:
        def producers() -> RecordWriter:
            return self.open_producers(CLIENT_RECORDS)

        if self.exactly_once is not None:
            return NextTransaction(self.exactly_once, producers)
        # Where offsets are committed ahead of their results, what is lost with a client cannot be read again.
        behind = self._reads_kafka and self.plan.source.mode.commits_behind_mark
        return OtherProducers(producers) if behind else None

    def open_producers(self, view: RecordAccessor) -> RecordWriter:
        """The producers of the process, for its sink part."""
        if not self.outputs.topics():
            return NoProducers()
        state = self.state
        return ProducerPool(
            self.plan.name,
            self.outputs,
            view,
            self._counts,
            self.preflight.snapshot(),
            state.stop.check_deadline,
            self.exactly_once,
            state.clusters,
            state.error_log,
        )


class BuiltDataflow:
    """A dataflow of an engine, and the way to release what it opens."""

    def __init__(self, dataflow: Any, assembly: Assembly, writers: EarlyWriters) -> None:
        self.dataflow = dataflow
        self.state = assembly.state
        self._assembly = assembly
        self.metrics = assembly.metrics
        self.monitor = assembly.monitor
        self.live = assembly.live
        self._preflight = assembly.preflight
        self._exactly_once = assembly.exactly_once
        self._writers = writers
        self._signals = SignalHandlers(assembly.state.stop)
        self._signals.install()

    def recovers(self, most: int, renew: Callable[[], CompiledPlan]) -> None:
        """See `Assembly.recovers`."""
        self._assembly.recovers(most, renew)

    def check_brokers(self) -> None:
        """Everything that must be there before the engine starts: brokers, topics, and the fencing of predecessors.

        The producers are opened here, and connect while the engine loads and the source finds its positions.
        """
        self._preflight.snapshot()
        self._assembly.check_layout()
        if self._exactly_once is None:
            self._writers.open()
        self._preflight.group()
        if self._exactly_once is not None:
            self._exactly_once.open()
        elif self._assembly.claim is not None:
            self._assembly.claim.open()

    def shutdown(self) -> None:
        """Stop a run of this dataflow and release what it holds. Idempotent, from any thread.

        What an engine still uses is closed by its parts when they end.
        """
        self.state.stop.request("shutdown() was called")
        if self.state.stop.held or (self.state.stop.running and self.state.fault is None):
            # Perhaps on the engine's own thread: in a step, or in a signal handler of the caller's.
            return
        self._signals.restore()
        self.state.close_all(thread=threading.get_ident())

    def finish(self) -> None:
        """The engine has returned: close whatever it left open, give the signals back."""
        failpoint(Failpoint.CLOSING)
        self._signals.restore()
        self.state.close_all()
        self._writers.close()
        if self._exactly_once is not None:
            self._exactly_once.close()


def _log_drop(envelope: ErrorEnvelope[Any]) -> None:
    _log.warning(
        "record_dropped",
        kind=envelope.kind.value,
        step=envelope.step_id,
        reason=envelope.reason,
        topic=envelope.source.topic if envelope.source else None,
        partition=envelope.source.partition if envelope.source else None,
        offset=envelope.source.offset if envelope.source else None,
    )
