"""How many processes write for a group, as it stands beside the group's positions."""

from __future__ import annotations

import pytest

from loom.streaming.bytewax.writer_count import MOST_WRITERS, marked, stored_writers


@pytest.mark.parametrize("count", [1, 2, MOST_WRITERS])
def test_a_number_is_read_as_it_was_written(count: int) -> None:
    assert stored_writers([marked(count)]) == count


def test_the_largest_number_counts() -> None:
    assert stored_writers([marked(2), "", marked(5), marked(1)]) == 5


@pytest.mark.parametrize(
    "found",
    ["", "somebody's note", "loom-writers=", "loom-writers=0", "loom-writers=-2", "loom-writers=x", "loom-writers=²",
     f"loom-writers={MOST_WRITERS + 1}", "loom-writers=9" + "9" * 30],
)  # fmt: skip
def test_what_nobody_can_read_or_somebody_else_wrote_says_nothing(found: str) -> None:
    assert stored_writers([found]) == 0
