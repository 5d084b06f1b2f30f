"""What a retry policy says after each failed call."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.errors import NotFound
from loom.streaming import Retry, RetryAfter
from loom.streaming.runtime.scopes.retry import RetrySchedule


def calls_of(schedule: RetrySchedule, error: BaseException, *, start: float = 100.0) -> list[float]:
    """The times of all calls when each fails at once."""
    times = [start]
    while (at := schedule.next_call(error, len(times), start, times[-1])) is not None:
        times.append(at)
    return times


policies = st.builds(
    lambda attempts, initial, more, jitter, timeout: Retry(
        attempts, wait_initial_ms=initial, wait_max_ms=initial + more, wait_jitter_ms=jitter, timeout_ms=timeout
    ),
    st.integers(1, 30),
    st.integers(0, 2_000),
    st.integers(0, 20_000),
    st.integers(0, 2_000),
    st.none() | st.integers(1, 30_000),
)


@given(policy=policies, seed=st.integers())
def test_waits_double_within_their_jitter_and_never_exceed_the_longest(policy: Retry, seed: int) -> None:
    times = calls_of(RetrySchedule(policy, random.Random(seed).random), OSError())
    assert len(times) <= policy.attempts
    for n, (before, after) in enumerate(itertools.pairwise(times), 1):
        wait_ms = (after - before) * 1000
        assert policy.wait_ms(n, 0.0) - 1e-3 <= wait_ms <= policy.wait_ms(n, 1.0) + 1e-3
    assert (times[-1] - times[0]) * 1000 <= policy.longest_ms + 0.1
    if policy.timeout_ms is None:
        assert len(times) == policy.attempts


@given(policy=policies, seconds=st.floats(0, 100), seed=st.integers())
def test_a_step_that_names_its_wait_gets_it_up_to_the_longest_and_within_the_timeout(
    policy: Retry, seconds: float, seed: int
) -> None:
    times = calls_of(RetrySchedule(policy, random.Random(seed).random), RetryAfter(seconds))
    assert len(times) <= policy.attempts
    for before, after in itertools.pairwise(times):
        assert after - before == pytest.approx(min(seconds, policy.wait_max_ms / 1000), abs=1e-6)
    if policy.timeout_ms is not None:
        assert times[-1] - times[0] <= policy.timeout_ms / 1000 + 1e-5


def test_the_same_random_numbers_give_the_same_times() -> None:
    made = [calls_of(RetrySchedule(Retry(9), random.Random(7).random), OSError()) for _ in range(2)]
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("policy", "error", "again"),
    [
        (Retry(), OSError(), True),
        (Retry(), NotFound("no"), False),
        (Retry(on=(OSError,)), TimeoutError(), True),  # a subclass
        (Retry(on=(OSError,)), KeyError(), False),
        (Retry(give_up_on=(TimeoutError,)), TimeoutError(), False),
        (Retry(give_up_on=(TimeoutError,)), NotFound("no"), True),
        (Retry(on=(KeyError,), give_up_on=(Exception,)), RetryAfter(1), True),
        (Retry(), KeyboardInterrupt(), False),
        (Retry(), SystemExit(), False),
        (Retry(), BaseException(), False),
        (Retry(attempts=1), OSError(), False),
        (Retry(attempts=1), RetryAfter(1), False),
    ],
)
def test_what_is_worth_another_attempt(policy: Retry, error: BaseException, again: bool) -> None:
    found = RetrySchedule(policy, lambda: 0.5).next_call(error, 1, 0.0, 0.0)
    assert (found is not None) is again


def test_a_limit_from_outside_holds_beside_the_policys_own() -> None:
    def last(limit_ms: float | None, **policy: Any) -> float:
        schedule = RetrySchedule(Retry(99, wait_jitter_ms=0, **policy), lambda: 0.0, limit_ms)
        return calls_of(schedule, OSError())[-1] - 100.0

    assert last(1_000) == pytest.approx(0.7)
    assert last(1_000, timeout_ms=400) == pytest.approx(0.3)
    assert last(400, timeout_ms=1_000) == pytest.approx(0.3)
    assert last(700) == pytest.approx(0.7)
