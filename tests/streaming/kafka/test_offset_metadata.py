"""What stands beside each position: read as it was written, and never more than is true."""

from __future__ import annotations

import pytest

from loom.streaming.kafka import TopicPartition
from loom.streaming.kafka.offset_metadata import (
    MAX_WRITERS,
    Committed,
    OffsetMetadata,
    RunMetadata,
    escaped,
    partition_counts,
)

LONG = "many " * 400
#: what a broker takes by default (offset.metadata.max.bytes)
MOST_BYTES = 4096


@pytest.mark.parametrize("flow", ["orders", "a@b", "two words", "größe", "100%", "a=b", LONG])
def test_metadata_is_read_as_it_was_written(flow: str) -> None:
    metadata = OffsetMetadata(escaped(flow), "6f3c", "fixed", 64, 100_000)
    assert OffsetMetadata.parse(metadata.render()) == metadata
    assert len(metadata.render().encode()) < MOST_BYTES


def test_names_that_differ_only_where_they_are_cut_stay_apart() -> None:
    assert len({escaped(LONG), escaped(LONG + "x"), escaped(LONG + "y")}) == 3


@pytest.mark.parametrize("count", [1, 2, MAX_WRITERS])
def test_the_number_of_writers_that_an_earlier_version_wrote_is_still_read(count: int) -> None:
    assert OffsetMetadata.parse(f"loom-writers={count}") == OffsetMetadata(writers=count)


@pytest.mark.parametrize(
    "found",
    ["", "somebody's note", "loom-writers=", "loom-writers=0", "loom-writers=-2", "loom-writers=x", "loom-writers=²",
     f"loom-writers={MAX_WRITERS + 1}", "loom-writers=9" + "9" * 30, "loom/2 flow=orders", "loom/1", "loom/1 flow=",
     "loom/1 writers=x partitions=-1", "loom/1 new=key"],
)  # fmt: skip
def test_metadata_that_we_do_not_recognise_is_empty(found: str) -> None:
    assert OffsetMetadata.parse(found) == OffsetMetadata()


def test_a_key_of_a_later_version_hides_none_of_those_that_are_known() -> None:
    assert OffsetMetadata.parse("loom/1 later=x partitions=4") == OffsetMetadata(partitions=4)


def test_the_count_of_a_topic_is_the_largest_that_a_position_names() -> None:
    named = {0: 2, 1: 4, 2: 4}
    committed = {TopicPartition("a", n): Committed(0, OffsetMetadata(partitions=c).render()) for n, c in named.items()}
    assert partition_counts({**committed, TopicPartition("b", 0): Committed(0, "a note")}) == {"a": 4}


def test_the_count_is_raised_when_every_partition_below_it_has_a_position() -> None:
    run = RunMetadata("orders", lambda: {"a": (0, 1, 2, 3)})

    def count() -> int | None:
        return OffsetMetadata.parse(run.text("a")).partitions

    run.found({TopicPartition("a", n): Committed(0, OffsetMetadata(partitions=2).render()) for n in (0, 1)})
    assert count() == 2
    assert not run.covered([TopicPartition("a", 3)])
    assert count() == 2
    assert run.covered([TopicPartition("a", 2)])
    assert count() == 4
    assert not run.covered([TopicPartition("a", 2)])


def test_a_topic_without_any_position_has_no_count_yet() -> None:
    assert OffsetMetadata.parse(RunMetadata("orders", lambda: {"a": (0, 1)}).text("a")).partitions is None


def test_every_run_is_told_from_every_other() -> None:
    one, other = (RunMetadata("orders", lambda: {"a": (0,)}) for _ in range(2))
    assert one.of_another_run("a", one.text("a")) is None
    assert one.of_another_run("a", other.text("a")) == OffsetMetadata.parse(other.text("a"))
    assert one.of_another_run("a", "") is None
    assert one.of_another_run("a", "loom-writers=1") is None


@pytest.mark.parametrize(
    ("found", "open_"),
    [
        ({}, [0, 1, 2]),
        ({0: "loom/1 flow=orders run=a mode=fixed writers=2"}, []),
        ({0: "loom/1 flow=orders run=a mode=fixed writers=2", 1: "a note"}, [1]),
        ({0: "loom/1 flow=orders run=a mode=fixed writers=3"}, [0, 1, 2]),
        ({0: "loom/1 flow=others run=a mode=fixed writers=2"}, [0, 1, 2]),
        ({0: "loom/1 flow=orders run=a mode=group"}, [0, 1, 2]),
        (dict.fromkeys(range(3), "loom/1 flow=orders run=a mode=fixed writers=2"), []),
    ],
)
def test_what_a_layout_has_not_taken_over_names_another_or_has_no_sibling_of_ours(
    found: dict[int, str], open_: list[int]
) -> None:
    """A partition without a position in a topic that was taken over is new, or its position has expired."""
    partitions = [TopicPartition("orders.raw", number) for number in range(3)]
    committed = {TopicPartition("orders.raw", number): Committed(7, text) for number, text in found.items()}
    metadata = RunMetadata("orders", lambda: {"orders.raw": (0, 1, 2)}, writers=2)
    assert [partition for _, partition in metadata.unclaimed(partitions, committed)] == open_
