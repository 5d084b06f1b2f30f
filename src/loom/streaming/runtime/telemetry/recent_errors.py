"""The latest failures of records, for whoever watches the flow. Error path only, and only where an observer serves metrics.

What is kept is what the log says: the kind, the step, the exception's own text with secrets masked, the place of the record.
Payloads are never kept.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from msgspec.structs import replace

from loom.core.importable import qualified_name
from loom.core.model import LoomFrozenStruct
from loom.core.redaction import redact_text
from loom.core.shown import reason_of
from loom.streaming.errors import ErrorKind
from loom.streaming.record import TopicPartitionOffset

__all__ = ["RecentError", "RecentErrors", "error_type"]

#: failures that are kept of each kind at each step, and of how many of these pairs
_EACH = 8
_PAIRS = 64
#: seconds in which failures of one kind at one step are counted as one
_TOGETHER = 1.0
#: characters of a text that are kept
_LONGEST = 400


class RecentError(LoomFrozenStruct):
    """A failure, with those of its kind at its step within the same second. Secrets are masked, payloads never there."""

    kind: str
    step: str
    error_type: str
    reason: str
    #: where in the author's code, as `file:line`
    raised_at: str | None
    #: the first record that failed so
    topic: str | None
    partition: int | None
    offset: int | None
    #: when the first and the last of them came, in seconds since 1970
    first_at: float
    last_at: float
    count: int = 1


class RecentErrors:
    """Keeps the latest failures, some of each kind and step, so that a flood at one does not hide another. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[tuple[ErrorKind, str], deque[RecentError]] = {}

    def notice(
        self, kind: ErrorKind, step: str, error: BaseException, at: str | None, place: TopicPartitionOffset
    ) -> None:
        """A record failed at a step; `at` is where in the author's code."""
        now = self._clock()
        with self._lock:
            kept = self._kept.get((kind, step))
            if kept:
                last = kept[-1]
                if last.first_at <= now < last.first_at + _TOGETHER:
                    kept[-1] = replace(last, count=last.count + 1, last_at=now)
                    return
            elif len(self._kept) >= _PAIRS:
                return
        # Made outside of the lock: the text of an exception is the author's code.
        found = RecentError(
            kind.value, step, error_type(error), _text(error), at, place.topic, place.partition, place.offset, now, now
        )
        with self._lock:
            self._kept.setdefault((kind, step), deque(maxlen=_EACH)).append(found)

    def latest(self) -> list[RecentError]:
        """What is kept, the latest first."""
        with self._lock:
            found = [one for kept in self._kept.values() for one in kept]
        return sorted(found, key=lambda one: one.last_at, reverse=True)


def error_type(error: BaseException) -> str:
    """The name of an exception's class, or of the one that it stands for."""
    return getattr(error, "__loom_error_type__", None) or qualified_name(type(error))


def _text(error: BaseException) -> str:
    text = redact_text(reason_of(error))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
