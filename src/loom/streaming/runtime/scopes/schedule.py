"""Which call starts next: at most so many at once, one at a time of each key, none before its time. Pure; no clock, no thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Hashable
from heapq import heapify, heappop, heappush
from typing import Any

from loom.streaming.runtime.scopes.call import Call

__all__ = ["CallSchedule", "waiting_beside"]

#: Calls that may wait beside those in progress, so that a finished one is followed at once: as many again, and some more
#: where few are in progress.
_FEWEST_WAITING = 16


def waiting_beside(limit: int) -> int:
    """How many calls may wait beside those in progress."""
    return max(limit, _FEWEST_WAITING)


class CallSchedule:
    """The calls of one scope that are not done.

    >>> schedule = CallSchedule(limit=2)
    >>> first, second = Call([], [], ("a",)), Call([], [], ("a",))
    >>> schedule.add(first)
    >>> schedule.add(second)
    >>> schedule.next(0.0) is first, schedule.next(0.0)
    (True, None)
    >>> schedule.done(first)
    >>> schedule.next(0.0) is second
    True

    Args:
        limit: the most calls in progress at once.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self._ready: deque[Call] = deque()
        #: calls that are repeated at a time
        self._later: list[tuple[float, int, Call]] = []
        self._number = 0
        #: for each key the calls that have it, in the order of their records; the first one holds it. Most are alone.
        self._of_key: dict[Any, list[Call]] = {}
        self._blocked = 0

    @property
    def waiting(self) -> int:
        """How many calls are not in progress."""
        return len(self._ready) + len(self._later) + self._blocked

    def add(self, call: Call) -> None:
        """A new call, behind all that are here."""
        if not call.keys:
            self._ready.append(call)
            return
        for key in call.keys:
            queue = self._of_key.get(key)
            if queue is None:
                self._of_key[key] = [call]
            else:
                call.blocked_by += 1
                queue.append(call)
        if call.blocked_by:
            self._blocked += 1
        else:
            self._ready.append(call)

    def next(self, now: float, *, untried_first: bool = False) -> Call | None:
        """The next call to start; it counts as in progress from now on. Usually those that are repeated go first."""
        if self.running >= self.limit:
            return None
        if untried_first and self._ready:
            call = self._ready.popleft()
        elif self._later and self._later[0][0] <= now:
            call = heappop(self._later)[2]
        elif self._ready:
            call = self._ready.popleft()
        else:
            return None
        self.running += 1
        return call

    def take(self) -> list[Call]:
        """Every call that may start now, where none is repeated; they count as in progress from now on."""
        ready, most = self._ready, self.limit - self.running
        if most >= len(ready):
            taken = list(ready)
            ready.clear()
        else:
            taken = [ready.popleft() for _ in range(most)]
        self.running += len(taken)
        return taken

    def put_back(self, call: Call) -> None:
        """A call that `next` returned is not started yet."""
        self.running -= 1
        self._ready.appendleft(call)

    def again(self, call: Call, at: float) -> None:
        """A call that was in progress is started again at a time; it keeps its keys."""
        self.running -= 1
        self._number += 1
        heappush(self._later, (at, self._number, call))

    def done(self, call: Call) -> None:
        """A call that was in progress has its outcome; its keys are free for the next ones."""
        self.running -= 1
        for key in call.keys:
            queue = self._of_key[key]
            if len(queue) == 1:
                del self._of_key[key]
                continue
            del queue[0]
            first = queue[0]
            first.blocked_by -= 1
            if not first.blocked_by:
                self._blocked -= 1
                self._ready.append(first)

    def hurry(self) -> None:
        """Calls that wait to be repeated need not wait any longer."""
        self._ready.extendleft(call for _, _, call in sorted(self._later, reverse=True))
        self._later.clear()

    def discard_waiting(self, wanted: Callable[[Call], bool] | None = None) -> list[Call]:
        """Take out every call that is not in progress, of those that are wanted."""
        blocked = [call for queue in self._of_key.values() for call in queue if call.blocked_by]
        waiting = dict.fromkeys([*(call for _, _, call in sorted(self._later)), *self._ready, *blocked])
        taken = dict.fromkeys(call for call in waiting if wanted is None or wanted(call))
        self._later = [entry for entry in self._later if entry[2] not in taken]
        heapify(self._later)
        self._ready = deque(call for call in self._ready if call not in taken)
        self._blocked -= sum(1 for call in taken if call.blocked_by)
        for call in taken:
            for key in call.keys:
                self._take_out(call, key, taken)
        return list(taken)

    def _take_out(self, call: Call, key: Hashable, taken: Container[Call]) -> None:
        queue = self._of_key[key]
        was_first = queue[0] is call
        queue.remove(call)
        if not queue:
            del self._of_key[key]
        elif was_first:
            first = queue[0]
            first.blocked_by -= 1
            if not first.blocked_by and first not in taken:
                self._blocked -= 1
                self._ready.append(first)

    def earliest(self) -> float | None:
        """The time at which a call is to be repeated; `None` while none waits for one, or none could start."""
        return self._later[0][0] if self._later and self.running < self.limit else None

    def has_next(self) -> bool:
        """Whether a call could start at once."""
        return bool(self._ready) and self.running < self.limit
