"""Batches under exactly-once: short enough for their transaction, whatever a record costs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loom.streaming.runtime.pace import Pace


def batches(pace: Pace, cost_s: float, count: int, most: int = 2000) -> list[int]:
    """The sizes of full batches whose records take `cost_s` each."""
    now, sizes = 0.0, []
    for _ in range(count):
        size = pace.limit(most, now)
        sizes.append(size)
        pace.sent(size, now)
        now += size * cost_s
    return sizes


def test_cheap_records_reach_full_batches_within_a_few() -> None:
    sizes = batches(Pace(15.0), cost_s=4e-6, count=8)
    assert sizes[0] < 100
    assert sizes[-1] == 2000


@given(st.floats(1e-6, 1.0), st.floats(1.0, 60.0))
def test_no_batch_behind_the_first_takes_longer_than_the_budget(cost_s: float, budget_s: float) -> None:
    for size in batches(Pace(budget_s), cost_s, count=12)[1:]:
        assert size == 1 or size * cost_s <= budget_s * 1.001


def test_a_step_that_becomes_slow_is_followed_by_smaller_batches() -> None:
    pace = Pace(10.0)
    now, costs = 0.0, [1e-5] * 8 + [0.05] * 3
    sizes = []
    for cost in costs:
        size = pace.limit(2000, now)
        sizes.append(size)
        pace.sent(size, now)
        now += size * cost
    assert sizes[7] == 2000
    assert sizes[-1] * 0.05 <= 10.0


def test_an_idle_source_does_not_shrink_what_comes_after_it_below_one() -> None:
    pace = Pace(1.0)
    pace.sent(1, 0.0)
    assert pace.limit(2000, 3600.0) == 1
    assert batches(pace, 1e-6, count=16)[-1] == 2000
