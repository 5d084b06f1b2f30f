"""How many records one batch may hold so that its transaction ends in time. Called once per batch."""

from __future__ import annotations

__all__ = ["Pace"]

_FIRST = 64


class Pace:
    """Learns what a record costs from the time that passes between two batches.

    It begins small and doubles, since a first batch of full size could already take longer than the broker waits. One
    record that takes longer than the whole budget cannot be helped.
    """

    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._most = _FIRST
        self._sent = 0
        self._at = 0.0

    def limit(self, most: int, now: float) -> int:
        """The size of the next batch, at most `most`; `now` is a monotonic time in seconds."""
        if self._sent:
            took = now - self._at
            affordable = self._most * 2 if took <= 0 else int(self._budget_s * self._sent / took)
            # A batch may be half full, so its cost says little about a much larger one: no more than twice at a time.
            self._most = max(1, min(affordable, max(self._sent, self._most) * 2))
            self._sent = 0
        return min(most, self._most)

    def sent(self, records: int, now: float) -> None:
        """A batch is passed on."""
        self._sent = records
        self._at = now
