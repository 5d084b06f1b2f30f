"""The life of a source client, call by call: reading, ending, confirming."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pytest

from loom.core.observability import ObservabilityRuntime
from loom.streaming.bytewax import ForcedShutdownError
from loom.streaming.kafka import TopicPartition
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.source_loop import SourceLoop
from loom.streaming.runtime.stages.buffering import BufferingNodes
from loom.streaming.runtime.stages.stage_io import EndMark, SourceBatch
from loom.streaming.runtime.stop import StopSignal

PLACE = TopicPartition("numbers", 0)


class FakeReader:
    """Hands over what it was given, one answer per call, and writes down how much it was asked for."""

    def __init__(self, *answers: tuple[Sequence[Any], dict[TopicPartition, int], bool]) -> None:
        self._answers = list(answers)
        self.asked: list[int] = []

    def read(self, most: int) -> tuple[Sequence[Any], dict[TopicPartition, int], bool]:
        self.asked.append(most)
        return self._answers.pop(0) if self._answers else ((), {}, False)


class FakeStage:
    """Ends when it is told to."""

    def __init__(self, *nodes: Any) -> None:
        self.room = BufferingNodes(nodes)
        self.ended = False


class FakeConfirming:
    def __init__(self, *answers: bool) -> None:
        self._answers = list(answers)
        self.log: list[str] = []

    def confirm(self) -> None:
        self.log.append("confirm")

    def finish(self) -> bool:
        self.log.append("finish")
        return self._answers.pop(0) if self._answers else True


class FakeNode:
    """Keeps as many records as it says."""

    def __init__(self, kept: int = 0, credit: int | None = None, due: float | None = None) -> None:
        self._kept, self._credit, self._due = kept, credit, due

    def kept(self) -> int:
        return self._kept

    def oldest(self) -> list[tuple[TopicPartition, int]]:
        return []

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        raise AssertionError("no log is gone here")

    def credit(self) -> int | None:
        return self._credit

    def due(self) -> float | None:
        return self._due

    def tick(self, now: float) -> None: ...

    def end(self, mark: EndMark) -> None: ...


class Fed:
    """A feed and everything around it."""

    def __init__(
        self, reader: FakeReader, *nodes: Any, confirming: FakeConfirming | None = None, has_epochs: bool = True
    ) -> None:
        self.reader, self.confirming = reader, confirming
        self.stage: Any = FakeStage(*nodes)
        self.delivery = RunState(ObservabilityRuntime.noop())
        self.feed = SourceLoop(reader, self.stage, self.delivery, confirming, batch_size=10, has_epochs=has_epochs)

    def next(self) -> SourceBatch | None:
        """The one batch, if there is one."""
        found = self.feed.next_batch()
        assert len(found) <= 1
        return found[0] if found else None

    def ends(self) -> bool:
        try:
            assert self.feed.next_batch() == []
        except StopIteration:
            return self.feed.ended
        return False


def test_a_batch_carries_its_records_and_positions() -> None:
    fed = Fed(FakeReader((["a", "b"], {PLACE: 2}, False)))
    batch = fed.next()
    assert batch is not None
    assert (batch.stage, batch.origins, batch.positions, batch.end) == (fed.stage, ["a", "b"], {PLACE: 2}, None)
    assert fed.reader.asked == [10]


def test_nothing_read_is_no_batch() -> None:
    assert Fed(FakeReader()).next() is None


def test_positions_that_moved_without_a_record_are_handed_on_in_an_empty_batch() -> None:
    batch = Fed(FakeReader(((), {PLACE: 7}, False))).next()
    assert batch is not None
    assert (batch.origins, batch.positions) == ((), {PLACE: 7})


@pytest.mark.parametrize(("credit", "asked"), [(None, 10), (50, 10), (10, 10), (3, 3), (1, 1)])
def test_a_node_that_is_filling_up_takes_the_batch_down(credit: int | None, asked: int) -> None:
    fed = Fed(FakeReader(), FakeNode(kept=1, credit=credit))
    fed.next()
    assert fed.reader.asked == [asked]


@pytest.mark.parametrize("credit", [0, -4])
def test_a_full_node_stops_the_reading(credit: int) -> None:
    fed = Fed(FakeReader((["a"], {}, False)), FakeNode(kept=5, credit=credit))
    assert fed.next() is None
    assert fed.reader.asked == []


def test_the_fullest_node_decides() -> None:
    fed = Fed(FakeReader(), FakeNode(credit=7), FakeNode(credit=None), FakeNode(credit=2))
    fed.next()
    assert fed.reader.asked == [2]


@pytest.mark.parametrize(("due", "ticks"), [(None, False), (0.0, True), (float("inf"), False)])
def test_a_node_that_is_due_gets_a_tick_though_nothing_was_read(due: float | None, ticks: bool) -> None:
    batch = Fed(FakeReader(), FakeNode(kept=1, due=due)).next()
    assert (batch is not None) is ticks
    assert batch is None or (batch.origins, batch.positions, batch.end) == ((), {}, None)


def test_a_full_node_that_is_due_gets_a_tick_too() -> None:
    assert Fed(FakeReader(), FakeNode(kept=1, credit=0, due=0.0)).next() is not None


def test_the_end_of_input_is_marked_once_behind_the_last_record() -> None:
    fed = Fed(FakeReader((["a"], {}, True)))
    first, mark = fed.next(), fed.next()
    assert first is not None
    assert mark is not None
    assert (first.origins, first.end) == (["a"], None)
    assert (mark.origins, mark.end) == ((), EndMark.INPUT)
    assert fed.next() is None  # the stage has not seen the mark yet
    assert fed.reader.asked == [10]


def test_a_stop_is_marked_as_one_and_nothing_is_read_any_more() -> None:
    fed = Fed(FakeReader((["a"], {}, False)))
    fed.delivery.stop.request("test")
    mark = fed.next()
    assert mark is not None
    assert mark.end is EndMark.STOP
    assert fed.reader.asked == []


def test_a_stop_wins_over_the_end_of_input() -> None:
    fed = Fed(FakeReader((["a"], {}, True)))
    fed.next()
    fed.delivery.stop.request("test")
    mark = fed.next()
    assert mark is not None
    assert mark.end is EndMark.STOP


def ending(fed: Fed) -> Fed:
    """Up to the end mark."""
    fed.delivery.stop.request("test")
    fed.next()
    return fed


def test_without_anything_to_confirm_it_ends_as_soon_as_the_stage_has() -> None:
    fed = ending(Fed(FakeReader()))
    assert not fed.ends()
    fed.stage.ended = True
    assert fed.ends()


def test_without_epochs_it_ends_as_soon_as_the_stage_has() -> None:
    fed = ending(Fed(FakeReader(), confirming=FakeConfirming(), has_epochs=False))
    fed.stage.ended = True
    assert fed.ends()


def test_while_something_is_kept_ticks_go_on_and_it_does_not_end() -> None:
    node = FakeNode(kept=1)
    fed = ending(Fed(FakeReader(), node))
    for _ in range(3):
        tick = fed.next()
        assert tick is not None
        assert (tick.origins, tick.end) == ((), None)
    fed.stage.ended = True
    assert fed.ends()


def test_with_positions_it_ends_only_behind_one_more_snapshot_and_its_barrier() -> None:
    confirming = FakeConfirming()
    fed = ending(Fed(FakeReader(), confirming=confirming))
    fed.stage.ended = True
    for _ in range(5):
        assert not fed.ends()
    assert confirming.log == []
    fed.feed.snapshot()
    assert fed.ends()
    assert confirming.log == ["finish"]


def test_a_snapshot_that_came_before_the_stage_was_empty_does_not_count() -> None:
    confirming = FakeConfirming()
    fed = ending(Fed(FakeReader(), confirming=confirming))
    fed.feed.snapshot()
    assert not fed.ends()  # the mark is still on its way
    assert confirming.log == ["confirm"]
    fed.stage.ended = True
    assert not fed.ends()
    fed.feed.snapshot()
    assert fed.ends()
    assert confirming.log == ["confirm", "finish"]


def test_it_waits_for_the_answer_to_the_last_commit() -> None:
    confirming = FakeConfirming(False, False, True)
    fed = ending(Fed(FakeReader(), confirming=confirming))
    fed.stage.ended = True
    assert not fed.ends()
    fed.feed.snapshot()
    assert [fed.ends() for _ in range(3)] == [False, False, True]


def test_behind_each_epoch_what_is_frozen_is_confirmed_once() -> None:
    confirming = FakeConfirming()
    fed = Fed(FakeReader(), confirming=confirming)
    fed.next()
    assert confirming.log == []
    fed.feed.snapshot()
    assert confirming.log == []  # the barrier is behind it only when the engine asks again
    fed.next()
    fed.next()
    assert confirming.log == ["confirm"]


@pytest.mark.parametrize(
    ("phase", "told"),
    [
        ("kept", "records that a node of the flow still keeps"),
        ("epoch", "the end of the epoch"),
        ("commit", "the broker's answer to the last commit"),
    ],
)
def test_a_stop_that_takes_too_long_says_what_it_was_waiting_for(phase: str, told: str) -> None:
    fed = Fed(FakeReader(), FakeNode(kept=1), confirming=FakeConfirming(False))
    fed.delivery.stop.limit_s = 0
    ending(fed)
    if phase != "kept":
        fed.stage.ended = True
        fed.next()
    if phase == "commit":
        fed.feed.snapshot()
    with pytest.raises(ForcedShutdownError, match=told):
        fed.next()


def test_a_stop_without_a_limit_says_every_ten_seconds_what_it_waits_for(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    stop = StopSignal(lambda: now)
    stop.check_deadline("nothing yet")
    stop.request("a test")
    for second in range(25):
        now = 100.0 + second
        stop.check_deadline("the end of the epoch")
    said = [line for line in capsys.readouterr().err.splitlines() if "still_stopping" in line]
    assert len(said) == 2
    assert all("waiting_for='the end of the epoch'" in line for line in said)
    assert ["seconds=10" in said[0], "seconds=20" in said[1]] == [True, True]


def test_the_end_of_input_has_no_time_limit() -> None:
    fed = Fed(FakeReader((["a"], {}, True)), FakeNode(kept=1))
    fed.delivery.stop.limit_s = 0
    fed.next()
    fed.next()
    assert fed.next() is not None


def test_only_the_first_request_to_stop_counts() -> None:
    stop = RunState(ObservabilityRuntime.noop()).stop
    assert not stop.requested
    assert not stop.wait(0)
    stop.request("first")
    stop.request("second")
    assert stop.requested
    assert stop.wait(0)
    assert stop.reason == "first"
