"""The wall clock may be set back. The engine's epochs and the waits of the Kafka client use it; nothing of ours does.

If offsets are committable at the engine's snapshots only, no epoch would end for that long, so the run ends, to be restarted.
Otherwise it continues, unless a worker hangs in a wait of its client while something is left to do, or commits stop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from loom.core.logger import get_logger
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.run_errors import ClockSetBackError
from loom.streaming.runtime.run_state import RunState

__all__ = ["ALWAYS_DUE", "REST_S", "WallClock", "rested", "watching_clock"]

_log = get_logger(__name__)

#: when a part wants to be asked that is to be asked whatever the wall clock shows
ALWAYS_DUE = datetime(1970, 1, 1, tzinfo=UTC)

#: Seconds that an always-due part rests when it has nothing to return: the engine would do so for a part that names no time.
REST_S = 0.001
#: a step back by so many seconds makes one epoch longer, and no more
_LET_BE = 1.0
#: How often the clock is checked beside the parts, and how long they have to notice by themselves, in seconds: a step may
#: be at work, but neither a wait of the client nor a stop takes that long.
_LOOK = 0.5
_GRACE = 30.0
_SHORT_GRACE = 2.0
#: how long a commit may take after the clock was set back, beside the rest of the epoch, in seconds
_COMMIT_GRACE = 5.0

Clock = Callable[[], float]


class WallClock:
    """Notices that the wall clock was set back. Asked often, by one thread."""

    def __init__(self, wall: Clock | None = None, monotonic: Clock | None = None) -> None:
        self._wall = wall or time.time
        self._monotonic = monotonic or time.monotonic
        self._since = self._monotonic()
        #: how far the wall clock was ahead of the monotonic one then
        self._ahead = self._wall() - self._since

    def set_back_s(self, epoch_s: float) -> float:
        """By how many seconds the clock is behind its value in the last epoch, if by more than one; else 0."""
        now = self._monotonic()
        ahead = self._wall() - now
        back = self._ahead - ahead
        if back > max(epoch_s, _LET_BE):
            return back
        if now - self._since > epoch_s:
            self._since, self._ahead = now, ahead
        return 0.0

    def check(self, epoch_s: float) -> None:
        """Raise `ClockSetBackError` if the clock is more than an epoch behind its value in the last one."""
        if back := self.set_back_s(epoch_s):
            raise _engine_stopped(back, epoch_s)


def _engine_stopped(back: float, epoch_s: float) -> ClockSetBackError:
    return ClockSetBackError(
        f"the wall clock was set back by {back:.1f} s. The engine counts its epochs of {epoch_s:g} s by it and would "
        "end none for that long. Restart the flow; what is not committed is read again"
    )


def rested(began: float, rest_s: float = REST_S) -> None:
    """Rest after a call that began at this monotonic time and returned nothing, unless it has waited itself."""
    if time.monotonic() - began < rest_s:
        time.sleep(rest_s)


@contextmanager
def watching_clock(state: RunState) -> Iterator[None]:
    """Check the clock beside the parts while the block runs.

    The client's own waits end by the wall clock (`pthread_cond_timedwait`, librdkafka 2.16), so a worker that waits for a
    record when the clock is set back comes back with the next record, and without one only when that clock has caught up.
    """
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(state, over), name="loom-clock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def _watch(state: RunState, over: threading.Event) -> None:
    clock = WallClock()
    hung, silent = _HungWait(state), _SilentClient(state)
    while not over.wait(_LOOK):
        back = clock.set_back_s(state.engine_epoch_s)
        if back and state.epochs.by_snapshots:
            _end_when_unnoticed(state, over, _engine_stopped(back, state.engine_epoch_s))
            return
        if back:
            _log.warning("clock_set_back", back_s=round(back, 1), consequence="none: epochs use the monotonic clock")
            clock, hung.set_back_s = WallClock(), back
            silent.watch()
        if hung.found() or silent.found():
            _end(state, _client_hangs(hung.set_back_s))
            return


def _end_when_unnoticed(state: RunState, over: threading.Event, found: ClockSetBackError) -> None:
    """The parts notice by themselves, unless they are held up."""
    _log.error("clock_set_back", reason=str(found))
    left = _GRACE
    while left > 0 and not over.wait(_LOOK):
        waits = any(standing.waits for standing in list(state.standings))
        left = (min(left, _SHORT_GRACE) if waits or state.stop.requested else left) - _LOOK
    if not over.is_set():
        _end(state, found)


def _end(state: RunState, found: ClockSetBackError) -> None:
    if state.fault is None:
        state.stop.end_now(found)


class _HungWait:
    """Finds a worker that hangs in a wait of its client although a stop was asked for or an epoch is open."""

    def __init__(self, state: RunState) -> None:
        self._state = state
        #: by how many seconds the clock was set back last; a wait that is long without that has another reason
        self.set_back_s = 0.0
        #: when each worker was last called, and how many checks have found it there
        self._seen: dict[int, tuple[float, int]] = {}

    def found(self) -> bool:
        """Whether a worker has hung for as long as it may."""
        if not self.set_back_s:
            return False
        for standing in list(self._state.standings):
            called_at, times = self._seen.get(id(standing), (0.0, 0))
            hangs = standing.waits and (self._state.stop.requested or standing.is_unsettled())
            times = times + 1 if hangs and standing.called_at == called_at else 0
            self._seen[id(standing)] = (standing.called_at, times)
            if times * _LOOK >= _SHORT_GRACE:
                return True
        return False


class _SilentClient:
    """Finds that commits have stopped since the clock was set back: the client's own threads wait by that clock too.

    One commit after the jump proves that they work; then nothing is watched until the next one.
    """

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._at: list[dict[TopicPartition, int]] = []
        #: whether commits have been seen; under the client's auto-commit there are none to see
        self._commits = False
        #: for how many more seconds a commit that is due may take; `None` while nothing is watched
        self._left_s: float | None = None

    def watch(self) -> None:
        """The clock was set back."""
        if self._commits:
            self._left_s = self._patience_s()

    def found(self) -> bool:
        """Whether something is to be committed, and has not been for too long."""
        at = [standing.offsets.restarts() for standing in list(self._state.standings)]
        moved, self._at = bool(self._at) and at != self._at, at
        self._commits |= moved
        if moved:
            self._left_s = None
        if self._left_s is None:
            return False
        due = any(standing.is_unsettled() or standing.offsets.uncommitted() for standing in self._state.standings)
        self._left_s = self._left_s - _LOOK if due else self._patience_s()
        return self._left_s <= 0

    def _patience_s(self) -> float:
        return _COMMIT_GRACE + self._state.epochs.interval_s


def _client_hangs(set_back_s: float) -> ClockSetBackError:
    return ClockSetBackError(
        f"the wall clock was set back by {set_back_s:.1f} s, and the Kafka client, which waits by that clock, has not come back "
        "since. Restart the flow; what is not committed is read again"
    )
