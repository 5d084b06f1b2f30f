"""Which record is suspected after which ends, without any process."""

from __future__ import annotations

import signal

from loom.cli.exit_codes import Exit
from loom.cli.supervisor.recorder import AtWork, RunState
from loom.cli.supervisor.restart_policy import End, end_of
from loom.cli.supervisor.suspicion import Suspicion
from loom.streaming.kafka import TopicPartition
from loom.streaming.record import TopicPartitionOffset

ABORTED = end_of(-signal.SIGABRT, broker=False)
KILLED = end_of(-signal.SIGKILL, broker=False)
LEFT = end_of(Exit.DONE, broker=False, announced=False)
FAILED = end_of(Exit.FAILED, broker=False)
A, B = TopicPartition("a", 0), TopicPartition("a", 1)


def at(position: int, read: int, work: AtWork | None = None) -> RunState:
    """A run that began at a position of `A` and has read further; `B` is idle."""
    return RunState({"a[0]": position, "a[1]": 7}, {"a[0]": read, "a[1]": 7}, work)


def alone(offset: int) -> AtWork:
    return AtWork("a[0]", offset, alone=True)


def isolates_after(*ends: tuple[End, RunState]) -> bool:
    suspicion = Suspicion()
    for end, state in ends:
        suspicion.ended(end, state)
    return suspicion.isolation() is not None


def test_two_ends_at_one_position_isolate_what_was_read_beyond_it() -> None:
    suspicion = Suspicion()
    suspicion.ended(ABORTED, at(5, 40))
    assert suspicion.isolation() is None
    suspicion.ended(LEFT, at(5, 30))
    found = suspicion.isolation()
    assert found is not None
    assert found.until == {A: 40}
    assert found.fatal == {}


def test_ends_of_another_kind_or_at_another_position_isolate_nothing() -> None:
    assert not isolates_after((ABORTED, at(5, 40)), (ABORTED, at(6, 40)))
    assert not isolates_after((FAILED, at(5, 40)), (FAILED, at(5, 40)))
    assert not isolates_after((ABORTED, at(5, 5)), (ABORTED, at(5, 5)))


def test_a_partition_that_stays_where_it_is_counts_though_others_move_on() -> None:
    assert isolates_after(
        (ABORTED, RunState({"a[0]": 5, "a[1]": 1}, {"a[0]": 9, "a[1]": 4})),
        (ABORTED, RunState({"a[0]": 5, "a[1]": 8}, {"a[0]": 9, "a[1]": 9})),
    )


def test_the_first_kill_at_a_position_may_be_an_operators() -> None:
    assert not isolates_after((KILLED, at(5, 40)), (KILLED, at(5, 40)))
    assert isolates_after((KILLED, at(5, 40)), (KILLED, at(5, 40)), (KILLED, at(5, 40)))
    assert not isolates_after((KILLED, at(5, 40)), (KILLED, at(6, 40)), (KILLED, at(7, 40)))


def suspected() -> Suspicion:
    suspicion = Suspicion()
    for _ in range(2):
        suspicion.ended(ABORTED, at(5, 40))
    return suspicion


def test_a_record_that_was_alone_twice_is_named_and_the_ends_are_evidence() -> None:
    suspicion = suspected()
    first = suspicion.ended(ABORTED, at(8, 9, alone(8)))
    assert (first.record, first.evidence) == (None, True)
    second = suspicion.ended(LEFT, at(8, 9, alone(8)))
    assert (second.record, second.evidence) == (TopicPartitionOffset("a", 0, 8), True)
    assert second.ends == "killed by SIGABRT, exit code 0, not by the runner"


def test_a_record_that_was_not_alone_is_not_blamed_but_what_was_with_it_is_alone_the_next_time() -> None:
    suspicion = suspected()
    for _ in range(3):
        found = suspicion.ended(ABORTED, at(20, 30, AtWork("a[0]", 29, alone=False)))
        assert found.record is None
    isolation = suspicion.isolation()
    assert isolation is not None
    assert (isolation.until, isolation.alone) == ({A: 40}, {A: 30})


def test_a_record_that_is_refused_is_passed_on_and_not_evidence_any_more() -> None:
    suspicion = suspected()
    for _ in range(2):
        suspicion.ended(ABORTED, at(8, 9, alone(8)))
    suspicion.refuse(TopicPartitionOffset("a", 0, 8), "twice")
    isolation = suspicion.isolation()
    assert isolation is not None
    assert isolation.fatal == {TopicPartitionOffset("a", 0, 8): "twice"}
    again = suspicion.ended(ABORTED, at(8, 9, alone(8)))
    assert (again.refused, again.evidence) == (True, False)


def test_a_kill_while_nothing_is_worked_on_blames_nothing() -> None:
    suspicion = suspected()
    assert suspicion.ended(ABORTED, at(8, 9)).record is None
    assert suspicion.ended(KILLED, at(9, 9)).record is None
