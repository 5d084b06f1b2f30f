"""`loom run` as the supervisor of one: runs itself in a child process and starts it again when it fails.

The child is a fresh interpreter with the same command line (never a fork: client and engine have threads), marked by an
environment variable. Nothing happens in signal handlers here; all that can come wakes up one loop.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any, Self

from loom.cli.budget import Budget, End, end_of
from loom.cli.link import MARK, SupervisorEnd
from loom.core.logger import get_logger

__all__ = ["same_command", "supervise"]

_log = get_logger(__name__)

_STOPS = (signal.SIGTERM, signal.SIGINT)
#: how many positions a message names
_NAMED = 20


def same_command() -> list[str]:
    """This process's command line, interpreter options included."""
    return [sys.executable, *sys.orig_argv[1:]]


def supervise(command: Sequence[str], restarts: int) -> int:
    """Run a command until it ends for good, and return what to end with: its exit code, or 128 and its signal.

    SIGTERM and SIGINT are passed on, and no run is started any more; a second one kills the run. When `restarts` are
    spent without a position that moved on, says where the runs stood.
    """
    budget = Budget(restarts)
    with _Signals() as signals:
        while True:
            began = time.monotonic()
            end = _Run(command, budget, signals).follow()
            if end.final or signals.stopping:
                return end.code
            pause = budget.pause_after(end, time.monotonic() - began)
            if pause is None:
                print(f"loom: {_spent(budget, restarts)}", file=sys.stderr, flush=True)
                return end.code
            stands = _named(budget.common()) if end.counts else ""
            _log.warning(
                "flow ended and is started again",
                end=end.told,
                pause_s=pause,
                restarts_left=budget.left,
                **({"stands_at": stands} if stands else {}),
            )
            if signals.asked_within(pause):
                return end.code


class _Signals:
    """Signals as bytes in a socket: what the main thread waits for beside everything else."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._before: dict[int, Any] = {}
        #: somebody has asked for the end
        self.stopping = False

    def __enter__(self) -> Self:
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in (*_STOPS, signal.SIGCHLD):
            self._before[number] = signal.signal(number, _noted_elsewhere)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        signal.set_wakeup_fd(-1)
        self._read.close()
        self._write.close()

    def fileno(self) -> int:
        """For a selector."""
        return self._read.fileno()

    def asked(self) -> list[int]:
        """The requests to stop that have come since the last call."""
        try:
            numbers = [number for number in self._read.recv(4096) if number in _STOPS]
        except BlockingIOError:
            return []
        self.stopping = self.stopping or bool(numbers)
        return numbers

    def asked_within(self, seconds: float) -> bool:
        """Wait, unless somebody asks for the end; tells whether somebody has."""
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            while not self.stopping and (left := until - time.monotonic()) > 0:
                if selector.select(left):
                    self.asked()
        return self.stopping


class _Run:
    """One child process, from its start to its end."""

    def __init__(self, command: Sequence[str], budget: Budget, signals: _Signals) -> None:
        self._budget = budget
        self._signals = signals
        self._broker = False
        self._asked = False
        self._killed_for: int | None = None
        ours, theirs = socket.socketpair()
        with theirs:
            descriptor = theirs.fileno()
            self._process = subprocess.Popen(command, env={**os.environ, MARK: str(descriptor)}, pass_fds=[descriptor])
        self._link = SupervisorEnd(ours)

    def follow(self) -> End:
        """Wait for the end, hearing what is told and passing on signals meanwhile."""
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._signals, selectors.EVENT_READ)
                selector.register(self._link, selectors.EVENT_READ)
                while self._process.poll() is None:
                    # The end of the child is a SIGCHLD.
                    for key, _ in selector.select():
                        if key.fileobj is self._signals:
                            self._pass_on(self._signals.asked())
                        elif not self._hear():
                            selector.unregister(self._link)
            self._hear()
        finally:
            self._link.close()
        if self._killed_for is not None:
            return end_of(-self._killed_for, broker=False)
        return end_of(self._process.returncode, broker=self._broker)

    def _pass_on(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            if self._asked:
                self._killed_for = number
                self._process.kill()
            else:
                self._asked = True
                self._process.send_signal(number)
            _log.info("signal passed on to the flow", signal=signal.Signals(number).name)

    def _hear(self) -> bool:
        """Take what the child has told; `False` when that was the last."""
        told, more = self._link.read()
        for report in told:
            self._broker = self._broker or report.broker
            if report.positions:
                self._budget.moved(report.positions)
        return more


def _spent(budget: Budget, restarts: int) -> str:
    ends, common = budget.ends(), budget.common()
    stood = (
        f"All of them stood at {_named(common)}: look at the records from there on"
        if common
        else ("None of them got as far as reading")
    )
    return (
        f"the flow ended {len(ends)} times without moving on ({', '.join(ends)}), and streaming.supervision.restarts is "
        f"{restarts}: it stays down. {stood}"
    )


def _named(positions: Mapping[str, int]) -> str:
    named = [f"{partition}@{offset}" for partition, offset in sorted(positions.items())]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + more


def _noted_elsewhere(number: int, frame: FrameType | None) -> None:
    """A handler must stand for a signal to be written to the socket."""
