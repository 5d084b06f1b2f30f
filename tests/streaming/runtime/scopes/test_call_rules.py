"""Retry, rate limit and breaker together: simulated calls of a system that is down for a while, at times of the test's own."""

from __future__ import annotations

import random
from collections import deque
from heapq import heappop, heappush
from math import inf
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from loom.core.errors import NotFound
from loom.streaming import CircuitBreaker, RateLimit, Retry
from loom.streaming.runtime.scopes.call_rules import CallRules
from loom.streaming.runtime.scopes.circuit_breaker import Breaker, BreakerState
from loom.streaming.runtime.scopes.rate_limit import TokenBucket
from loom.streaming.runtime.scopes.retry import RetrySchedule

#: a simulation is slow to shrink
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


def rules_of(
    retry: Retry | None = None,
    limit: RateLimit | None = None,
    breaker: CircuitBreaker | None = None,
    states: list[BreakerState] | None = None,
    seed: int = 0,
) -> CallRules:
    return CallRules(
        RetrySchedule(retry, random.Random(seed).random) if retry is not None else None,
        TokenBucket(limit) if limit is not None else None,
        Breaker(breaker) if breaker is not None else None,
        states.append if states is not None else None,
    )


class Simulation:
    """A scope that calls a system, a few at a time; the system is down at times, and refuses some records whatever happens."""

    def __init__(
        self,
        rules: CallRules,
        records: int,
        *,
        at_once: int,
        takes_s: float,
        down: list[tuple[float, float]],
        bad: set[int],
    ) -> None:
        self.rules = rules
        self.now = 0.0
        self.at_once, self.takes_s, self.down, self.bad = at_once, takes_s, down, bad
        self.unread = deque(range(records))
        self.ready: deque[int] = deque()
        self.later: list[tuple[float, int, int]] = []
        self.running: list[tuple[float, int, int]] = []
        self.number = 0
        #: when each call began
        self.begun: list[tuple[float, int]] = []
        self.answered: dict[int, float] = {}
        self.refused: dict[int, int] = {}
        self.capacity = 2 * at_once

    def is_down(self, at: float) -> bool:
        return any(begin <= at < end for begin, end in self.down)

    def read(self) -> None:
        waiting = len(self.ready) + len(self.later) + len(self.running)
        most = self.capacity - waiting
        allowed = self.rules.credit(waiting)
        for _ in range(min(most if allowed is None else allowed, len(self.unread))):
            self.ready.append(self.unread.popleft())
        if not self.unread:
            self.rules.input_over()

    def start(self) -> float | None:
        """Start what may start; when to try again, if the rules keep calls back."""
        while len(self.running) < self.at_once:
            due = bool(self.later) and self.later[0][0] <= self.now
            if self.rules.is_paused and self.ready:
                due = False  # one that has not been tried may be the one to close the breaker
            if not due and not self.ready:
                break
            record = self.later[0][2] if due else self.ready[0]
            wait = self.rules.before(record, self.now)
            if wait is not None:
                assert wait > self.now
                return wait
            heappop(self.later) if due else self.ready.popleft()
            self.number += 1
            self.begun.append((self.now, record))
            heappush(self.running, (self.now + self.takes_s, self.number, record))
        return None

    def end(self, record: int) -> None:
        error: BaseException | None = None
        if self.is_down(self.now):
            error = ConnectionError("down")
        elif record in self.bad:
            error = ValueError("bad")
        again = self.rules.after(record, [error] if error is not None else [], self.now)
        if again is not None:
            self.number += 1
            heappush(self.later, (again, self.number, record))
            return
        assert record not in self.answered
        assert record not in self.refused
        if error is None:
            self.answered[record] = self.now
        else:
            self.refused[record] = self.rules.attempts(record)
        self.rules.forget(record, self.now)

    def run(self, most: int = 5_000) -> Simulation:
        for _ in range(most):
            self.read()
            not_before = self.start()
            times = [self.running[0][0]] if self.running else []
            if not_before is not None and not_before < inf:
                times.append(not_before)
            if not_before is None and self.later and len(self.running) < self.at_once:
                times.append(self.later[0][0])
            if not times:
                break
            self.now = max(self.now, min(times))
            while self.running and self.running[0][0] <= self.now:
                self.end(heappop(self.running)[2])
        return self


def test_without_rules_every_call_begins_at_once_and_once() -> None:
    rules = rules_of()
    assert rules.before("a", 1.0) is None
    assert rules.after("a", [OSError()], 1.0) is None
    assert (rules.attempts("a"), rules.credit(5)) == (1, None)


def test_while_a_system_is_down_for_a_minute_no_record_becomes_an_error_and_few_calls_are_made() -> None:
    states: list[BreakerState] = []
    rules = rules_of(breaker=CircuitBreaker(5, 10_000), states=states)
    sim = Simulation(rules, 200, at_once=10, takes_s=0.01, down=[(0.05, 60.0)], bad=set()).run()
    assert (len(sim.answered), sim.refused) == (200, {})
    while_down = [record for at, record in sim.begun if 0.1 <= at < 60.0]
    assert len(while_down) <= 7
    assert states[0] is BreakerState.OPEN
    assert states[-1] is BreakerState.CLOSED


def test_a_record_that_is_bad_is_an_error_while_others_are_answered() -> None:
    sim = Simulation(rules_of(breaker=CircuitBreaker(5, 1_000)), 50, at_once=4, takes_s=0.01, down=[], bad={7}).run()
    assert sim.refused == {7: 1}
    assert len(sim.answered) == 49


def test_bad_records_alone_do_not_hold_the_breaker_open_for_good() -> None:
    sim = Simulation(
        rules_of(breaker=CircuitBreaker(2, 1_000)), 30, at_once=1, takes_s=0.01, down=[], bad=set(range(6))
    ).run()
    assert set(sim.refused) == set(range(6))
    assert len(sim.answered) == 24


def test_a_refusal_by_the_domain_is_an_answer() -> None:
    rules = rules_of(breaker=CircuitBreaker(1, 1_000))
    rules.before("a", 0.0)
    assert rules.after("a", [NotFound("no")], 0.0) is None
    assert not rules.is_paused


def test_attempts_that_fail_because_the_system_is_down_do_not_count() -> None:
    rules = rules_of(Retry(3, wait_jitter_ms=0, timeout_ms=500), breaker=CircuitBreaker(2, 1_000))
    at, begins = 0.0, []
    for _ in range(6):
        wait = rules.before("a", at)
        while wait is not None:
            at = wait
            wait = rules.before("a", at)
        begins.append(at)
        again = rules.after("a", [OSError()], at)
        assert again is not None
        at = again
    assert begins == pytest.approx([0.0, 0.1, 1.1, 2.1, 3.1, 4.1], abs=0.01)
    assert rules.attempts("a") == 1


def test_at_the_end_nothing_is_repeated_and_nothing_kept_back() -> None:
    rules = rules_of(Retry(3), RateLimit(1, 1), CircuitBreaker(1, 1_000))
    rules.before("a", 0.0)
    assert rules.after("a", [OSError()], 0.0) is not None
    assert rules.before("b", 0.0) == 1.0
    rules.end()
    assert [rules.before(call, 0.0) for call in "ab"] == [None, None]
    assert [rules.after(call, [OSError()], 0.0) for call in "ab"] == [None, None]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_what_ends_a_program_is_never_repeated(error: BaseException) -> None:
    rules = rules_of(Retry(3), breaker=CircuitBreaker(1, 1_000))
    rules.before("a", 0.0)
    assert rules.after("a", [error], 0.0) is None


def test_of_several_errors_one_that_is_worth_another_attempt_is_enough() -> None:
    rules = rules_of(Retry(3, on=(OSError,)))
    rules.before("a", 0.0)
    assert rules.after("a", [KeyError(), OSError()], 0.0) is not None
    rules.before("b", 0.0)
    assert rules.after("b", [KeyError()], 0.0) is None


def test_a_probe_that_is_discarded_makes_way_for_another() -> None:
    rules = rules_of(breaker=CircuitBreaker(1, 1_000))
    rules.before("a", 0.0)
    rules.after("a", [OSError()], 0.0)
    assert rules.before("a", 1.0) is None
    assert rules.before("b", 1.0) == inf
    rules.forget("a", 1.2)
    assert rules.before("b", 1.2) is None


@given(
    records=st.integers(1, 40),
    at_once=st.integers(1, 8),
    takes_ms=st.sampled_from([1, 20, 300]),
    outages=st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 20_000)), max_size=3),
    bad=st.sets(st.integers(0, 40), max_size=4),
    retry=st.none() | st.builds(lambda n: Retry(n, wait_max_ms=1_000), st.integers(1, 4)),
    limit=st.none() | st.builds(RateLimit, st.sampled_from([3, 50, 1_000]), st.integers(1, 5)),
    breaker=st.none() | st.builds(CircuitBreaker, st.integers(1, 5), st.sampled_from([400, 1_000])),
    seed=st.integers(),
)
@settings(max_examples=80, deadline=None, phases=PHASES)
def test_every_record_ends_once_and_no_rule_is_broken(
    records: int,
    at_once: int,
    takes_ms: int,
    outages: list[tuple[int, int]],
    bad: set[int],
    retry: Retry | None,
    limit: RateLimit | None,
    breaker: CircuitBreaker | None,
    seed: int,
) -> None:
    down = [(begin / 1000, (begin + length) / 1000) for begin, length in outages]
    rules = rules_of(retry, limit, breaker, seed=seed)
    bad = {record for record in bad if record < records}
    sim = Simulation(rules, records, at_once=at_once, takes_s=takes_ms / 1000, down=down, bad=bad).run()
    assert set(sim.answered) | set(sim.refused) == set(range(records))
    assert not set(sim.answered) & bad
    if breaker is not None and len(outages) < 2:
        # The breaker keeps every record from the dead letters that has nothing wrong itself.
        assert set(sim.refused) == bad
    most = 1 if retry is None else retry.attempts
    calls: dict[int, int] = {}
    for _, record in sim.begun:
        calls[record] = calls.get(record, 0) + 1
    assert all(1 <= attempts <= most for attempts in sim.refused.values())
    if breaker is None:
        assert all(count <= most for count in calls.values())
    if limit is not None:
        begins = [at for at, _ in sim.begun]
        for first, at in enumerate(begins):
            last = min(first + 10, len(begins) - 1)
            assert last - first + 1 <= limit.burst + (begins[last] - at) * limit.per_second + 1e-6


def test_the_same_calls_give_the_same_times() -> None:
    def begun() -> Any:
        rules = rules_of(Retry(4), RateLimit(20, 2), CircuitBreaker(3, 400), seed=5)
        return Simulation(rules, 30, at_once=3, takes_s=0.02, down=[(0.5, 3.0)], bad={4}).run().begun

    assert begun() == begun()
