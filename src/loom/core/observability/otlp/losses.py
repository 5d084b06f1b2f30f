"""Counts spans that were lost, and says so. A collector that is away for long is two lines in the log."""

from __future__ import annotations

from loom.core.logger import get_logger

__all__ = ["Losses"]

_log = get_logger("loom.core.observability")


class Losses:
    """Spans that were not sent. `overflow` may be called by any thread, the others by the one that sends."""

    def __init__(self) -> None:
        self._refused = 0
        self._overflowed = 0
        #: how many there were when they were last spoken of
        self._said = 0
        self._failing = False

    @property
    def count(self) -> int:
        """Spans that were lost so far."""
        return self._refused + self._overflowed

    def overflow(self, spans: int) -> None:
        """Some were lost because too many wait.

        Args:
            spans: how many.
        """
        self._overflowed += spans

    def add(self, spans: int, reason: str) -> None:
        """Some were not taken.

        Args:
            spans: how many.
            reason: what the collector or the network says.
        """
        self._refused += spans
        self._say(reason)

    def sent(self) -> None:
        """The collector has taken some."""
        if self.count == self._said:
            if self._failing:
                _log.info("spans_sent_again", lost=self.count)
            self._failing = False
        else:
            self._say("the collector takes them more slowly than they come")
            self._said = self.count

    def _say(self, reason: str) -> None:
        if not self._failing:
            _log.warning(
                "spans_lost",
                spans=self.count - self._said,
                reason=reason,
                note="the collector does not take them; told once until it does",
            )
            self._failing = True
        self._said = self.count
