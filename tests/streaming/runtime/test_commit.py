"""What becomes of committable offsets, epoch by epoch: one commit for each, at most one in flight, idle ones kept alive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from loom.streaming.kafka import TopicPartition
from loom.streaming.kafka.group_snapshot import KEEP_ALIVE
from loom.streaming.runtime.commit import CommittedElsewhere, GroupCommitter
from loom.streaming.runtime.keep_alive import KeepAlive
from loom.streaming.runtime.offsets import OffsetTable

A, B = TopicPartition("numbers", 0), TopicPartition("numbers", 1)


class FakeGroup:
    """In the place of the reader: keeps what is committed, and answers when the test says so."""

    def __init__(self) -> None:
        self.commits: list[dict[TopicPartition, int]] = []
        self.commit_outstanding = False
        self.stands = True
        self.looks = 0
        self._answer: dict[TopicPartition, int] | None = None

    def check(self) -> bool:
        self.looks += 1
        return self.stands

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        assert not self.commit_outstanding
        self.commits.append(dict(positions))
        self.commit_outstanding = True

    def commit_answers(self) -> dict[TopicPartition, int] | None:
        answer, self._answer = self._answer, None
        return answer

    def serve(self, wait_s: float) -> None: ...

    def answer(self, *, well: bool = True) -> None:
        self.commit_outstanding = False
        self._answer = self.commits[-1] if well else {}


class Confirming:
    def __init__(self) -> None:
        self.group = FakeGroup()
        self.now = 0.0
        self.table = OffsetTable(lambda: self.now)
        self.offsets = self.table.worker()
        self.offsets.take_up({A: 0, B: 0}, committed=True)
        group: Any = self.group
        self.it = GroupCommitter(self.offsets, group, KEEP_ALIVE)

    def epoch(self, **frozen: int) -> None:
        """One more epoch, with positions of the partitions a and b."""
        self.durable({{"a": A, "b": B}[name]: offset for name, offset in frozen.items()})
        self.it.confirm()

    def durable(self, positions: Mapping[TopicPartition, int]) -> None:
        self.table.complete(positions, self.table.generation)
        self.table.publish()


@pytest.fixture
def confirming() -> Confirming:
    return Confirming()


def test_the_positions_of_an_epoch_are_one_commit(confirming: Confirming) -> None:
    confirming.epoch(a=3, b=5)
    assert confirming.group.commits == [{A: 3, B: 5}]
    assert confirming.group.looks == 1


def test_epochs_that_end_while_a_commit_is_on_its_way_come_together_in_the_next_one(confirming: Confirming) -> None:
    confirming.epoch(a=3)
    confirming.epoch(a=4, b=1)
    confirming.epoch(a=7)
    assert confirming.group.commits == [{A: 3}]
    confirming.group.answer()
    confirming.epoch(a=9)
    assert confirming.group.commits == [{A: 3}, {A: 9, B: 1}]


def test_an_idle_epoch_overwrites_no_good_position_with_nothing(confirming: Confirming) -> None:
    confirming.epoch(a=3)
    confirming.group.answer()
    for _ in range(5):
        confirming.epoch()
    assert confirming.group.commits == [{A: 3}]
    assert confirming.group.looks == 1


def test_a_commit_that_failed_for_a_moment_is_sent_again_with_what_has_come_since(confirming: Confirming) -> None:
    confirming.epoch(a=3, b=1)
    confirming.group.answer(well=False)
    confirming.epoch(a=4)
    assert confirming.group.commits == [{A: 3, B: 1}, {A: 4, B: 1}]


def test_nothing_is_committed_while_nobody_says_where_the_group_stands(confirming: Confirming) -> None:
    confirming.group.stands = False
    confirming.epoch(a=3)
    assert confirming.group.commits == []
    confirming.group.stands = True
    confirming.epoch()
    assert confirming.group.commits == [{A: 3}]


def test_the_position_of_a_topic_that_is_gone_is_not_committed(confirming: Confirming) -> None:
    confirming.offsets.give_up([B])
    confirming.epoch(a=3, b=5)
    assert confirming.group.commits == [{A: 3}]


def test_it_is_finished_when_the_broker_has_said_so(confirming: Confirming) -> None:
    confirming.durable({A: 3})
    assert not confirming.it.finish()
    assert not confirming.it.finish()
    confirming.group.answer(well=False)
    assert not confirming.it.finish()
    confirming.group.answer()
    assert confirming.it.finish()
    assert confirming.group.commits == [{A: 3}, {A: 3}]


def test_a_group_without_members_loses_no_position_an_idle_partition_is_confirmed_again_beside_a_busy_one(
    confirming: Confirming,
) -> None:
    """Brokers forget each partition's position by its own last commit."""
    confirming.epoch(a=1, b=1)
    confirming.group.answer()
    for minute in range(1, 61):
        confirming.now = minute * 60.0
        confirming.epoch(a=minute + 1)
        confirming.group.answer()
    assert not any(B in commit for commit in confirming.group.commits[1:])
    # The answer was heard at the first of these epochs.
    confirming.now = 60.0 + KEEP_ALIVE + 1
    confirming.epoch(a=100)
    assert confirming.group.commits[-1] == {A: 100, B: 1}
    confirming.group.answer()
    confirming.epoch()
    assert confirming.group.commits[-1] == {A: 100, B: 1}


def test_positions_that_have_not_moved_for_an_hour_are_said_again() -> None:
    now = 0.0
    alive = KeepAlive(KEEP_ALIVE, lambda: now)
    stands = {A: 5, B: 7}
    assert alive.still({}, stands) == {}
    now = KEEP_ALIVE - 1
    assert alive.still({A: 5}, stands) == {}
    now = KEEP_ALIVE
    # One that never moved in this run as well: the group has it from an earlier one.
    assert alive.still({}, stands) == {B: 7}
    assert alive.still({}, stands) == {}
    now = 2 * KEEP_ALIVE
    assert alive.still({B: 8}, {A: 5, B: 8}) == {A: 5}


def test_what_is_confirmed_elsewhere_is_confirmed() -> None:
    confirmed = CommittedElsewhere()
    confirmed.confirm()
    assert confirmed.finish()
