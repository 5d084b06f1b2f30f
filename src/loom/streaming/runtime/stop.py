"""The stop of a run: requested by signals, other threads and the watchdog; seen by every source at its next batch."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

from loom.core.errors import LoomError
from loom.core.logger import get_logger
from loom.streaming.runtime.run_errors import ForcedShutdownError, StalledError
from loom.streaming.runtime.waker import Waker

__all__ = ["StartGivenUp", "StopSignal"]

_log = get_logger(__name__)

#: seconds beyond the limit of a stop after which it is called overdue
_OVERDUE_AFTER = 1.0
#: seconds between two lines about a stop in progress
_SAY = 10.0


class StartGivenUp(Exception):
    """The flow was asked to stop while it waited for the broker before it had read anything. Never leaves a run."""


class StopSignal:
    """A request to stop, seen by every source at its next batch. Set from signal handlers and other threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._requested = threading.Event()
        #: whose rests it ends
        self._wakers: list[weakref.ref[Waker]] = []
        self._deadline: float | None = None
        #: when the stop was requested, and when its progress was last logged, in monotonic seconds
        self._requested_at = self._said_at = 0.0
        #: how long the whole stop may take, in seconds; `None`: as long as it takes
        self.limit_s: float | None = None
        self.reason = ""
        #: the run is to be followed by another one, and that because a peer's is
        self.restarts = self.peer_restarts = False
        #: what the watchdog found, when it is what asked
        self.stalled: StalledError | None = None
        #: a part is open, so the request will be seen; or a runner has begun to run the flow
        self.running = False
        self.held = False
        #: called once, with what to say, when the whole stop has taken longer than it may and a second more
        self.overdue: Callable[[LoomError], None] | None = None
        #: whether a second signal means what it would without us; a supervisor sees to that itself
        self.forced_by_signal = True

    def wakes(self, waker: Waker) -> None:
        """A request ends the rest of this worker as well. It is forgotten when nothing else refers to it."""
        self._wakers = [*(known for known in self._wakers if known() is not None), weakref.ref(waker)]

    @property
    def requested(self) -> bool:
        """Whether the flow has been asked to stop."""
        return self._requested.is_set()

    def request(self, reason: str, *, restart: bool = False) -> None:
        """Ask the flow to stop. The first call starts the clock; later ones change nothing.

        `restart`: not because somebody wants it down, so another run is to follow.
        """
        if not self._requested.is_set():
            self.reason, self.restarts = reason, restart
            self._requested_at = self._said_at = self._clock()
            if self.limit_s is not None:
                self._deadline = self._clock() + self.limit_s
                # For code that never returns to a wait of ours. A run that ends in time never needs it.
                timer = threading.Timer(
                    self.limit_s + _OVERDUE_AFTER,
                    self.force,
                    [f"the stop took longer than force_shutdown_timeout_ms ({self.limit_s} s)"],
                )
                timer.daemon = True
                timer.start()
            self._requested.set()
            for known in self._wakers:
                waker = known()
                if waker is not None:
                    waker.set()

    def request_stalled(self, found: StalledError, limit_s: float) -> None:
        """Stop a run that does not move on, within `limit_s` seconds unless the config allows other ones."""
        self.stalled = found
        if self.limit_s is None:
            self.limit_s = limit_s
        self.request("it is stalled", restart=True)

    def force(self, why: str, signal: int | None = None) -> None:
        """End a process that may be ended, if the run is still going; `signal` is the cause."""
        forced = ForcedShutdownError(f"{why}, and the code that is at work does not come back: ending now")
        forced.signal = signal
        self.end_now(forced if signal is not None else self.stalled or forced)

    def end_now(self, found: LoomError) -> None:
        """End a process that may be ended, for this reason, if the run is still going."""
        if not self.held:
            return
        if self.overdue is not None:
            self.overdue(found)
        else:
            _log.critical("stop_overdue", reason=str(found))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until a stop is requested; `False` if the time is over first."""
        return self._requested.wait(timeout_s)

    def check_deadline(self, waiting_for: str | Callable[[], str]) -> None:
        """Raise `ForcedShutdownError` when the stop has had its time. Called between the slices of every wait.

        Says every 10 s what a stop waits for.

        Args:
            waiting_for: what it waits for, or what finds that out when it is to be said.
        """
        if self._deadline is not None and self._clock() > self._deadline:
            raise ForcedShutdownError(
                f"the stop was not done within {self.limit_s} s; still waiting for {_said(waiting_for)}. What is not "
                "committed is read again after a restart"
            )
        if self.requested and (now := self._clock()) - self._said_at >= _SAY:
            self._said_at = now
            _log.warning("still_stopping", waiting_for=_said(waiting_for), seconds=round(now - self._requested_at))

    def left_s(self) -> float | None:
        """How many seconds the stop has left, or would have if it were requested now; `None` means no limit."""
        return self.limit_s if self._deadline is None else max(0.0, self._deadline - self._clock())

    def check_start(self, waiting_for: str) -> None:
        """Raise `StartGivenUp` when a stop was asked for. Called between the slices of waits before anything is read."""
        if self.requested:
            raise StartGivenUp(waiting_for)


def _said(waiting_for: str | Callable[[], str]) -> str:
    return waiting_for if isinstance(waiting_for, str) else waiting_for()
