"""Whether a called system is down: the states of a `CircuitBreaker`. Reads no clock. Used by one thread."""

from __future__ import annotations

from enum import Enum

from loom.streaming.nodes.retry import CircuitBreaker

__all__ = ["Breaker", "BreakerState"]


class BreakerState(Enum):
    """What may be called. CLOSED → OPEN → PROBING → CLOSED or OPEN."""

    CLOSED = "closed"  #: everything
    OPEN = "open"  #: nothing
    PROBING = "probing"  #: nothing but the probe, which is on its way


class Breaker:
    """Counts failures in a row and says when to call again.

    Each call takes a ticket when it begins and hands it back with its outcome. An outcome of a call that began before the
    last change of state changes nothing: it tells of another time.

    >>> breaker = Breaker(CircuitBreaker(failures=2, open_ms=1_000))
    >>> for _ in range(2):
    ...     breaker.failed(breaker.begin(5.0), 5.0)
    >>> breaker.state, breaker.admits(5.5), breaker.admits(6.0)
    (<BreakerState.OPEN: 'open'>, False, True)
    >>> breaker.succeeded(breaker.begin(6.0))
    >>> breaker.state
    <BreakerState.CLOSED: 'closed'>

    Args:
        policy: failures and the time between two probes.
    """

    def __init__(self, policy: CircuitBreaker) -> None:
        self._most = policy.failures
        self._open_s = policy.open_ms / 1000
        #: After so many seconds a call that failed alone is repeated, to tell a system that is down from a bad record: if
        #: nothing else is called, the breaker opens after one time of being open.
        self.verdict_s = self._open_s / policy.failures
        self.state = BreakerState.CLOSED
        #: raised by each change of state; the ticket of a call
        self._term = 0
        self._failures = 0
        self._probe_at = 0.0
        #: how often it has opened
        self.opened = 0

    @property
    def probe_at(self) -> float | None:
        """When the next probe may begin, in monotonic seconds; `None` unless it is open."""
        return self._probe_at if self.state is BreakerState.OPEN else None

    def admits(self, now: float) -> bool:
        """Whether a call may begin now."""
        if self.state is BreakerState.CLOSED:
            return True
        return self.state is BreakerState.OPEN and now >= self._probe_at

    def begin(self, now: float) -> int:
        """A call begins, which must have been admitted. Returns its ticket.

        Raises:
            ValueError: if it was not admitted.
        """
        if not self.admits(now):
            raise ValueError(f"the breaker is {self.state.value} and admits no call")
        if self.state is BreakerState.OPEN:
            self._become(BreakerState.PROBING)
        return self._term

    def succeeded(self, ticket: int) -> None:
        """A call has answered."""
        if ticket != self._term:
            return
        self._failures = 0
        if self.state is BreakerState.PROBING:
            self._become(BreakerState.CLOSED)

    def failed(self, ticket: int, now: float) -> None:
        """A call has failed, in a way that may mean that the system is down."""
        if ticket != self._term:
            return
        self._failures += 1
        if self.state is BreakerState.PROBING or self._failures >= self._most:
            if self.state is BreakerState.CLOSED:
                self.opened += 1
            self._probe_at = now + self._open_s
            self._become(BreakerState.OPEN)

    def given_up(self, ticket: int, now: float) -> None:
        """A call was cancelled without an outcome; if it was the probe, another one may begin at once."""
        if ticket == self._term and self.state is BreakerState.PROBING:
            self._probe_at = now
            self._become(BreakerState.OPEN)

    def _become(self, state: BreakerState) -> None:
        self.state = state
        self._term += 1
        self._failures = 0
