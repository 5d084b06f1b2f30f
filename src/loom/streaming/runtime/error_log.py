"""Failed records in the log: the first of each kind and step whole, the others counted. Error path only.

One per run, shared by all its stages. Payloads are never logged; the exception's own text is the author's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from loom.core.logger import get_logger
from loom.core.shown import reason_of
from loom.streaming.errors import ErrorKind
from loom.streaming.record import TopicPartitionOffset
from loom.streaming.runtime.stages.raised_at import author_traceback
from loom.streaming.runtime.telemetry.recent_errors import RecentErrors, error_type

__all__ = ["ErrorLog"]

_log = get_logger(__name__)

#: seconds between two lines about one kind and step
_EVERY = 10.0


class _Seen:
    """What is known of one kind at one step."""

    __slots__ = ("logged_at", "repeats", "total")

    def __init__(self, logged_at: float) -> None:
        self.logged_at = logged_at
        #: errors since the last line, and all of them
        self.repeats = 0
        self.total = 1


class ErrorLog:
    """Notices every failed record. Safe to use from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[tuple[ErrorKind, str], _Seen] = {}
        #: by step, the same of calls that will be repeated
        self._retried: dict[str, _Seen] = {}
        #: the latest failures, where somebody wants to see them
        self.recent: RecentErrors | None = None

    def notice(
        self, kind: ErrorKind, step: str, error: BaseException, at: str | None, place: TopicPartitionOffset
    ) -> None:
        """A record failed at a step; `at` is where in the author's code."""
        if self.recent is not None:
            self.recent.notice(kind, step, error, at, place)
        now = self._clock()
        with self._lock:
            seen = self._seen.get((kind, step))
            repeats = 0
            if seen is None:
                self._seen[kind, step] = _Seen(now)
            else:
                seen.total += 1
                seen.repeats += 1
                if now - seen.logged_at < _EVERY:
                    return
                repeats, seen.repeats, seen.logged_at = seen.repeats, 0, now
        if seen is None:
            _log_first(kind, step, error, at, place)
        else:
            _log_repeats(kind, step, repeats, seen.total)

    def retrying(
        self, step: str, error: BaseException, at: str | None, place: TopicPartitionOffset, attempts: int
    ) -> None:
        """A call failed and will be repeated; so many were made for this record."""
        now = self._clock()
        with self._lock:
            seen = self._retried.setdefault(step, _Seen(float("-inf")))
            seen.repeats += 1
            if now - seen.logged_at < _EVERY:
                return
            failures, seen.repeats, seen.logged_at = seen.repeats, 0, now
        fields = _place_and_error(error, at, place)
        _log.warning(
            "step_retrying", step=step, attempts=attempts, failures=failures, reason=reason_of(error), **fields
        )

    def finish(self) -> None:
        """The run is over: log the repeats that were not logged yet."""
        with self._lock:
            untold = [(key, seen.repeats, seen.total) for key, seen in self._seen.items() if seen.repeats]
            for key, _, _ in untold:
                self._seen[key].repeats = 0
        for (kind, step), repeats, total in untold:
            _log_repeats(kind, step, repeats, total)


def _log_first(kind: ErrorKind, step: str, error: BaseException, at: str | None, place: TopicPartitionOffset) -> None:
    fields = _place_and_error(error, at, place)
    trace = author_traceback(error)
    if trace is not None:
        fields["exc_info"] = (type(error), error, trace)
    else:
        fields["reason"] = reason_of(error)
    log = _log.error if kind is ErrorKind.TASK else _log.warning
    log("record_failed", kind=kind.value, step=step, **fields)


def _place_and_error(error: BaseException, at: str | None, place: TopicPartitionOffset) -> dict[str, Any]:
    fields: dict[str, Any] = {"topic": place.topic, "partition": place.partition, "offset": place.offset}
    fields["error_type"] = error_type(error)
    if at is not None:
        fields["at"] = at
    return fields


def _log_repeats(kind: ErrorKind, step: str, repeats: int, total: int) -> None:
    _log.warning("record_failed_again", kind=kind.value, step=step, repeats=repeats, total=total)
