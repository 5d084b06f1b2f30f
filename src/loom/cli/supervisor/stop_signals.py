"""SIGTERM, SIGINT and SIGCHLD of a supervisor as bytes in a socket, so that one loop can wait for them with all the rest."""

from __future__ import annotations

import signal
import socket
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["StopSignals"]

_STOPS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """The signals while a supervisor runs. Ended by `with`."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._before: dict[int, Any] = {}

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
        """The requests to stop since the last call."""
        try:
            return [number for number in self._read.recv(4096) if number in _STOPS]
        except BlockingIOError:
            return []


def _noted_elsewhere(number: int, frame: FrameType | None) -> None:
    """A signal is written to the socket only if it has a handler."""
