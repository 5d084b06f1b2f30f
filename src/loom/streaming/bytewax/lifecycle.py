"""SIGTERM and SIGINT: a handler sets a flag, sources see it at their next batch and end in order.

The engine itself dies at once on SIGTERM and surfaces an interrupt wherever it lands, so the handlers must stand before it
runs; only the main thread can install them.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from loom.streaming.bytewax.delivery import StopSignal

__all__ = ["SignalHandlers"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class SignalHandlers:
    """The handlers of one dataflow. Whoever had the signals before gets them back in the end.

    The first signal asks for a graceful stop; a second one is passed to whoever had it before, which by default ends
    the process.
    """

    def __init__(self, stop: StopSignal) -> None:
        self._stop = stop
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Take the signals; does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            before = signal.getsignal(number)
            owner = getattr(before, "__self__", None)
            if isinstance(owner, SignalHandlers):
                # An earlier dataflow of this process: its handlers give way, so that they do not pile up.
                before = owner._before.get(number, signal.SIG_DFL)
            self._before[number] = before
            signal.signal(number, self._handle)

    def restore(self) -> None:
        """Give the signals back, unless somebody else has taken them since. Idempotent."""
        if threading.current_thread() is not threading.main_thread():
            return
        while self._before:
            number, before = self._before.popitem()
            if getattr(signal.getsignal(number), "__self__", None) is self:
                signal.signal(number, before if before is not None else signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if (self._stop.running or self._stop.held) and not self._stop.requested:
            self._stop.request(signal.Signals(number).name)
            return
        # Nothing runs that could stop, or it has been asked before: the signal means what it meant without us.
        self.restore()
        os.kill(os.getpid(), number)
