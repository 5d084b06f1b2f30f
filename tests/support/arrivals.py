"""When the results of each source partition come out, as a reader of committed records sees it: who stands still for how long.

with Arrivals(broker.bootstrap, ["numbers.even"], lambda record: Sign(number(record) % 4, number(record))) as arrivals:
    ...
assert arrivals.longest_pause() < 1.5
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import NamedTuple, Self

from confluent_kafka import Consumer, TopicPartition

__all__ = ["Arrivals", "Sign"]

#: seconds of one wait for records
_SLICE = 0.05
_AT_ONCE = 2_000


class Sign(NamedTuple):
    """What one result tells: the lane (a source partition) that its record came in, and its number there, which grows."""

    lane: int
    number: int


class Arrivals:
    """Reads the outputs on a thread of its own while the `with` block runs; what repeats an earlier result is no arrival."""

    def __init__(
        self, bootstrap: str, topics: Iterable[str], sign_of: Callable[[bytes], Sign], partitions: int
    ) -> None:
        self._sign_of = sign_of
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "arrivals",
                "log_level": 0,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "fetch.min.bytes": 1,
                "fetch.wait.max.ms": 20,
                "reconnect.backoff.ms": 20,
                "reconnect.backoff.max.ms": 500,
            }
        )
        self._consumer.assign([TopicPartition(topic, part, 0) for topic in topics for part in range(partitions)])
        self._lock = threading.Lock()
        #: by lane: the largest number so far, when it came, and the longest time to the next one with its beginning
        self._newest: dict[int, int] = {}
        self._at: dict[int, float] = {}
        self._pauses: dict[int, list[tuple[float, float]]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._consumer.close()

    def pauses(self, *, since: float = 0.0, until: float = float("inf")) -> dict[int, float]:
        """By lane, the longest time between two arrivals, in seconds, of those that end after `since` and begin before `until`.

        Both are moments of the monotonic clock. What has not ended yet counts as far as it has come.
        """
        now = time.monotonic()
        with self._lock:
            longest = {}
            for lane, at in self._at.items():
                found = [*self._pauses.get(lane, ()), (at, now)] if until > now else self._pauses.get(lane, ())
                longest[lane] = max(
                    (end - began for began, end in found if end >= since and began <= until), default=0.0
                )
            return longest

    def longest_pause(self, *, since: float = 0.0, until: float = float("inf")) -> float:
        """The longest of `pauses`."""
        return max(self.pauses(since=since, until=until).values(), default=0.0)

    def after(self, lane: int, moment: float) -> float | None:
        """When the first new result of a lane came after a moment; `None` where none has."""
        with self._lock:
            ends = [end for _, end in self._pauses.get(lane, ()) if end > moment]
        return min(ends, default=None)

    @property
    def lanes(self) -> frozenset[int]:
        """Those that something has come of."""
        with self._lock:
            return frozenset(self._at)

    def newest(self) -> dict[int, int]:
        """The largest number of each lane."""
        with self._lock:
            return dict(self._newest)

    def _read(self) -> None:
        while not self._over.is_set():
            first = self._consumer.poll(_SLICE)
            if first is None:
                continue
            messages = [first, *self._consumer.consume(_AT_ONCE, 0)]
            now = time.monotonic()
            signs = [
                self._sign_of(value)
                for message in messages
                if message.error() is None and (value := message.value()) is not None
            ]
            with self._lock:
                for lane, number in signs:
                    if number > self._newest.get(lane, -1):
                        self._newest[lane] = number
                        before = self._at.get(lane)
                        if before is not None and now > before:
                            self._pauses.setdefault(lane, []).append((before, now))
                        self._at[lane] = now
