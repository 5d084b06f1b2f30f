"""A breaker opens after so many failures in a row, admits one probe at a time, and closes at the first success."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from loom.streaming import CircuitBreaker
from loom.streaming.runtime.scopes.circuit_breaker import Breaker, BreakerState


def tripped(failures: int = 3, open_ms: int = 1_000) -> Breaker:
    breaker = Breaker(CircuitBreaker(failures, open_ms))
    for _ in range(failures):
        breaker.failed(breaker.begin(0.0), 0.0)
    return breaker


def test_failures_in_a_row_open_it_and_a_success_between_starts_the_count_again() -> None:
    breaker = Breaker(CircuitBreaker(3, 1_000))
    for outcome in "ffsffsff":
        ticket = breaker.begin(0.0)
        breaker.succeeded(ticket) if outcome == "s" else breaker.failed(ticket, 0.0)
    assert breaker.state is BreakerState.CLOSED
    breaker.failed(breaker.begin(2.0), 2.0)
    assert (breaker.state, breaker.probe_at, breaker.opened) == (BreakerState.OPEN, 3.0, 1)


def test_while_it_is_open_only_the_probe_is_admitted_and_only_in_time() -> None:
    breaker = tripped()
    assert [breaker.admits(at) for at in (0.0, 0.999, 1.0)] == [False, False, True]
    with pytest.raises(ValueError, match="admits no call"):
        breaker.begin(0.5)
    breaker.begin(1.0)
    assert (breaker.state, breaker.admits(99.0), breaker.probe_at) == (BreakerState.PROBING, False, None)


def test_a_probe_that_fails_lets_it_stay_open_for_as_long_again() -> None:
    breaker = tripped()
    breaker.failed(breaker.begin(1.5), 1.7)
    assert (breaker.state, breaker.probe_at, breaker.opened) == (BreakerState.OPEN, 2.7, 1)


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker = tripped()
    breaker.succeeded(breaker.begin(1.0))
    assert (breaker.state, breaker.admits(1.0)) == (BreakerState.CLOSED, True)
    # The failures from before are forgotten.
    breaker.failed(breaker.begin(1.0), 1.0)
    assert breaker.state is BreakerState.CLOSED


def test_a_probe_that_is_cancelled_makes_way_for_another() -> None:
    breaker = tripped()
    breaker.given_up(breaker.begin(1.0), 1.2)
    assert (breaker.state, breaker.admits(1.2)) == (BreakerState.OPEN, True)


def test_outcomes_of_calls_from_before_it_opened_change_nothing() -> None:
    breaker = Breaker(CircuitBreaker(2, 1_000))
    late = [breaker.begin(0.0) for _ in range(5)]
    breaker.failed(late[0], 0.0)
    breaker.failed(late[1], 0.0)
    assert breaker.state is BreakerState.OPEN
    breaker.succeeded(late[2])
    breaker.failed(late[3], 0.9)
    assert (breaker.state, breaker.probe_at) == (BreakerState.OPEN, 1.0)
    probe = breaker.begin(1.0)
    breaker.given_up(late[4], 1.0)
    assert breaker.state is BreakerState.PROBING
    breaker.succeeded(probe)
    assert breaker.state is BreakerState.CLOSED


class Calls(RuleBasedStateMachine):
    """Calls that begin and end in any order, beside a count of the outcomes that matter."""

    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(CircuitBreaker(3, 1_000))
        self.now = 0.0
        self.opened_at: float | None = None
        self.probes: set[int] = set()

    @rule(ms=st.integers(1, 1_500))
    def time_passes(self, ms: int) -> None:
        self.now += ms / 1000

    @precondition(lambda self: self.breaker.admits(self.now))
    @rule(target=tickets)
    def begin(self) -> int:
        was_open = self.breaker.state is BreakerState.OPEN
        if was_open:
            assert self.opened_at is not None
            assert self.now >= self.opened_at + 1.0 - 1e-9
        ticket = self.breaker.begin(self.now)
        if was_open:
            # Never two probes for one opening.
            assert ticket not in self.probes
            self.probes.add(ticket)
        return ticket

    @rule(ticket=consumes(tickets), fails=st.booleans())
    def end(self, ticket: int, fails: bool) -> None:
        before = self.breaker.state
        self.breaker.failed(ticket, self.now) if fails else self.breaker.succeeded(ticket)
        if self.breaker.state is BreakerState.OPEN and before is not BreakerState.OPEN:
            assert fails
            self.opened_at = self.now
        if before is BreakerState.OPEN:
            assert self.breaker.state is BreakerState.OPEN

    @invariant()
    def only_a_closed_breaker_has_no_time_to_wait_for(self) -> None:
        assert (self.breaker.probe_at is not None) is (self.breaker.state is BreakerState.OPEN)


Calls.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCalls = Calls.TestCase
