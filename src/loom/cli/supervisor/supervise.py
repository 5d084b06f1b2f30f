"""`loom run` as a supervisor: runs itself in one child process or several, and restarts each when it fails.

A child is a fresh interpreter with the same command line (never a fork: client and engine have threads), marked by an
environment variable. Signal handlers do nothing here; every event wakes up one loop.
"""

from __future__ import annotations

import selectors
import signal
import sys
import time
from collections.abc import Sequence

from loom.cli.supervisor.member import Member
from loom.cli.supervisor.stop_signals import StopSignals
from loom.core.logger import get_logger
from loom.streaming.runtime.settings import SupervisionSettings

__all__ = ["same_command", "supervise"]

_log = get_logger(__name__)


def same_command() -> list[str]:
    """This process's command line, interpreter options included."""
    return [sys.executable, *sys.orig_argv[1:]]


def supervise(command: Sequence[str], settings: SupervisionSettings, processes: int | None = None) -> int:
    """Run a command until it is not to be restarted any more, and return its exit code, or 128 plus its signal.

    SIGTERM and SIGINT are forwarded, and no run is started any more; a second one kills the runs. When no restart is left and
    no offset has advanced, prints the offsets of the runs. A record that kills the process is named.

    With `processes`, that many run side by side, each restarted alone. The first that stays down takes the others with it: they
    are stopped in order, and its exit code is returned.
    """
    with selectors.DefaultSelector() as selector, StopSignals() as signals:
        numbered: list[tuple[int, int | None]] = [(0, None)]
        if processes is not None:
            numbered = [(index, processes) for index in range(processes)]
        members = [Member(command, settings, selector, index, count) for index, count in numbered]
        requests: list[int] = []
        selector.register(signals, selectors.EVENT_READ, lambda: requests.extend(signals.asked()))
        return _Supervision(members).follow(selector, requests)


class _Supervision:
    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._stopping = False
        #: the one that stays down, for which the others are stopped
        self._down: Member | None = None

    def follow(self, selector: selectors.BaseSelector, requests: list[int]) -> int:
        """Wait for the end of all; meanwhile take reports, output and signals."""
        while True:
            for number in requests:
                self._stopping = True
                for member in self._members:
                    member.stop(number)
            requests.clear()
            for member in self._members:
                member.step(stopping=self._stopping)
            self._give_up()
            if all(member.is_over for member in self._members):
                return self._code()
            for key, _ in selector.select(self._until_next()):
                # The end of a child is a SIGCHLD.
                key.data()

    def _give_up(self) -> None:
        """Where one member stays down, its partitions have no reader: the others are stopped too."""
        if self._stopping or not any(member.is_over for member in self._members):
            return
        self._stopping = True
        self._down = next(member for member in self._members if member.is_over)
        others = [member for member in self._members if not member.is_over]
        if others:
            _log.error("processes_stopping", process=self._members.index(self._down), end=_text(self._down))
        for member in others:
            member.ask_to_stop(signal.SIGTERM)
            member.step(stopping=True)

    def _until_next(self) -> float | None:
        starts = [member.starts_at for member in self._members if member.starts_at is not None]
        return max(0.0, min(starts) - time.monotonic()) if starts else None

    def _code(self) -> int:
        first = self._down.end if self._down is not None else None
        ends = [first, *(member.end for member in self._members)]
        return next((end.code for end in ends if end is not None and end.code), 0)


def _text(member: Member) -> str:
    return member.end.text if member.end is not None else "was not started"
