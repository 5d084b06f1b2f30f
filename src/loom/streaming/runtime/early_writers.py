"""The writers of a run, opened before its sink part asks for them, so that the first record does not wait for their clients."""

from __future__ import annotations

import threading
from collections.abc import Callable

from loom.streaming.runtime.producers import RecordWriter

__all__ = ["EarlyWriters"]


class EarlyWriters:
    """Opens writers ahead of time; its caller takes them over.

    A producer gets its id from a broker that it has to connect to first. One that is given a record within its first
    milliseconds tries too early, and tries again half a second later (measured: 510 ms until the record is delivered, and 6 ms
    when the producer is 100 ms old).
    """

    def __init__(self, open_writers: Callable[[], RecordWriter]) -> None:
        self._open_writers = open_writers
        self._lock = threading.Lock()
        self._early: RecordWriter | None = None

    def open(self) -> None:
        """Open them now. Idempotent until they are taken."""
        with self._lock:
            if self._early is None:
                self._early = self._open_writers()

    def __call__(self) -> RecordWriter:
        """The writers: those that are open already, once, else new ones. The caller closes them."""
        with self._lock:
            writers, self._early = self._early, None
        return writers if writers is not None else self._open_writers()

    def close(self) -> None:
        """Close those that were not taken. Idempotent."""
        with self._lock:
            writers, self._early = self._early, None
        if writers is not None:
            writers.close()
