"""Which records are followed: each with the same probability, whatever the batches are."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.streaming.runtime.telemetry.sampling import Gaps, Sampler


@pytest.mark.parametrize("ratio", [0.5, 0.01, 0.001])
def test_about_as_many_are_followed_as_the_ratio_says(ratio: float) -> None:
    gaps, records = Gaps(ratio), 1_000_000
    followed = sum(len(gaps.among(1_000)) for _ in range(records // 1_000))
    # Eight standard deviations: never by chance.
    assert abs(followed - records * ratio) < 8 * (records * ratio * (1 - ratio)) ** 0.5


@pytest.mark.parametrize("ratio", [0.5, 0.05, 0.01, 0.001])
def test_each_record_of_a_batch_is_as_likely_as_any(ratio: float) -> None:
    sampler, batches = Sampler(ratio), 200_000
    followed = Counter(at for _ in range(batches) for at in sampler.of_batch(5))
    for at in range(5):
        assert abs(followed[at] - batches * ratio) < 8 * (batches * ratio * (1 - ratio)) ** 0.5


def test_those_that_are_followed_come_from_some_batches() -> None:
    sampler = Sampler(0.01)
    counts = [len(sampler.of_batch(1_000)) for _ in range(2_000)]
    # Of one batch in sixteen, one record in six; no more than that, so that they are not all neighbours.
    assert [sum(count > 0 for count in counts[at : at + 16]) for at in range(0, 2_000, 16)] == [1] * 125
    assert max(counts) < 300
    # Not of the same one of them each time.
    assert len({next(n for n, count in enumerate(counts[at : at + 16]) if count) for at in range(0, 2_000, 16)}) > 3


def test_a_sampler_follows_all_or_none() -> None:
    assert [list(Sampler(1.0).of_batch(2)), list(Sampler(0.0).of_batch(2))] == [[0, 1], []]


@given(st.lists(st.integers(0, 50)), st.floats(0, 1))
def test_the_indices_of_a_batch_are_in_it_and_in_order(batches: list[int], ratio: float) -> None:
    gaps = Gaps(ratio)
    for records in batches:
        followed = list(gaps.among(records))
        assert followed == sorted(set(followed))
        assert all(0 <= at < records for at in followed)


def test_all_or_none() -> None:
    assert list(Gaps(1.0).among(5)) == [0, 1, 2, 3, 4]
    assert not Gaps(0.0).among(1 << 40)
    assert not Gaps(1e-300).among(1 << 40)


def test_whoever_seeds_the_process_does_not_choose_the_records() -> None:
    chosen = []
    for _ in range(2):
        random.seed(1)
        chosen.append(tuple(Gaps(0.5).among(200)))
    assert chosen[0] != chosen[1]
