"""Ends the rest of one thread: what other threads and signal handlers set, and one thread waits for."""

from __future__ import annotations

import threading

__all__ = ["Waker"]


class Waker:
    """An event for one thread that waits; its wait clears it.

    Cheaper than a `threading.Event`, and `set` takes no lock that a signal handler could find taken by the thread it
    has interrupted.

    >>> waker = Waker()
    >>> waker.set()
    >>> waker.wait(1.0), waker.wait(0.0)
    (True, False)
    """

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        #: free while it is set
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """End the wait, or else the next one. Called from any thread, and from signal handlers."""
        try:
            self._lock.release()
        except RuntimeError:
            return  # it is set already

    def wait(self, seconds: float) -> bool:
        """Wait until it is set, at most so long, and clear it; says whether it was set."""
        return self._lock.acquire(timeout=seconds)
