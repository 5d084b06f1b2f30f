"""The events that one observer has still to be handed, and the thread that hands them over.

Made by `ObservabilityRuntime`, one for each observer, so that an observer that is slow, blocks or raises holds up neither the
flow nor another observer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

from loom.core.logger import get_logger
from loom.core.observability.event import LifecycleEvent
from loom.core.observability.protocol import LifecycleObserver

__all__ = ["Outbox"]

_log = get_logger("loom.core.observability")

#: events that may wait for an observer; later ones are dropped, counted and logged once
_MOST_WAITING = 10_000
#: seconds that an observer may take before it is no longer waited for
_GRACE = 0.2
#: seconds without an event after which the thread ends; the next event starts another one
_IDLE = 2.0


class Outbox:
    """Hands events to one observer, in order, on a thread of its own. Safe to use from any thread."""

    def __init__(self, observer: LifecycleObserver, failed: Callable[[], None]) -> None:
        self._observer = observer
        self._failed = failed
        self._changed = threading.Condition(threading.Lock())
        self._waiting: deque[LifecycleEvent] = deque()
        self._thread: threading.Thread | None = None
        #: events that were added, and those of them that the observer is done with
        self._added = self._done = 0
        #: it has overrun its grace, so nobody waits for it until it has caught up
        self._slow = False
        #: events that were dropped, since too many waited
        self.dropped = 0

    def add(self, event: LifecycleEvent) -> None:
        """Hand an event over soon. Never waits."""
        with self._changed:
            if len(self._waiting) >= _MOST_WAITING:
                self.dropped += 1
                first = self.dropped == 1
            else:
                self._waiting.append(event)
                self._added += 1
                first = False
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._work, name="loom-observer", daemon=True)
                    self._thread.start()
                self._changed.notify_all()
        if first:
            kind = type(self._observer)
            _log.warning("observer_behind", observer=f"{kind.__module__}.{kind.__qualname__}", waiting=_MOST_WAITING)

    def settle(self, timeout_s: float = _GRACE) -> None:
        """Wait until the observer has been handed everything, for a moment, unless it is known to be slow."""
        if threading.current_thread() is self._thread:
            return
        with self._changed:
            if self._slow:
                return
            until, all_of_them = monotonic() + timeout_s, self._added
            while self._done < all_of_them:
                left = until - monotonic()
                if left <= 0:
                    self._slow = True
                    return
                self._changed.wait(left)

    def _work(self) -> None:
        while (event := self._next()) is not None:
            try:
                self._observer.on_event(event)
            except BaseException:  # noqa: BLE001  an observer is foreign code, and nothing it does may end a flow
                self._failed()
            with self._changed:
                self._done += 1
                if not self._waiting:
                    self._slow = False
                self._changed.notify_all()

    def _next(self) -> LifecycleEvent | None:
        """The next event; `None` when there has been none for a while, and this thread is to end."""
        with self._changed:
            until = monotonic() + _IDLE
            while not self._waiting:
                left = until - monotonic()
                if left <= 0:
                    self._thread = None
                    return None
                self._changed.wait(left)
            return self._waiting.popleft()
