"""What the parts of one running flow share: the stop, the frozen positions, the counters, the first fault.

The way of a position: the source puts it into a batch, the stage says how far it is safe, the sink freezes it once
everything before it is durable, and the source confirms what is frozen when the epoch's barrier is behind it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from loom.core.errors import LoomError
from loom.core.logger import get_logger
from loom.core.observability import EventKind, LifecycleEvent, ObservabilityRuntime, Scope
from loom.streaming.bytewax.error_log import ErrorLog
from loom.streaming.bytewax.errors import ForcedShutdownError, StalledError
from loom.streaming.bytewax.stages.outcome import GoneLogs
from loom.streaming.bytewax.standing import Standing
from loom.streaming.bytewax.supervised import Supervisor
from loom.streaming.kafka.outage import Clusters
from loom.streaming.kafka.record import TopicPartition
from loom.streaming.metrics import FlowMetrics

__all__ = ["CommitTracker", "Delivery", "StartGivenUp", "StopSignal"]

_log = get_logger(__name__)

#: seconds beyond the limit of a stop after which it is called overdue
_OVERDUE_AFTER = 1.0
#: seconds between two lines about a stop that goes on
_SAY = 10.0


@runtime_checkable
class CommitTracker(Protocol):
    """Is handed the positions that have become safe to confirm."""

    def confirm(self, positions: Mapping[TopicPartition, int]) -> None:
        """Called on the worker's thread, behind the barrier, with the next offset to read of each partition whose
        earlier records are all durable. Raising ends the run."""


class StartGivenUp(Exception):
    """The flow was asked to stop while it waited for the broker before it had read anything. Never leaves a run."""


class StopSignal:
    """A request to stop, seen by every source at its next batch. Set from signal handlers and other threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._requested = threading.Event()
        self._deadline: float | None = None
        #: when the stop was asked for, and when it was last said that it still goes on, in monotonic seconds
        self._requested_at = self._said_at = 0.0
        #: how long the whole stop may take, in seconds; `None`: as long as it takes
        self.limit_s: float | None = None
        self.reason = ""
        #: what the watchdog found, when it is what asked
        self.stalled: StalledError | None = None
        #: a part is open, so there is somebody to see the request; or a runner has begun to run the flow
        self.running = False
        self.held = False
        #: called once, with what to say, when the whole stop has taken longer than it may and a second more
        self.overdue: Callable[[LoomError], None] | None = None
        #: whether a second signal means what it would without us; a supervisor sees to that itself
        self.forced_by_signal = True

    @property
    def requested(self) -> bool:
        """Whether the flow has been asked to stop."""
        return self._requested.is_set()

    def request(self, reason: str) -> None:
        """Ask the flow to stop. The first call starts the clock; later ones change nothing."""
        if not self._requested.is_set():
            self.reason = reason
            self._requested_at = self._said_at = self._clock()
            if self.limit_s is not None:
                self._deadline = self._clock() + self.limit_s
                # For code that never comes back to a wait of ours. A run that is over in time leaves it unheard.
                timer = threading.Timer(
                    self.limit_s + _OVERDUE_AFTER,
                    self.force,
                    [f"the stop took longer than force_shutdown_timeout_ms ({self.limit_s} s)"],
                )
                timer.daemon = True
                timer.start()
            self._requested.set()

    def request_stalled(self, found: StalledError, limit_s: float) -> None:
        """Stop a run that does not move on, within `limit_s` seconds unless the config allows other ones."""
        self.stalled = found
        if self.limit_s is None:
            self.limit_s = limit_s
        self.request("it stands still")

    def force(self, why: str, signal: int | None = None) -> None:
        """End a process that may be ended, as far as the run still goes on; `signal` is the one that asks for it."""
        forced = ForcedShutdownError(f"{why}, and the code that is at work does not come back: ending now")
        forced.signal = signal
        self.end_now(forced if signal is not None else self.stalled or forced)

    def end_now(self, found: LoomError) -> None:
        """End a process that may be ended, for this reason, as far as the run still goes on."""
        if not self.held:
            return
        if self.overdue is not None:
            self.overdue(found)
        else:
            _log.critical("the run does not come back, and this process is not ours to end", because=str(found))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until somebody asks for the stop; `False` when the time is over first."""
        return self._requested.wait(timeout_s)

    def check_deadline(self, waiting_for: str) -> None:
        """Raise `ForcedShutdownError` when the stop has had its time. Called between the slices of every wait.

        Says every 10 s what a stop waits for.
        """
        if self._deadline is not None and self._clock() > self._deadline:
            raise ForcedShutdownError(
                f"the stop was not done within {self.limit_s} s; still waiting for {waiting_for}. What is not "
                "confirmed will be read again"
            )
        if self.requested and (now := self._clock()) - self._said_at >= _SAY:
            self._said_at = now
            _log.warning("still_stopping", waiting_for=waiting_for, seconds=round(now - self._requested_at))

    def check_start(self, waiting_for: str) -> None:
        """Raise `StartGivenUp` when a stop was asked for. Called between the slices of waits before anything is read."""
        if self.requested:
            raise StartGivenUp(waiting_for)


class Delivery:
    """The shared state of one built dataflow."""

    def __init__(self, observability: ObservabilityRuntime) -> None:
        self.stop = StopSignal()
        #: how long the engine makes its epochs; under a plain `cli_main` we are not told, and this is its default
        self.epoch_s = 10.0
        self._observability = observability
        self.metrics = FlowMetrics()
        #: failed records, as far as they are logged
        self.error_log = ErrorLog()
        #: what the clients of the run are told of their brokers; outages are said while any of them is open
        self.clusters = Clusters(lambda: bool(self._open))
        #: positions whose results are durable, set by the sink at its snapshot, read by the sources
        self.frozen: dict[TopicPartition, int] = {}
        #: where each source client stands, for who watches
        self.standings: list[Standing] = []
        #: raised by whoever wants to know the lag; each source client answers with the offsets behind what it has read
        self.lag_asked = 0
        self.lag: dict[int, int] = {}
        #: who starts this process again when the run fails
        self.supervisor: Supervisor | None = None
        #: when each source client last had records, in monotonic seconds, so that an idle one knows of a busy one
        self.last_busy: dict[int, float] = {}
        #: told of partitions whose log is gone, on the sink's thread
        self.logs_gone: list[Callable[[Collection[TopicPartition]], None]] = []
        self.fault: BaseException | None = None
        self._open: dict[object, _Opened] = {}
        self._lock = threading.Lock()

    def forget(self, gone: GoneLogs) -> None:
        """No position in these logs may be confirmed any more. Called by the sink when all that came from them has reached it."""
        for partition in gone.partitions:
            self.frozen.pop(partition, None)
        for tell in self.logs_gone:
            tell(gone.partitions)
        gone.reached_sink = True

    def failed(self, fault: BaseException) -> None:
        """Remember the first fault; with several workers the engine reports only that one of them panicked."""
        with self._lock:
            if self.fault is None:
                self.fault = fault

    def opened(self, thing: object, what: str, close: Callable[[], None]) -> None:
        """Note something that must be closed in the end, in whatever way the run ends."""
        with self._lock:
            self._open[thing] = _Opened(what, close, threading.get_ident())
            self.stop.running = True
        self._observability.emit(LifecycleEvent(Scope.TRANSPORT, what, EventKind.START))

    def closed(self, thing: object) -> None:
        """Close one thing that was opened; again is no harm."""
        with self._lock:
            found = self._open.pop(thing, None)
            self.stop.running = bool(self._open)
        if found is not None:
            self._close(found)

    def close_all(self, *, thread: int | None = None) -> None:
        """Close what is still open, the last opened first; with `thread`, only what that thread opened."""
        with self._lock:
            things = [thing for thing, found in self._open.items() if thread in (None, found.thread)]
        for thing in reversed(things):
            self.closed(thing)

    def _close(self, found: _Opened) -> None:
        try:
            found.close()
        except Exception as error:  # noqa: BLE001 - a close() that raises would abort the interpreter (engine)
            _log.warning("closing failed", what=found.what, error=str(error))
        self._observability.emit(LifecycleEvent(Scope.TRANSPORT, found.what, EventKind.END))


class _Opened(NamedTuple):
    what: str
    close: Callable[[], None]
    thread: int
