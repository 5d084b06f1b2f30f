"""What the parts of one running flow share: the stop, the frozen positions, the counters, the first fault.

The way of a position: the source puts it into a batch, the stage says how far it is safe, the sink freezes it once
everything before it is durable, and the source confirms what is frozen when the epoch's barrier is behind it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from loom.core.logger import get_logger
from loom.core.observability import EventKind, LifecycleEvent, ObservabilityRuntime, Scope
from loom.streaming.bytewax.errors import ForcedShutdownError
from loom.streaming.kafka.record import TopicPartition
from loom.streaming.metrics import FlowMetrics

__all__ = ["CommitTracker", "Delivery", "StopSignal"]


_log = get_logger(__name__)

#: seconds beyond the limit of a stop after which it is called overdue
_OVERDUE_AFTER = 1.0


@runtime_checkable
class CommitTracker(Protocol):
    """Is handed the positions that have become safe to confirm."""

    def confirm(self, positions: Mapping[TopicPartition, int]) -> None:
        """Called on the worker's thread, behind the barrier, with the next offset to read of each partition whose
        earlier records are all durable. Raising ends the run."""


class StopSignal:
    """A request to stop, seen by every source at its next batch. Set from signal handlers and other threads."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._deadline: float | None = None
        #: how long the whole stop may take, in seconds; `None`: as long as it takes
        self.limit_s: float | None = None
        self.reason = ""
        #: a part is open, so there is somebody to see the request; or a runner is about to open them
        self.running = False
        self.held = False
        #: called once when the whole stop has taken longer than it may and a second more
        self.overdue: Callable[[], None] | None = None

    @property
    def requested(self) -> bool:
        """Whether the flow has been asked to stop."""
        return self._requested.is_set()

    def request(self, reason: str) -> None:
        """Ask the flow to stop. The first call starts the clock; later ones change nothing."""
        if not self._requested.is_set():
            self.reason = reason
            if self.limit_s is not None:
                self._deadline = time.monotonic() + self.limit_s
                if self.overdue is not None:
                    # For code that never comes back to a wait of ours. A run that is over in time leaves it unheard.
                    timer = threading.Timer(self.limit_s + _OVERDUE_AFTER, self._overdue)
                    timer.daemon = True
                    timer.start()
            self._requested.set()

    def _overdue(self) -> None:
        if self.held and self.overdue is not None:
            self.overdue()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until somebody asks for the stop; `False` when the time is over first."""
        return self._requested.wait(timeout_s)

    def check_deadline(self, waiting_for: str) -> None:
        """Raise `ForcedShutdownError` when the stop has had its time. Called between the slices of every wait."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise ForcedShutdownError(
                f"the stop was not done within {self.limit_s} s; still waiting for {waiting_for}. What is not "
                "confirmed will be read again"
            )


class Delivery:
    """The shared state of one built dataflow."""

    def __init__(self, observability: ObservabilityRuntime) -> None:
        self.stop = StopSignal()
        self._observability = observability
        self.metrics = FlowMetrics()
        #: positions whose results are durable, set by the sink at its snapshot, read by the sources
        self.frozen: dict[TopicPartition, int] = {}
        #: when each source client last had records, in monotonic seconds, so that an idle one knows of a busy one
        self.last_busy: dict[int, float] = {}
        self.fault: BaseException | None = None
        self._open: dict[object, _Opened] = {}
        self._lock = threading.Lock()

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
