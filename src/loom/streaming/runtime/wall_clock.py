"""The engine's epochs and the waits of its parts go by the wall clock, which may be set back; nothing else of ours does.

A part that leads is always due, so that it is asked whatever that clock shows, and looks whether it was set back by more
than an epoch. Then no epoch would end for so long, so the run ends, to be started again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from loom.core.logger import get_logger
from loom.streaming.runtime.run_errors import ClockSetBackError
from loom.streaming.runtime.run_state import RunState

__all__ = ["ALWAYS_DUE", "WallClock", "rested", "watching_clock"]

_log = get_logger(__name__)

#: when a part wants to be asked that is to be asked whatever the wall clock shows
ALWAYS_DUE = datetime(1970, 1, 1, tzinfo=UTC)

#: Seconds that an always-due part rests when it has nothing to hand over: the engine would do so for one that names no time.
_REST = 0.001
#: a step back by so many seconds makes one epoch longer, and no more
_LET_BE = 1.0
#: How often the clock is looked at beside the parts, and how long they have to notice by themselves, in seconds: a step may
#: be at work, but neither a wait of the client nor a stop takes that long.
_LOOK = 0.5
_GRACE = 30.0
_SHORT_GRACE = 2.0

Clock = Callable[[], float]


class WallClock:
    """Notices that the wall clock was set back. Asked often, by one thread."""

    def __init__(self, wall: Clock | None = None, monotonic: Clock | None = None) -> None:
        self._wall = wall or time.time
        self._monotonic = monotonic or time.monotonic
        self._since = self._monotonic()
        #: how far the wall clock was ahead of the monotonic one then
        self._ahead = self._wall() - self._since

    def check(self, epoch_s: float) -> None:
        """Raise `ClockSetBackError` when the clock stands more than an epoch behind where it stood in the last one."""
        now = self._monotonic()
        ahead = self._wall() - now
        back = self._ahead - ahead
        if back > max(epoch_s, _LET_BE):
            raise ClockSetBackError(
                f"the wall clock was set back by {back:.1f} s. The engine counts its epochs of {epoch_s:g} s by it and would "
                "end none for that long. Restart the flow; what is not committed is read again"
            )
        if now - self._since > epoch_s:
            self._since, self._ahead = now, ahead


def rested(began: float, rest_s: float = _REST) -> None:
    """Rest behind a call that began at this monotonic time and handed nothing over, unless it has waited itself."""
    if time.monotonic() - began < rest_s:
        time.sleep(rest_s)


@contextmanager
def watching_clock(delivery: RunState) -> Iterator[None]:
    """Look at the clock beside the parts while the block runs.

    The client's own waits end by the wall clock (`pthread_cond_timedwait`, librdkafka 2.16), so a worker that waits for a
    record when the clock is set back notices nothing before one comes.
    """
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(delivery, over, WallClock()), name="loom-clock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def _watch(delivery: RunState, over: threading.Event, clock: WallClock) -> None:
    while not over.wait(_LOOK):
        try:
            clock.check(delivery.epoch_s)
        except ClockSetBackError as found:
            _log.error("clock_set_back", reason=str(found))
            left = _GRACE
            while left > 0 and not over.wait(_LOOK):
                waits = any(standing.waits for standing in list(delivery.standings))
                left = (min(left, _SHORT_GRACE) if waits or delivery.stop.requested else left) - _LOOK
            if not over.is_set() and delivery.fault is None:
                delivery.stop.end_now(found)
            return
