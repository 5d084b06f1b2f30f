"""The epochs of one process. An epoch ends with a mark that a source puts into a batch; the sink part answers it.

The engine's own epochs go by the wall clock and cannot be ended early, so they serve what a recovery store keeps and no more.
"""

from __future__ import annotations

__all__ = ["DEFAULT_INTERVAL_S", "Epochs", "InFlight", "Mark"]

#: under a plain `cli_main`, where no config says it
DEFAULT_INTERVAL_S = 1.0


class Mark:
    """The end of an epoch, after everything that a worker has passed on before.

    When the sink part comes to it, it makes all that it was given durable, publishes the offsets that are committable
    with it, and answers.
    """

    __slots__ = ("answered",)

    def __init__(self) -> None:
        #: set by the sink part
        self.answered = False


class InFlight:
    """What one worker has in flight to the sink part, in batches, records and bytes.

    The `sent` numbers are written by the worker, the others by the sink part; neither waits for the other.
    """

    __slots__ = (
        "sent",
        "sent_bytes",
        "sent_records",
        "settled",
        "taken",
        "taken_bytes",
        "taken_records",
        "taken_thread",
    )

    def __init__(self) -> None:
        #: batches that the worker has passed on, and those of them that the sink part has received
        self.sent = self.taken = 0
        #: batches whose results are durable
        self.settled = 0
        self.sent_records = self.taken_records = 0
        self.sent_bytes = self.taken_bytes = 0
        #: the thread of the sink part, once it has taken something
        self.taken_thread: int | None = None

    @property
    def records(self) -> int:
        """Records in flight."""
        return self.sent_records - self.taken_records

    @property
    def bytes(self) -> int:
        """Bytes of records in flight that were counted."""
        return self.sent_bytes - self.taken_bytes


class Epochs:
    """When an epoch of this process ends, and how many have been answered.

    Shared by all workers without a lock: two that end an epoch in the same moment make two marks, which is no harm.
    """

    def __init__(self, interval_s: float = DEFAULT_INTERVAL_S) -> None:
        #: seconds from one mark of the process to the next, by the clock of its workers
        self.interval_s = interval_s
        #: Offsets become committable at the engine's snapshots only, since a sink of the engine's may be resumed with the
        #: state that it had then. No marks are made.
        self.by_snapshots = False
        #: how often the sink part has ended an epoch
        self.answered = 0
        self._last: float | None = None
        self._asked = False

    def ask(self) -> None:
        """End the current epoch at the next turn of any worker."""
        self._asked = True

    def due(self, now: float) -> bool:
        """Whether the current epoch is over, at this monotonic time in seconds. The first call begins the first one."""
        if self._last is None:
            self._last = now
        return self._asked or self.left(now) <= 0

    def left(self, now: float) -> float:
        """Seconds of the current epoch that are left, at this monotonic time; 0 or less once it is over."""
        return self.interval_s if self._last is None else self.interval_s - (now - self._last)

    def end(self, now: float) -> Mark:
        """The mark that ends the current epoch; the next one begins."""
        self._last = now
        self._asked = False
        return Mark()

    def answer(self, mark: Mark | None) -> None:
        """What the sink part had received is durable: it has come to a mark, or to a snapshot of the engine."""
        if mark is not None:
            mark.answered = True
        self.answered += 1
