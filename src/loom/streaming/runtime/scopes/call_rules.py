"""Retry, rate limit and circuit breaker of one scope on one worker, as one answer: when a call may begin, and whether again.

Reads no clock and holds no record; a call is whatever object stands for it. Used by the worker's thread alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from math import inf

from loom.core.errors import ENDS_RUN, DomainError
from loom.streaming.runtime.scopes.circuit_breaker import Breaker, BreakerState
from loom.streaming.runtime.scopes.rate_limit import TokenBucket
from loom.streaming.runtime.scopes.retry import RetrySchedule

__all__ = ["CallRules"]


#: seconds by which a call that has failed as a probe lets the others go first: one of them may be the one to close the breaker
_BEHIND = 0.001


#: how many failures do not count of a call that nothing can clear any more, since no other records come
_LAST_EXCUSES = 100


class _Known:
    """What is known of a call that has failed, or is in progress."""

    __slots__ = ("attempts", "begun", "excused", "failed_at", "since", "ticket")

    def __init__(self) -> None:
        self.ticket = 0
        self.begun = 0.0
        #: attempts that count, and when the first of them failed
        self.attempts = 0
        self.since = 0.0
        #: when it last failed in a way that may be the system's
        self.failed_at = inf
        #: how many such failures did not count
        self.excused = 0


class CallRules:
    """What the policies of a scope say about its calls.

    With a breaker, an attempt that fails while the called system is down does not count. Whether it is down, or the record is
    to blame, shows in the other calls: if one that began after a failure succeeds, the system is up, and the next failure of
    the record counts. If none does, the failures in a row open the breaker. So a call is repeated until one of the two is known.

    Args:
        retry: says when a failed call is repeated; without one it has a single attempt.
        bucket: limits how many calls begin.
        breaker: stops calls while the called system is down.
        changed: told of each change of the breaker's state.
    """

    def __init__(
        self,
        retry: RetrySchedule | None = None,
        bucket: TokenBucket | None = None,
        breaker: Breaker | None = None,
        changed: Callable[[BreakerState], None] | None = None,
    ) -> None:
        self._retry = retry
        self._bucket = bucket
        self._breaker = breaker
        self._changed = changed
        self._known: dict[Hashable, _Known] = {}
        #: probes that have failed since the breaker opened
        self._failed_probes = 0
        #: when the latest call began that the system has answered
        self._answered = -inf
        #: no other records come that could show that the system is up
        self._input_over = False
        #: nothing is repeated any more
        self._ending = False

    @property
    def is_paused(self) -> bool:
        """Whether the breaker keeps calls back."""
        return self._breaker is not None and self._breaker.state is not BreakerState.CLOSED

    def before(self, call: Hashable, now: float) -> float | None:
        """A call is about to begin.

        Returns:
            `None` if it may, else the time before which no call may: infinity while a probe is on its way.
        """
        breaker, bucket = self._breaker, self._bucket
        if breaker is not None and not self._ending and not breaker.admits(now):
            return breaker.probe_at if breaker.probe_at is not None else inf
        if bucket is not None and not self._ending:
            free_at = bucket.free_at(now)
            if free_at > now:
                return free_at
            bucket.reserve(now)
        known = self._known.setdefault(call, _Known())
        known.begun = now
        if breaker is not None and breaker.admits(now):
            before = breaker.state
            known.ticket = breaker.begin(now)
            self._note(before, breaker.state)
        return None

    def after(self, call: Hashable, errors: Sequence[BaseException], now: float) -> float | None:
        """A call has ended; `errors` are what its steps raised.

        Returns:
            `None` where that is final, else the time at which the call is repeated. `attempts` tells how many there were.
        """
        known = self._known[call]
        breaker = self._breaker
        told = [error for error in errors if not isinstance(error, ENDS_RUN)]
        is_down = any(isinstance(error, Exception) and not isinstance(error, DomainError) for error in told)
        probed = False
        if breaker is not None:
            before = breaker.state
            if is_down:
                breaker.failed(known.ticket, now)
            else:
                breaker.succeeded(known.ticket)
                self._answered = max(self._answered, known.begun)
            self._note(before, breaker.state)
            probed = before is BreakerState.PROBING and breaker.state is BreakerState.OPEN
        if not told or len(told) < len(errors) or self._ending:
            known.attempts += 1
            return None
        excused = is_down and breaker is not None and not self._is_to_blame(known)
        known.failed_at = now
        if excused and breaker is not None and breaker.state is not BreakerState.CLOSED:
            # Not an attempt, and no part of its time: nobody could have succeeded.
            known.excused += 1
            known.since = now
            at = breaker.probe_at if breaker.probe_at is not None else now
            return at + _BEHIND if probed else at
        known.attempts += 1
        if known.attempts == 1:
            known.since = now
        again = self._next_attempt(known, told, now)
        if again is not None and breaker is not None and breaker.probe_at is not None:
            return max(again, breaker.probe_at)
        if again is None and excused and breaker is not None:
            known.excused += 1
            known.attempts -= 1
            return now + breaker.verdict_s
        return again

    def attempts(self, call: Hashable) -> int:
        """How many attempts there were, those aside that failed because the called system was down."""
        known = self._known.get(call)
        return known.attempts if known is not None else 0

    def forget(self, call: Hashable, now: float) -> None:
        """A call is final, or was discarded; if it was a probe without an outcome, another one may begin."""
        known = self._known.pop(call, None)
        breaker = self._breaker
        if known is not None and breaker is not None:
            before = breaker.state
            breaker.given_up(known.ticket, now)
            self._note(before, breaker.state)

    def credit(self, waiting: int) -> int | None:
        """How many more records may be read while so many calls wait; `None` sets no limit.

        While the breaker is open that is none. But once every call that waits has failed as a probe, one more is let in: of
        records that fail whatever happens none could close it.
        """
        if not self.is_paused:
            return None
        return 1 if self._failed_probes >= waiting else 0

    def input_over(self) -> None:
        """No more records come: a call that keeps failing is not excused for ever."""
        self._input_over = True

    def end(self) -> None:
        """This is the last chance of every call: nothing waits and nothing is repeated from now on."""
        self._ending = True

    def _next_attempt(self, known: _Known, errors: Sequence[BaseException], now: float) -> float | None:
        """The latest of the times that its errors ask for: one that is worth another attempt is enough."""
        retry = self._retry
        if retry is None:
            return None
        times = [retry.next_call(error, known.attempts, known.since, now) for error in errors]
        return max((at for at in times if at is not None), default=None)

    def _is_to_blame(self, known: _Known) -> bool:
        """Whether a call that has failed again did so while the system was up, as far as anybody can know."""
        return self._answered >= known.failed_at or (self._input_over and known.excused >= _LAST_EXCUSES)

    def _note(self, before: BreakerState, after: BreakerState) -> None:
        if after is before:
            return
        if after is BreakerState.OPEN:
            self._failed_probes = self._failed_probes + 1 if before is BreakerState.PROBING else 0
        if self._changed is not None:
            self._changed(after)
