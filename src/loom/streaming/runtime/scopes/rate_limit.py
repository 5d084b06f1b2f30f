"""A token bucket: when the next call may begin. Reads no clock."""

from __future__ import annotations

from loom.streaming.nodes.retry import RateLimit

__all__ = ["TokenBucket"]


class TokenBucket:
    """Gives each call a time at which it may begin, in the order in which they ask.

    It keeps one number, the time at which the bucket is full again (the generic cell rate algorithm).

    >>> bucket = TokenBucket(RateLimit(per_second=10, burst=2))
    >>> [round(bucket.reserve(5.0), 1) for _ in range(4)]
    [5.0, 5.0, 5.1, 5.2]

    Args:
        limit: calls per second and burst.
    """

    def __init__(self, limit: RateLimit) -> None:
        self._interval = 1 / limit.per_second
        self._burst_s = (limit.burst - 1) * self._interval
        self._full_at = float("-inf")

    def reserve(self, now: float) -> float:
        """Take a token. Every caller must wait until the time that it is given.

        Args:
            now: the time now, in monotonic seconds.

        Returns:
            When the call may begin, on the same clock; `now` if it need not wait.
        """
        full_at = max(self._full_at, now)
        self._full_at = full_at + self._interval
        return max(now, full_at - self._burst_s)

    def free_at(self, now: float) -> float:
        """When a call that asked now could begin; takes no token.

        Args:
            now: the time now, in monotonic seconds.
        """
        return max(now, self._full_at - self._burst_s)
