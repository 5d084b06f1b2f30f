"""What the parts of one running flow share: the stop, the offsets, the counters, the first fault.

The path of an offset: the source puts it into a batch, the stage says how far it is completed, the sink part makes it
committable at the mark that ends the epoch, once everything before it is durable, and the source commits it at its next call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import NamedTuple

from loom.core.logger import get_logger
from loom.core.observability import ObservabilityRuntime, Scope
from loom.core.observability.runtime import Span
from loom.streaming.kafka.outage import Clusters
from loom.streaming.metrics import FlowMetrics
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.epochs import Epochs
from loom.streaming.runtime.error_log import ErrorLog
from loom.streaming.runtime.offsets import OffsetTable
from loom.streaming.runtime.recoveries import Recoveries
from loom.streaming.runtime.stages.stage_io import GoneLogs
from loom.streaming.runtime.standing import Standing
from loom.streaming.runtime.stop import StopSignal
from loom.streaming.runtime.supervised import Supervisor

__all__ = ["RunState"]

_log = get_logger(__name__)


class RunState:
    """The shared state of one built dataflow."""

    def __init__(self, observability: ObservabilityRuntime, source_name: str = "source") -> None:
        #: the logical name of what is read
        self.source_name = source_name
        self.stop = StopSignal()
        self.epochs = Epochs()
        #: the length of the engine's epochs; unknown under a plain `cli_main`, where this default applies
        self.engine_epoch_s = 10.0
        self.observability = observability
        measures = observability.measures
        self.metrics = FlowMetrics(measured=measures is not None)
        #: which of several processes of one machine this is
        self.process_index = 0
        #: failed records that are logged
        self.error_log = ErrorLog()
        #: what the clients of the run report about their brokers; outages are logged while any of them is open
        self.clusters = Clusters(
            lambda: bool(self._open), statistics_ms=measures.client_statistics_ms if measures is not None else 0
        )
        self.offsets = OffsetTable()
        #: the state of each source client, for the watchdog
        self.standings: list[Standing] = []
        #: raised to request the lag; each source client answers with the offsets after what it has read
        self.lag_asked = 0
        self.lag: dict[int, int] = {}
        #: who starts this process again when the run fails
        self.supervisor: Supervisor | None = None
        #: how often the run has been taken up again; what comes of an earlier attempt is dropped
        self.attempt = 0
        #: how a run is taken up again; `None` where it is not
        self.recoveries: Recoveries | None = None
        #: a static member of a group leaves it for good when it stops
        self.leaves_group = False
        #: how often the group has given this process partitions, or taken some away
        self.rebalances = 0
        #: how many workers the engine runs; unknown under a plain `cli_main`
        self.workers = 1
        #: when each source client last had records, in monotonic seconds, so that an idle one knows of a busy one
        self.last_busy: dict[int, float] = {}
        #: called with partitions whose log is gone, on the sink's thread
        self.logs_gone: list[Callable[[Collection[TopicPartition]], None]] = []
        self.fault: BaseException | None = None
        #: a runner runs the engine with one worker, and looks at `fault` when it returns
        self.aborts_quietly = False
        self._open: dict[object, _Opened] = {}
        self._below: _Opened | None = None
        self._lock = threading.Lock()

    def runs_with(self, epoch_s: float, workers: int) -> None:
        """A runner runs the engine with epochs of this length, in seconds, and with so many workers."""
        self.epochs.interval_s = self.engine_epoch_s = epoch_s
        self.workers = workers

    def forget(self, gone: GoneLogs) -> None:
        """All that came from these logs has reached the sink part, on whose thread this is called."""
        for tell in self.logs_gone:
            tell(gone.partitions)

    def aborting(self) -> bool:
        """A fault ends the run, and a runner raises it: the parts leave the engine without raising it there.

        What an operator raises the engine reports itself, with places in its own source. Of several workers one that
        aborts is waited for by the others for ever, so there it is raised.
        """
        return self.fault is not None and self.aborts_quietly

    def failed(self, fault: BaseException) -> None:
        """Remember the first fault; with several workers the engine reports only that one of them panicked."""
        with self._lock:
            if self.fault is None:
                self.fault = fault

    def opened(self, thing: object, what: str, close: Callable[[], None]) -> None:
        """Note something that must be closed in the end, in whatever way the run ends."""
        span = self.observability.begin(Scope.TRANSPORT, what)
        with self._lock:
            self._open[thing] = _Opened(what, close, threading.get_ident(), span)
            self.stop.running = True

    def below(self, what: str, close: Callable[[], object]) -> None:
        """Note the one thing that everything else may use, to be closed when nothing else is open any more."""
        self._below = _Opened(what, close, threading.get_ident(), self.observability.begin(Scope.TRANSPORT, what))

    def left_s(self) -> float | None:
        """How many seconds a stop has left, or would have if it were requested now; `None` means no limit."""
        return self.stop.left_s()

    def closed(self, thing: object) -> None:
        """Close one thing that was opened; again is no harm."""
        with self._lock:
            found = self._open.pop(thing, None)
            self.stop.running = bool(self._open)
        if found is None:
            return
        self._close(found)
        self._close_below()

    def close_all(self, *, thread: int | None = None) -> None:
        """Close what is still open, the last opened first; with `thread`, only what that thread opened."""
        with self._lock:
            things = [thing for thing, found in self._open.items() if thread in (None, found.thread)]
        for thing in reversed(things):
            self.closed(thing)
        self._close_below()

    def _close_below(self) -> None:
        with self._lock:
            if self._open or self._below is None:
                return
            below, self._below = self._below, None
        self._close(below)

    def _close(self, found: _Opened) -> None:
        failure: Exception | None = None
        try:
            found.close()
        except Exception as error:  # noqa: BLE001 - a close() that raises would abort the interpreter (engine)
            failure = error
            _log.warning("close_failed", what=found.what, error=str(error))
        if found.span is not None:
            found.span.end(failure)


class _Opened(NamedTuple):
    what: str
    close: Callable[[], object]
    thread: int
    #: tells observers of the end
    span: Span | None
