"""How often a run may be restarted. The count is renewed only when offsets have advanced.

Plain bookkeeping for `supervise`: it gets what the runs report and how they end, and knows no process.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping

from loom.cli.exit_codes import Exit
from loom.core.model import LoomFrozenStruct

__all__ = ["End", "RestartPolicy", "end_of"]

#: seconds before the first restart, and before any
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0

#: ends without progress that count as evidence: records read one by one, one alone twice, and once more at the next offset
_FREE = 4

#: a restart fixes none of these
_FINAL = frozenset({Exit.DONE, Exit.USAGE, Exit.CONFIG, Exit.COMPILATION, Exit.REPLACED})
#: signals by which a program ends itself; all others come from outside
_CRASHES = frozenset(
    {
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSEGV,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)
_SIGNALLED = 128


class End(LoomFrozenStruct):
    """How a run ended."""

    #: the exit code of the supervisor if this end is the last
    code: int
    #: for messages
    text: str
    #: not to be followed by another run
    final: bool
    #: uses up a restart
    counts: bool
    #: the process ended itself, but not through the runner: a crash, or an exit in a step
    crashed: bool = False
    #: by a SIGKILL, from an operator or from the out-of-memory killer
    killed: bool = False


def end_of(returncode: int, *, broker: bool, announced: bool = True) -> End:
    """What the return code of a process means (negative for a signal).

    `broker`: the run reported that the broker is at fault; `announced`: that it was about to end with this code. An end that
    was not announced did not come from the runner: something in the process has called `os._exit`, for example.
    """
    number = -returncode if returncode < 0 else returncode - _SIGNALLED
    if returncode < 0 or number in (signal.SIGINT, signal.SIGTERM):
        text, crash = f"killed by {_name(number)}", number in _CRASHES
        killed = returncode < 0 and number == signal.SIGKILL
        return End(_SIGNALLED + number, text, final=False, counts=crash, crashed=crash, killed=killed)
    text = f"exit code {returncode}"
    if not announced:
        # 0 would look like success.
        text = f"{text}, not by the runner"
        return End(returncode or Exit.FAILED, text, final=False, counts=True, crashed=True)
    if broker:
        return End(returncode, f"{text}, no broker answered", final=False, counts=False)
    return End(returncode, text, final=returncode in _FINAL, counts=True)


class RestartPolicy:
    """Decides whether a run is restarted, and when, from how the last runs ended and what they committed."""

    def __init__(self, restarts: int) -> None:
        self._restarts = restarts
        self._paused = 0
        self._free = _FREE
        #: the ends that used up a restart since offsets last advanced, and the offsets at those ends
        self._ends: list[End] = []
        self._offsets_at: list[dict[str, int]] = []
        self._now: dict[str, int] = {}
        self._farthest: dict[str, int] = {}

    @property
    def left(self) -> int:
        """How many restarts are left until offsets advance."""
        return self._restarts - len(self._ends)

    def moved(self, positions: Mapping[str, int]) -> None:
        """Take the offsets of a run. Progress is an offset beyond the farthest so far; the first of a partition is none."""
        progress = any(offset > self._farthest.get(partition, offset) for partition, offset in positions.items())
        for partition, offset in positions.items():
            self._now[partition] = offset
            self._farthest[partition] = max(offset, self._farthest.get(partition, offset))
        if progress:
            self._ends, self._offsets_at, self._paused = [], [], 0
            self._free = _FREE

    def pause_after(self, end: End, lived_s: float, *, evidence: bool = False) -> float | None:
        """Seconds until the next run, after one that lived for `lived_s`; `None` if no restart is left.

        An end that is `evidence` of the record that kills the process uses up no restart, a few times.
        """
        free = evidence and self._free > 0
        if free:
            self._free -= 1
        elif end.counts:
            self._ends.append(end)
            self._offsets_at.append(dict(self._now))
            if self.left < 0:
                return None
        if lived_s > _LONGEST_PAUSE:
            # It ran for long, so the next run need not wait long.
            self._paused = 0
        self._paused += 1
        return float(min(_FIRST_PAUSE * 2 ** (self._paused - 1), _LONGEST_PAUSE))

    def ends(self) -> list[str]:
        """How the last runs ended that used up a restart."""
        return [end.text for end in self._ends]

    def common(self) -> dict[str, int]:
        """The offsets that all of them had in common."""
        first = self._offsets_at[0] if self._offsets_at else {}
        return {
            partition: offset
            for partition, offset in first.items()
            if all(offsets.get(partition) == offset for offsets in self._offsets_at)
        }


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
