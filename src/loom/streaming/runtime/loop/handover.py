"""The bounded queue between the workers of a process and its one sink part. In order for each worker."""

from __future__ import annotations

import threading
from collections.abc import Callable

from loom.streaming.runtime.stages.stage_io import StageResults

__all__ = ["Handover"]

#: seconds between two looks at the time that a stop has
_LOOK = 0.5


class Handover:
    """Results of batches, from many threads to one.

    `check` is called now and then while one of them waits, with what it waits for, and may raise.
    """

    def __init__(self, workers: int, room: int, check: Callable[[str], None]) -> None:
        self._workers = workers
        self._room = room
        self._check = check
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)
        self._waiting: list[StageResults] = []
        self._closed = False

    def put(self, results: list[StageResults]) -> bool:
        """Hand over what one worker has made, when there is room; `False` when nobody takes it any more."""
        with self._lock:
            while len(self._waiting) >= self._room and not self._closed:
                self._emptied.wait(_LOOK)
                self._check("room for the results of a batch")
            if self._closed:
                return False
            self._waiting += results
            self._filled.notify()
        return True

    def take(self) -> list[StageResults] | None:
        """Everything that waits, in order; `None` when every worker has left and nothing does."""
        with self._lock:
            while not self._waiting and self._workers:
                self._filled.wait(_LOOK)
                if not self._waiting and self._workers:
                    self._check("a worker that is still at work")
            if not self._waiting:
                return None
            taken, self._waiting = self._waiting, []
            self._emptied.notify_all()
        return taken

    def leave(self) -> None:
        """A worker is at its end."""
        with self._lock:
            self._workers -= 1
            self._filled.notify()

    def close(self) -> None:
        """Nothing is taken any more."""
        with self._lock:
            self._closed = True
            self._emptied.notify_all()
