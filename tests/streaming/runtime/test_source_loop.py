"""The life of a source client, call by call: reading, ending, confirming."""

from __future__ import annotations

import weakref
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
from loom.streaming.runtime.waker import Waker

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
        self,
        reader: FakeReader,
        *nodes: Any,
        confirming: FakeConfirming | None = None,
        snapshots: bool | None = None,
        watchful: bool = False,
    ) -> None:
        self.reader, self.confirming = reader, confirming
        self.stage: Any = FakeStage(*nodes)
        self.state = RunState(ObservabilityRuntime.noop())
        #: offsets are committable at the engine's snapshots, which its part is told of or not
        self.state.epochs.by_snapshots = snapshots is not None
        self.now = 100.0
        self.feed = SourceLoop(
            reader,
            self.stage,
            self.state,
            confirming,
            batch_size=10,
            snapshots=snapshots is not False,
            size=len,
            clock=lambda: self.now,
            watchful=watchful,
        )

    def next(self) -> SourceBatch | None:
        """The one batch, if there is one."""
        found = self.feed.next_batch()
        assert len(found) <= 1
        return found[0] if found else None

    def takes(self, *batches: SourceBatch | None) -> None:
        """What a sink part does with batches."""
        for batch in batches:
            assert batch is not None
            in_flight = batch.in_flight
            assert in_flight is not None
            in_flight.taken += 1
            in_flight.taken_records += len(batch.origins)
            in_flight.taken_bytes += batch.bytes
            in_flight.taken_thread = -1
            if batch.mark is not None:
                in_flight.settled = in_flight.taken
                self.state.epochs.answer(batch.mark)

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
    fed.state.stop.request("test")
    mark = fed.next()
    assert mark is not None
    assert mark.end is EndMark.STOP
    assert fed.reader.asked == []


def test_a_stop_wins_over_the_end_of_input() -> None:
    fed = Fed(FakeReader((["a"], {}, True)))
    fed.next()
    fed.state.stop.request("test")
    mark = fed.next()
    assert mark is not None
    assert mark.end is EndMark.STOP


def ending(fed: Fed) -> Fed:
    """Up to the end mark."""
    fed.state.stop.request("test")
    fed.next()
    return fed


def test_with_snapshots_and_nothing_to_confirm_it_ends_as_soon_as_the_stage_has() -> None:
    fed = ending(Fed(FakeReader(), snapshots=True))
    assert not fed.ends()
    fed.stage.ended = True
    assert fed.ends()


def test_a_part_that_is_told_of_no_snapshot_ends_as_soon_as_the_stage_has() -> None:
    fed = ending(Fed(FakeReader(), confirming=FakeConfirming(), snapshots=False))
    fed.stage.ended = True
    assert fed.ends()


def test_while_something_is_kept_ticks_go_on_and_it_does_not_end() -> None:
    node = FakeNode(kept=1)
    fed = ending(Fed(FakeReader(), node, snapshots=True))
    for _ in range(3):
        tick = fed.next()
        assert tick is not None
        assert (tick.origins, tick.end) == ((), None)
    fed.stage.ended = True
    assert fed.ends()


def test_with_positions_it_ends_only_behind_one_more_snapshot_and_its_barrier() -> None:
    confirming = FakeConfirming()
    fed = ending(Fed(FakeReader(), confirming=confirming, snapshots=True))
    fed.stage.ended = True
    for _ in range(5):
        assert not fed.ends()
    assert confirming.log == []
    fed.feed.snapshot()
    assert fed.ends()
    assert confirming.log == ["finish"]


def test_a_snapshot_that_came_before_the_stage_was_empty_does_not_count() -> None:
    confirming = FakeConfirming()
    fed = ending(Fed(FakeReader(), confirming=confirming, snapshots=True))
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
    fed = ending(Fed(FakeReader(), confirming=confirming, snapshots=True))
    fed.stage.ended = True
    assert not fed.ends()
    fed.feed.snapshot()
    assert [fed.ends() for _ in range(3)] == [False, False, True]


def test_behind_each_epoch_what_is_frozen_is_confirmed_once() -> None:
    confirming = FakeConfirming()
    fed = Fed(FakeReader(), confirming=confirming, snapshots=True)
    fed.next()
    assert confirming.log == []
    fed.feed.snapshot()
    assert confirming.log == []  # the barrier is behind it only when the engine asks again
    fed.next()
    fed.next()
    assert confirming.log == ["confirm"]


@pytest.mark.parametrize("snapshots", [None, True])
@pytest.mark.parametrize(
    ("phase", "told"),
    [
        ("kept", "records that a node of the flow still keeps"),
        ("epoch", "the end of the epoch"),
        ("commit", "the broker's answer to the last commit"),
    ],
)
def test_a_stop_that_takes_too_long_says_what_it_was_waiting_for(phase: str, told: str, snapshots: bool | None) -> None:
    fed = Fed(FakeReader(), FakeNode(kept=1), confirming=FakeConfirming(False), snapshots=snapshots)
    fed.state.stop.limit_s = 0
    ending(fed)
    if phase != "kept":
        fed.stage.ended = True
        batch = fed.next()
        if phase == "commit" and batch is not None:
            fed.takes(batch)
        elif phase == "commit":
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
    fed.state.stop.limit_s = 0
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


def test_an_epoch_ends_with_a_mark_when_its_time_is_over_and_something_was_handed_on() -> None:
    fed = Fed(FakeReader((["a"], {PLACE: 1}, False)))
    fed.takes(fed.next())
    fed.now += 0.9
    assert fed.next() is None
    fed.now += 0.2
    mark = fed.next()
    assert mark is not None
    assert (mark.origins, mark.positions, mark.mark is not None) == ((), {}, True)
    assert fed.next() is None  # one is enough, whether it was answered or not
    fed.now += 5
    assert fed.next() is None
    fed.takes(mark)
    fed.now += 5
    assert fed.next() is None


@pytest.mark.parametrize(
    ("due", "has_news", "rests"),
    [
        (None, False, 0.25),
        # Of an epoch of a second, 20 ms are left.
        (None, True, 0.02),
        (0.01, True, 0.01),
        (-1.0, False, 0.001),
    ],
    ids=["nothing is due", "the epoch", "a node", "it is late"],
)
def test_a_worker_that_waits_for_calls_rests_until_something_is_due(
    due: float | None, has_news: bool, rests: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = Fed(FakeReader((["a"], {PLACE: 1}, False)), node := FakeNode())
    fed.takes(fed.next())
    if not has_news:
        fed.now += 2.0
        fed.takes(fed.next())
    waits: list[float] = []
    monkeypatch.setattr(fed.stage.room, "wait", waits.append)
    fed.stage.room.elsewhere = 1
    # Longer than an epoch where nothing has left since its end.
    fed.now += 0.98 if has_news else 5.0
    node._credit, node._due = 0, None if due is None else fed.now + due
    fed.feed.rest(fed.now)
    assert waits == [pytest.approx(rests)]


@pytest.mark.parametrize("why", ["a stop", "the engine's snapshots", "its group"])
def test_a_worker_that_waits_for_calls_looks_after_other_things_as_well(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = Fed(FakeReader(), FakeNode(credit=0), snapshots=True if "snapshots" in why else None, watchful="group" in why)
    if "stop" in why:
        fed.state.stop.request("test")
    waits: list[float] = []
    monkeypatch.setattr(fed.stage.room, "wait", waits.append)
    fed.stage.room.elsewhere = 1
    fed.feed.rest(fed.now)
    assert waits == [pytest.approx(0.05)]


def test_a_stop_ends_the_rest_of_a_worker_that_waits_for_calls() -> None:
    fed = Fed(FakeReader())
    left, earlier = Waker(), weakref.WeakSet[Waker]()
    earlier.add(left)
    fed.state.stop.wakes(left)
    del left
    assert not earlier
    fed.state.stop.request("test")
    assert fed.stage.room.wake.wait(0)


def test_a_flow_that_is_idle_makes_no_marks() -> None:
    fed = Fed(FakeReader())
    for _ in range(5):
        fed.now += 10
        assert fed.next() is None


def test_what_comes_while_a_mark_is_on_its_way_gets_one_of_its_own() -> None:
    fed = Fed(FakeReader((["a"], {}, False), ((), {}, False), (["b"], {}, False)))
    first = fed.next()
    fed.now += 2
    mark = fed.next()
    fed.next()
    second = fed.next()
    fed.takes(first, mark)
    fed.now += 2
    again = fed.next()
    assert second is not None
    assert again is not None
    assert again.mark is not None
    fed.takes(second, again)
    fed.now += 2
    assert fed.next() is None


def test_a_mark_that_is_asked_for_comes_at_once() -> None:
    fed = Fed(FakeReader((["a"], {}, False)))
    fed.next()
    fed.state.epochs.ask()
    mark = fed.next()
    assert mark is not None
    assert mark.mark is not None


def test_one_mark_ends_the_epoch_of_all_workers_and_what_had_not_arrived_gets_another() -> None:
    one, other = Fed(FakeReader((["a"], {}, False))), Fed(FakeReader((["b"], {}, False)))
    other.feed._epochs = other.state.epochs = one.state.epochs
    first, second = one.next(), other.next()
    one.now = other.now = one.now + 2
    mark = one.next()
    assert mark is not None
    assert mark.mark is not None
    assert other.next() is None  # the process has just ended an epoch
    one.takes(first, mark)
    one.now = other.now = one.now + 2
    assert one.next() is None
    later = other.next()
    assert later is not None
    assert later.mark is not None
    other.takes(second, later)


def test_behind_an_answered_mark_and_once_per_epoch_offsets_are_committed() -> None:
    confirming = FakeConfirming()
    fed = Fed(FakeReader((["a"], {PLACE: 1}, False)), confirming=confirming)
    fed.takes(fed.next())
    fed.state.epochs.ask()
    mark = fed.next()
    assert confirming.log == []
    fed.takes(mark)
    fed.next()
    fed.next()
    assert confirming.log == ["confirm"]
    fed.now += 1.1  # a commit that failed for a moment is tried again
    fed.next()
    fed.next()
    assert confirming.log == ["confirm", "confirm"]


def test_it_ends_behind_a_last_mark_and_the_answer_to_the_last_commit() -> None:
    confirming = FakeConfirming(False, True)
    fed = ending(Fed(FakeReader(), confirming=confirming))
    assert not fed.ends()
    fed.stage.ended = True
    mark = fed.next()
    assert mark is not None
    assert mark.mark is not None
    assert not fed.ends()
    assert confirming.log == []
    fed.takes(mark)
    assert [fed.ends() for _ in range(2)] == [False, True]
    assert confirming.log[-2:] == ["finish", "finish"]


def test_a_sink_part_of_another_thread_that_falls_behind_stops_the_reading_and_no_marks() -> None:
    batches = [([n] * 10, {PLACE: 10 * n}, False) for n in range(1, 20)]
    fed = Fed(FakeReader(*batches))
    sent = [fed.next()]
    while (batch := fed.next()) is not None:
        sent.append(batch)
    assert len(sent) == 8
    fed.now += 2
    mark = fed.next()
    assert mark is not None
    assert mark.mark is not None
    assert fed.next() is None
    fed.takes(sent[0])
    more = fed.next()
    assert more is not None
    assert more.origins
    assert fed.next() is None


def test_bytes_on_their_way_to_another_thread_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loom.streaming.runtime.source_loop._MOST_BYTES", 3)
    fed = Fed(FakeReader(*[(["ab"], {}, False)] * 20))
    fed.takes(fed.next())
    sent = [batch for batch in (fed.next() for _ in range(10)) if batch is not None]
    assert len(sent) == 3
    fed.takes(*sent)
    assert fed.next() is not None
