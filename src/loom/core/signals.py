"""Ending a process by a signal, process 1 of a container included.

Used by the command line from its first moment on, and by code that restores a signal handler.
"""

from __future__ import annotations

import os
import signal
from typing import NoReturn

__all__ = ["end_by_signal", "end_on_sigterm"]


def end_by_signal(number: int) -> NoReturn:
    """End this process as the signal ends one that does not handle it. Call it in the main thread.

    The kernel never applies a default action to process 1 of a PID namespace; there the process ends with 128 + number.
    """
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def end_on_sigterm() -> None:
    """Let SIGTERM end this process from now on, also where it is process 1. A handler that is there already stays."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, *_: object) -> NoReturn:
    end_by_signal(number)
