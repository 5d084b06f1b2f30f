"""SIGTERM and SIGINT: a handler sets a flag, sources see it at their next batch and end in order.

The engine itself dies at once on SIGTERM and raises an interrupt wherever it lands, so the handlers must be installed before
it runs; only the main thread can do that. A handler runs between two steps of the interpreter: while the main thread is
blocked in C code, only `stopping_on_signals` notices a signal.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from loom.core.signals import end_by_signal
from loom.streaming.runtime.stop import StopSignal

__all__ = ["SignalHandlers", "stopping_on_signals"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: seconds between two signals that are two; and those that the main thread has to act on the second
_APART = 1.0


class SignalHandlers:
    """The handlers of one dataflow. Whoever had the signals before gets them back in the end.

    The first signal requests an orderly stop; a second one goes to the previous handler, which by default ends
    the process.
    """

    def __init__(self, stop: StopSignal) -> None:
        self._stop = stop
        self._before: dict[int, Any] = {}
        self._asked = False

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
        """Restore the signal handlers, unless other code has replaced them since. Idempotent."""
        if threading.current_thread() is not threading.main_thread():
            return
        while self._before:
            number, before = self._before.popitem()
            if getattr(signal.getsignal(number), "__self__", None) is self:
                signal.signal(number, before if before is not None else signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._stop.running or self._stop.held:
            if not self._asked:
                self._asked = True
                self._stop.request(signal.Signals(number).name)
                return
            if not self._stop.forced_by_signal:
                return
        # Nothing runs that could stop, or it has been asked before: the signal means what it meant without us.
        self.restore()
        if signal.getsignal(number) is signal.SIG_DFL:
            end_by_signal(number)
        os.kill(os.getpid(), number)


@contextmanager
def stopping_on_signals(stop: StopSignal) -> Iterator[None]:
    """Hear signals on a thread of its own, so that the time of a stop begins with the signal.

    A second one ends a process that may be ended (`stop.overdue`) when the main thread does not act on it. Does nothing
    outside the main thread, or if other code (an event loop) listens already.
    """
    if threading.current_thread() is not threading.main_thread() or _somebody_listens():
        yield
        return
    heard, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    listener = threading.Thread(target=_listen, args=(heard, stop), name="loom-signals", daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        told.close()
        listener.join(_APART)
        heard.close()


def _somebody_listens() -> bool:
    descriptor = signal.set_wakeup_fd(-1)
    if descriptor != -1:
        signal.set_wakeup_fd(descriptor)
    return descriptor != -1


def _listen(heard: socket.socket, stop: StopSignal) -> None:
    first: float | None = None
    while numbers := heard.recv(64):
        for number in numbers:
            if not isinstance(getattr(signal.getsignal(number), "__self__", None), SignalHandlers):
                continue  # a signal that is not ours
            name = signal.Signals(number).name
            if first is None:
                first = time.monotonic()
                stop.request(name)
            elif time.monotonic() - first > _APART and stop.forced_by_signal:
                timer = threading.Timer(_APART, stop.force, [f"a second {name} came", number])
                timer.daemon = True
                timer.start()
