"""A token bucket: never more calls than it promises in any stretch of time, and never later than it must."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loom.streaming import RateLimit
from loom.streaming.runtime.scopes.rate_limit import TokenBucket


@given(
    rate=st.floats(0.1, 1_000),
    burst=st.integers(1, 20),
    pauses=st.lists(st.just(0.0) | st.floats(0, 5), min_size=1, max_size=60),
)
def test_in_any_stretch_of_time_there_are_no_more_calls_than_the_rate_and_the_burst_allow(
    rate: float, burst: int, pauses: list[float]
) -> None:
    bucket, now, begins = TokenBucket(RateLimit(rate, burst)), 100.0, []
    for pause in pauses:
        now += pause
        free_at = bucket.free_at(now)
        begins.append(bucket.reserve(now))
        assert begins[-1] == free_at >= now
    assert begins == sorted(begins)
    for first, at in enumerate(begins):
        for last in range(first, len(begins)):
            assert last - first + 1 <= burst + (begins[last] - at) * rate + 1e-6


@given(rate=st.floats(0.1, 1_000), burst=st.integers(1, 20), count=st.integers(1, 100))
def test_who_asks_all_the_time_gets_the_whole_rate(rate: float, burst: int, count: int) -> None:
    bucket = TokenBucket(RateLimit(rate, burst))
    begins = [bucket.reserve(0.0) for _ in range(count)]
    assert begins[-1] <= max(0, count - burst) / rate + 1e-6


def test_a_pause_fills_the_bucket_and_no_more() -> None:
    bucket = TokenBucket(RateLimit(10, 3))
    assert [bucket.reserve(0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert [round(bucket.reserve(100.0), 3) for _ in range(5)] == [100.0, 100.0, 100.0, 100.1, 100.2]
