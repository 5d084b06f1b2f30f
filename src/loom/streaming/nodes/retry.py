"""How calls are repeated, slowed down and held back: policies that a step or a scope may have. Plain data.

A step takes a `Retry`; a scope takes all three. What they do is in `loom.streaming.runtime.scopes`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from math import isfinite
from typing import Any

from loom.core.errors import DomainError
from loom.streaming.errors import LoomStreamingError

__all__ = ["CircuitBreaker", "RateLimit", "Retry", "RetryAfter"]

#: from this attempt on a wait does not grow any more: whatever it begins with, it has reached any `wait_max_ms` by then
_LAST_DOUBLED = 62


class RetryAfter(LoomStreamingError):
    """Raised by a step to be called again after a time of its choice, such as the `Retry-After` of an HTTP response.

    It needs a `Retry` policy on the step or its scope, and counts as a failed attempt. `on` and `give_up_on` of the policy do
    not matter for it. Without a policy it is an error like any other.

    >>> @step(retry=Retry(wait_max_ms=60_000))
    ... def look_up(order: Order) -> PricedOrder:
    ...     raise RetryAfter(30, "429 from the price service")

    Args:
        seconds: the wait, 0 or more. A wait is never longer than `wait_max_ms` of the policy.
        reason: what happened, for the error that the record becomes when no attempt is left.

    Raises:
        ValueError: for a negative number of seconds, or one that is not finite.
    """

    def __init__(self, seconds: float, reason: str = "") -> None:
        if not _is_number(seconds) or seconds < 0:
            raise ValueError(f"RetryAfter({seconds!r}) must be 0 seconds or more")
        super().__init__(f"{reason or 'asked to be called again'} (retry after {seconds:g} s)")
        self.seconds = float(seconds)


@dataclass(frozen=True)
class Retry:
    """Call again what has failed, with longer and longer waits between the attempts.

    The wait after attempt n is `wait_initial_ms * 2 ** (n - 1)` and a random part of up to `wait_jitter_ms`, together at
    most `wait_max_ms`. The record waits outside the step: other records are processed meanwhile, and its offset is not
    committed. When no attempt is left, the record is an error of its kind, with the number of attempts in the header
    `x-error-attempts`.

    >>> patient = Process(Price.with_retry(Retry(attempts=8, wait_max_ms=30_000, on=(ConnectionError, TimeoutError))))

    Args:
        attempts: the most calls for one record, the first included; at least 1.
        wait_initial_ms: the wait after the first attempt, in milliseconds, 0 or more.
        wait_max_ms: the longest wait between two attempts, in milliseconds, at least `wait_initial_ms`.
        wait_jitter_ms: the largest random part of a wait, in milliseconds, 0 or more.
        timeout_ms: no attempt begins later than this after the first one has failed, in milliseconds, at least 1; `None`
            sets no limit.
        on: exceptions that are worth another attempt; one class or several. Subclasses count.
        give_up_on: exceptions that are not, whatever `on` says.

    Raises:
        ValueError: for a number out of its range.
        TypeError: for an `on` or `give_up_on` that holds something other than subclasses of `Exception`.
    """

    attempts: int = 5
    _: KW_ONLY
    wait_initial_ms: int = 100
    wait_max_ms: int = 10_000
    wait_jitter_ms: int = 100
    timeout_ms: int | None = None
    on: tuple[type[Exception], ...] = (Exception,)
    give_up_on: tuple[type[Exception], ...] = (DomainError,)

    def __post_init__(self) -> None:
        _check_whole(self.attempts, "Retry", "attempts", 1)
        _check_whole(self.wait_initial_ms, "Retry", "wait_initial_ms", 0)
        _check_whole(self.wait_max_ms, "Retry", "wait_max_ms", 0)
        _check_whole(self.wait_jitter_ms, "Retry", "wait_jitter_ms", 0)
        if self.timeout_ms is not None:
            _check_whole(self.timeout_ms, "Retry", "timeout_ms", 1)
        if self.wait_max_ms < self.wait_initial_ms:
            raise ValueError(
                f"Retry(wait_initial_ms={self.wait_initial_ms}, wait_max_ms={self.wait_max_ms}): the longest wait must be at "
                "least the first one"
            )
        object.__setattr__(self, "on", _exceptions(self.on, "on"))
        object.__setattr__(self, "give_up_on", _exceptions(self.give_up_on, "give_up_on"))

    def wait_ms(self, attempts: int, jitter: float = 1.0) -> float:
        """The wait after so many attempts.

        >>> Retry(wait_jitter_ms=0).wait_ms(3)
        400.0

        Args:
            attempts: how many calls have failed, 1 or more.
            jitter: how much of the random part is used, from 0 to 1.

        Returns:
            Milliseconds.
        """
        grown = self.wait_initial_ms * 2.0 ** min(attempts - 1, _LAST_DOUBLED)
        return min(grown + self.wait_jitter_ms * jitter, float(self.wait_max_ms))

    @property
    def longest_ms(self) -> float:
        """The longest time from the first failure to the last attempt, in milliseconds, as long as no step raises `RetryAfter`.

        >>> Retry(attempts=3, wait_jitter_ms=0).longest_ms
        300.0
        """
        waits = self.attempts - 1
        growing = min(waits, _LAST_DOUBLED)
        total = sum(self.wait_ms(n + 1) for n in range(growing)) + (waits - growing) * self.wait_ms(_LAST_DOUBLED + 1)
        return total if self.timeout_ms is None else min(total, float(self.timeout_ms))


@dataclass(frozen=True)
class RateLimit:
    """At most so many calls per second, with room for a burst: a token bucket, measured by the monotonic clock.

    >>> RateLimit(50, burst=10).per_second
    50

    Args:
        per_second: calls per second on average, above 0; fractions are allowed.
        burst: how many calls may begin at once after a pause, at least 1.

    Raises:
        ValueError: for a number out of its range.
    """

    per_second: float
    burst: int = 1

    def __post_init__(self) -> None:
        if not _is_number(self.per_second) or self.per_second <= 0:
            raise ValueError(f"RateLimit(per_second={self.per_second!r}) must be a number above 0")
        _check_whole(self.burst, "RateLimit", "burst", 1)


@dataclass(frozen=True)
class CircuitBreaker:
    """Stop calling a system that is down, and stop reading, instead of turning record after record into errors.

    After `failures` failed calls in a row it opens: the source pauses and nothing is called. After `open_ms` one call probes:
    if it succeeds everything continues, otherwise the next probe follows after `open_ms`. The calls that failed wait and are
    repeated; they do not become errors. A `DomainError` is an answer of the system, so it does not count as a failure.

    >>> CircuitBreaker(failures=5, open_ms=10_000).failures
    5

    Args:
        failures: how many calls must fail in a row, at least 1.
        open_ms: the time between two probes, in milliseconds, at least 1.

    Raises:
        ValueError: for a number out of its range.
    """

    failures: int
    open_ms: int

    def __post_init__(self) -> None:
        _check_whole(self.failures, "CircuitBreaker", "failures", 1)
        _check_whole(self.open_ms, "CircuitBreaker", "open_ms", 1)


def _check_whole(value: object, owner: str, name: str, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{owner}({name}={value!r}) must be a whole number of at least {least}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _exceptions(given: Any, name: str) -> tuple[type[Exception], ...]:
    """One exception class or several, as a tuple."""
    found = (given,) if isinstance(given, type) else tuple(given) if isinstance(given, Iterable) else (given,)
    for one in found:
        if not (isinstance(one, type) and issubclass(one, Exception)):
            raise TypeError(f"Retry({name}=…) takes subclasses of Exception, not {one!r}")
    return found
