"""Generated flows that keep records, handed batches of any size at any time and cut at any moment: no position passes a
record whose results are not out, order holds, and a restart from the safe positions loses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.streaming.kafka import TopicPartition
from loom.streaming.runtime.stages.stage_io import EndMark
from tests.streaming.runtime.stages.oracle.comparing import Result, expected_by_slot, left_by_slot
from tests.streaming.runtime.stages.oracle.driving import Driven
from tests.streaming.runtime.stages.oracle.flows import records_of
from tests.streaming.runtime.stages.oracle.interpreter import Interpreter
from tests.streaming.runtime.stages.oracle.profiles import ORACLE
from tests.streaming.runtime.stages.oracle.shapes import Chain, Input, chains, inputs

pytestmark = pytest.mark.timeout(21_600)

TIMEOUTS = (10, 50, 200)
#: a batch of so many records, so many milliseconds after the one before; 0 records make a tick
SCHEDULES = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0, 1, 9, 10, 30, 250])), max_size=8)
DELIVERIES = st.sampled_from([None, "at_most_once", "at_least_once", "exactly_once"])


@dataclass
class Run:
    """One stage and one interpreter that are told the same."""

    chain: Chain
    read: list[Input]
    delivery: str | None
    hosted: bool

    def __post_init__(self) -> None:
        self.driven = Driven(self.chain, self.delivery, self.hosted)
        self.interpreter = Interpreter(self.chain, encodes=not self.hosted)
        self.places = [
            (TopicPartition(p.topic, p.partition), p.offset)
            for p in (getattr(record, "meta", record) for record in records_of(self.read))
        ]
        self.at = 0
        self.now = 100.0
        self.positions: dict[TopicPartition, int] = {}

    @property
    def keeps_confirming(self) -> bool:
        return self.delivery in ("at_least_once", "exactly_once")

    def batch(self, size: int, later_ms: int) -> None:
        self.now += later_ms / 1000
        until = min(self.at + size, len(self.read))
        moved = {}
        for place, offset in self.places[self.at : until]:
            moved[place] = offset + 1
        self.positions.update(moved)
        self.driven.run(records_of(self.read)[self.at : until], moved, self.now)
        self.interpreter.batch(self.read[self.at : until], self.now)
        self.at = until
        self.check()

    def end(self, mark: EndMark) -> None:
        if mark is EndMark.INPUT and self.interpreter.repeats_calls:
            # What an end lets go may fail and wait again; here time passes first, until nothing waits.
            while (due := self.interpreter.next_due()) is not None:
                self.now = max(self.now, due)
                self.batch(0, 0)
        self.driven.run([], {}, self.now, mark)
        self.interpreter.end(emits=mark is EndMark.INPUT or not self.keeps_confirming)
        assert self.driven.stage.ended
        self.check()

    def below(self, origin: int) -> bool:
        """Whether an input stands before the safe position of its partition."""
        place, offset = self.places[origin]
        return offset < self.driven.safe.get(place, 0)

    def check(self) -> None:
        """What has to hold at every moment."""
        safe = self.driven.safe
        waiting = [*self.interpreter.kept(), *self.interpreter.discarded]
        for place, position in self.positions.items():
            oldest = [offset for item in waiting for p, offset in [self.places[item.origin]] if p == place]
            assert safe[place] == min([position, *oldest])
        # Everything below the positions is out, and nothing of it twice.
        assert_same(
            left_by_slot(self.driven.left, self.below),
            expected_by_slot(self.interpreter, self.driven, self.below),
            self,
        )
        if self.delivery == "exactly_once":
            assert all(self.below(one.origin) for one in self.driven.left)


def assert_same(found: dict[str, list[Result]], wanted: dict[str, list[Result]], run: Run) -> None:
    """The same results in each outlet, each partition in the same order."""
    for slot in {*found, *wanted}:
        for partition in range(3):
            one, other = (
                [r for r in results.get(slot, []) if run.read[r.origin].partition == partition]
                for results in (found, wanted)
            )
            assert one == other, (slot, partition)


@ORACLE
@given(
    chain=chains(timeouts=TIMEOUTS, sinks=False, retries=True),
    read=inputs(),
    schedule=SCHEDULES,
    delivery=DELIVERIES,
    hosted=st.booleans(),
)
def test_at_every_moment_positions_pass_no_record_that_is_not_out_and_in_the_end_everything_is(
    chain: Chain, read: list[Input], schedule: list[tuple[int, int]], delivery: str | None, hosted: bool
) -> None:
    run = Run(chain, read, delivery, hosted)
    for size, later_ms in schedule:
        run.batch(size, later_ms)
    run.batch(len(read), 0)
    run.end(EndMark.INPUT)
    assert_same(left_by_slot(run.driven.left), expected_by_slot(run.interpreter, run.driven), run)
    assert run.driven.safe == run.positions
    counts = run.driven.counts
    failed = {f.item.origin for f in run.interpreter.failures}
    assert counts.inputs_written + counts.inputs_dropped + sum(counts.inputs_failed.values()) == len(read)
    assert sum(counts.inputs_failed.values()) == len(failed)


@ORACLE
@given(
    chain=chains(timeouts=TIMEOUTS, sinks=False, retries=True),
    read=inputs(),
    schedule=SCHEDULES,
    delivery=DELIVERIES,
    hosted=st.booleans(),
)
def test_a_stop_at_any_moment_and_a_restart_lose_nothing_and_double_nothing_that_has_to_be_once(
    chain: Chain, read: list[Input], schedule: list[tuple[int, int]], delivery: str | None, hosted: bool
) -> None:
    run = Run(chain, read, delivery, hosted)
    for size, later_ms in schedule:
        run.batch(size, later_ms)
    before = len(run.driven.left)
    run.end(EndMark.STOP)
    if run.keeps_confirming:
        # What was kept, and what had to wait for it, stays where it is.
        assert len(run.driven.left) == before
        assert len(run.interpreter.kept()) == 0
    else:
        assert run.driven.safe == run.positions
        assert_same(left_by_slot(run.driven.left), expected_by_slot(run.interpreter, run.driven), run)

    again = [at for at in range(len(read)) if not run.below(at)]
    second = Run(chain, [read[at] for at in again], delivery, hosted)
    second.batch(len(again), 0)
    second.end(EndMark.INPUT)
    assert_same(left_by_slot(second.driven.left), expected_by_slot(second.interpreter, second.driven), second)
    if delivery == "exactly_once":
        first_run = {one.origin for one in run.driven.left}
        assert first_run.isdisjoint(again)


def test_the_judge_of_positions_is_judged_once_by_hand() -> None:
    from tests.streaming.runtime.stages.oracle.shapes import Collected

    chain = Chain((Collected("c", 2, 50, ()),), None)
    run = Run(chain, [Input(n, "json", 0, None) for n in range(3)], "at_least_once", hosted=False)
    run.batch(3, 0)
    assert [one.origin for one in run.driven.left] == [0, 1]
    assert run.driven.safe == {TopicPartition("numbers", 0): 2}
    run.driven.left.pop()
    with pytest.raises(AssertionError):
        run.check()
