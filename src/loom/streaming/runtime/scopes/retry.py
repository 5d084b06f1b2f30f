"""What a `Retry` policy says after each failed call. Holds no record and reads no clock; asked on the error path only."""

from __future__ import annotations

from collections.abc import Callable

from loom.core.errors import ENDS_RUN
from loom.streaming.nodes.retry import Retry, RetryAfter

__all__ = ["RetrySchedule"]

#: an attempt at the last moment still counts, however its time was rounded; in seconds
_ROUNDING = 2e-6


class RetrySchedule:
    """Decides when to call again.

    >>> schedule = RetrySchedule(Retry(attempts=3, wait_jitter_ms=0), lambda: 0.0)
    >>> schedule.next_call(TimeoutError(), attempts=1, since=5.0, now=5.0)
    5.1
    >>> schedule.next_call(TimeoutError(), attempts=3, since=5.0, now=5.4) is None
    True

    Args:
        policy: the policy.
        random: a number from 0 to 1, for the random part of a wait.
        limit_ms: no attempt begins later than this after the first failure, beside the policy's own `timeout_ms`.
    """

    def __init__(self, policy: Retry, random: Callable[[], float], limit_ms: float | None = None) -> None:
        self._policy = policy
        self._random = random
        limits = [limit for limit in (policy.timeout_ms, limit_ms) if limit is not None]
        self._limit_s = min(limits) / 1000 if limits else None

    def next_call(self, error: BaseException, attempts: int, since: float, now: float) -> float | None:
        """When to call again.

        Args:
            error: what the call has raised.
            attempts: how many calls there were, this one included.
            since: when the first of them failed, in monotonic seconds.
            now: the time now, on the same clock.

        Returns:
            A time on that clock, or `None` when the record is an error now.
        """
        if attempts >= self._policy.attempts or not self.retries(error):
            return None
        # In whole microseconds: sums of milliseconds then meet at the same time, however they were added up.
        at = round(now + self._wait_s(error, attempts), 6)
        if self._limit_s is not None and at - since > self._limit_s + _ROUNDING:
            return None
        return at

    def retries(self, error: BaseException) -> bool:
        """Whether an exception is worth another attempt."""
        if isinstance(error, RetryAfter):
            return True
        policy = self._policy
        return (
            isinstance(error, policy.on)
            and not isinstance(error, policy.give_up_on)
            and not isinstance(error, ENDS_RUN)
        )

    def _wait_s(self, error: BaseException, attempts: int) -> float:
        if isinstance(error, RetryAfter):
            # A service may name any time, and what waits pins an offset.
            return min(error.seconds, self._policy.wait_max_ms / 1000)
        return self._policy.wait_ms(attempts, self._random()) / 1000
