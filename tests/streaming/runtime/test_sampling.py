"""Which records are followed: each with the same probability, whatever the batches are."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.streaming.runtime.telemetry.sampling import Sampler


@pytest.mark.parametrize("records", [1, 5, 1_000])
@pytest.mark.parametrize("ratio", [0.5, 0.3, 0.05, 0.01, 0.001])
def test_about_as_many_are_followed_as_the_ratio_says(ratio: float, records: int) -> None:
    sampler, batches = Sampler(ratio), 2_000_000 // records
    followed = sum(len(sampler.of_batch(records)) for _ in range(batches))
    # One batch of so many is looked at: the last of these may have been, or not. Beside that eight standard deviations.
    chance = 8 * (batches * records * ratio) ** 0.5
    assert abs(followed - batches * records * ratio) < min(records, 1_000) + chance


@pytest.mark.parametrize("ratio", [0.5, 0.05, 0.01, 0.001])
def test_each_record_of_a_batch_is_as_likely_as_any(ratio: float) -> None:
    sampler, batches = Sampler(ratio), 200_000
    followed = Counter(at for _ in range(batches) for at in sampler.of_batch(5))
    for at in range(5):
        assert abs(followed[at] - batches * ratio) < 8 * (batches * ratio * (1 - ratio)) ** 0.5


@pytest.mark.parametrize("sizes", [(1, 50), (50, 1), (1_000, 3)])
def test_batches_of_different_sizes_do_not_change_that(sizes: tuple[int, int]) -> None:
    sampler, rounds, followed, read = Sampler(0.05), 200_000, 0, 0
    chosen = random.Random(7)
    for _ in range(rounds):
        size = chosen.choice(sizes)
        read += size
        followed += len(sampler.of_batch(size))
    assert 0.9 < followed / (read * 0.05) < 1.1


def test_those_that_are_followed_are_neighbours_in_few_batches() -> None:
    sampler = Sampler(0.01)
    followed = [list(sampler.of_batch(1_000)) for _ in range(2_000)]
    # All records of one batch in a hundred.
    assert [sum(map(bool, followed[at : at + 100])) for at in range(0, 2_000, 100)] == [1] * 20
    assert {len(found) for found in followed} == {0, 1_000}
    # Not of the same one of them each time.
    places = {next(n for n, found in enumerate(followed[at : at + 100]) if found) for at in range(0, 2_000, 100)}
    assert len(places) > 3


def test_where_much_is_followed_each_batch_has_its_share() -> None:
    sampler = Sampler(0.3)
    assert {len(sampler.of_batch(200)) for _ in range(100)} <= {59, 60, 61}


def test_of_a_large_batch_about_a_thousand_are_followed_at_once() -> None:
    sampler = Sampler(0.05)
    followed = [list(sampler.of_batch(5_000)) for _ in range(800)]
    assert {len(found) for found in followed} == {0, 1_000}
    # Neighbours, where the first record follows the last one.
    assert all(sum(b - a != 1 for a, b in pairwise(found)) <= 1 for found in followed)
    assert any(0 in found and 4_999 in found for found in followed)
    assert any(0 not in found for found in followed if found)


def test_a_sampler_follows_all_or_none() -> None:
    assert [list(Sampler(ratio).of_batch(2)) for ratio in (1.0, 0.0)] == [[0, 1], []]
    assert not any(Sampler(1e-300).of_batch(5) for _ in range(1_000))


@given(st.lists(st.integers(0, 50)), st.floats(0, 1))
def test_the_indices_of_a_batch_are_in_it_and_in_order(batches: list[int], ratio: float) -> None:
    sampler = Sampler(ratio)
    for records in batches:
        followed = list(sampler.of_batch(records))
        assert followed == sorted(set(followed))
        assert all(0 <= at < records for at in followed)


def test_whoever_seeds_the_process_does_not_choose_the_records() -> None:
    chosen = []
    for _ in range(2):
        random.seed(1)
        sampler = Sampler(0.5)
        chosen.append([tuple(sampler.of_batch(5)) for _ in range(200)])
    assert chosen[0] != chosen[1]
