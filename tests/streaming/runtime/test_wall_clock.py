"""A wall clock that jumps: runs go on, but for one that counts on the engine's snapshots, which ends and is not frozen."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bytewax.connectors.files import FileSink
from bytewax.inputs import DynamicSource, FixedPartitionedSource, StatefulSourcePartition, StatelessSourcePartition

from loom.core.errors import LoomError
from loom.core.observability import ObservabilityRuntime
from loom.streaming import (
    Drain,
    ErrorKind,
    FromTopic,
    IntoTopic,
    Process,
    StreamFlow,
    StreamingRunner,
    compile_flow,
    step,
)
from loom.streaming.bytewax import ClockSetBackError
from loom.streaming.bytewax.override_source import wrap_source
from loom.streaming.kafka import EmbeddedBroker
from loom.streaming.metrics import FlowCounts
from loom.streaming.record import TopicPartition
from loom.streaming.runtime import wall_clock
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.stages.buffering import BufferingNodes
from loom.streaming.runtime.standing import Standing
from loom.streaming.runtime.wall_clock import WallClock, watching_clock
from tests.support.one_way import Number
from tests.support.running import config_for, positions, produce, run_until
from tests.support.waiting import LONG_S, until

EPOCH = 1.0


@step
def kept(number: Number) -> Number:
    return number


class Clocks:
    """Both clocks of a machine, moved by hand."""

    def __init__(self) -> None:
        self.monotonic, self.wall = 500.0, 1_000_000.0
        self.watched = WallClock(lambda: self.wall, lambda: self.monotonic)

    def passes(self, seconds: float, *, shifted: float = 0.0) -> None:
        self.monotonic += seconds
        self.wall += seconds + shifted
        self.watched.check(EPOCH)


@pytest.mark.parametrize("shifted", [-3600.0, -1.5])
def test_a_clock_set_back_by_more_than_an_epoch_is_noticed_and_the_error_says_by_how_much(shifted: float) -> None:
    clocks = Clocks()
    clocks.passes(10)
    with pytest.raises(ClockSetBackError, match=rf"set back by {-shifted:.1f} s.*epochs of 1 s.*Restart the flow"):
        clocks.passes(0.02, shifted=shifted)


def test_it_is_noticed_also_when_it_goes_back_in_steps_within_one_epoch() -> None:
    clocks = Clocks()
    clocks.passes(0.1, shifted=-0.8)
    with pytest.raises(ClockSetBackError):
        clocks.passes(0.1, shifted=-0.8)


def test_a_clock_that_is_corrected_a_little_or_runs_slow_or_jumps_ahead_is_let_be() -> None:
    clocks = Clocks()
    clocks.passes(5, shifted=-0.9)
    for _ in range(1_000):
        clocks.passes(2, shifted=-0.001)
    clocks.passes(1, shifted=3600)
    clocks.passes(1)


class SleepsToTomorrow(StatefulSourcePartition[Any, None], StatelessSourcePartition[Any]):
    def next_batch(self) -> list[Any]:
        return []

    def next_awake(self) -> datetime:
        return datetime(2999, 1, 1, tzinfo=UTC)

    def snapshot(self) -> None: ...


class Fixed(FixedPartitionedSource[Any, None]):
    def list_parts(self) -> list[str]:
        return ["a", "b"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> SleepsToTomorrow:
        return SleepsToTomorrow()


class Dynamic(DynamicSource[Any]):
    def build(self, step_id: str, worker_index: int, worker_count: int) -> SleepsToTomorrow:
        return SleepsToTomorrow()


class Stage:
    """Nothing passes it."""

    gate = None
    room = BufferingNodes()

    def __init__(self) -> None:
        self.room = BufferingNodes()


@pytest.mark.parametrize("source", [Fixed(), Dynamic()])
def test_one_part_of_a_worker_is_due_whatever_the_wall_clock_shows(source: Any) -> None:
    plan = compile_flow(StreamFlow("parts", FromTopic("numbers", Number), Process(Drain())), config=config_for())
    stage: Any = Stage()
    wrapped: Any = wrap_source(source, plan.source, RunState(ObservabilityRuntime.noop()), lambda: stage, None)
    if isinstance(source, Fixed):
        due = [wrapped.build_part("source", part, None).next_awake() for part in ("a", "b")]
    else:
        due = [wrapped.build("source", 0, 1).next_awake()]
    assert due[0].year == 1970
    # The others sleep, so that a worker of many parts is not busy with asking them.
    assert all(at > datetime.now(UTC) for at in due[1:])


class Moved:
    """The wall clock of this process, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        self._looks = 0
        self._real = time.time
        monkeypatch.setattr(time, "time", self._time)

    def _time(self) -> float:
        if threading.current_thread().name == "loom-clock":
            self._looks += 1
        return self._real() + self.ahead

    def await_looks(self, more: int) -> None:
        """Wait until the thread that watches the clock has looked so many times more."""
        enough = self._looks + more
        until(lambda: self._looks >= enough)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Moved:
    return Moved(monkeypatch)


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        broker.create_topic("numbers")
        broker.create_topic("out")
        yield broker


FLOW = StreamFlow("clock", FromTopic("numbers", Number), Process(kept), output=IntoTopic("out", payload=Number))


@pytest.mark.parametrize("jump_s", [-60.0, 3_600.0])
def test_a_run_goes_on_to_end_epochs_and_to_commit_whichever_way_the_clock_jumps(
    broker: EmbeddedBroker, clock: Moved, jump_s: float
) -> None:
    bootstrap = broker.bootstrap
    produce(bootstrap, "numbers", *(b'{"n":%d}' % n for n in range(5)))
    runner = StreamingRunner.from_dict(FLOW, config_for(bootstrap, consumer={"delivery": "at_least_once"}))
    committed: list[int] = []

    def jump(counts: FlowCounts) -> bool:
        if counts.durable >= 5 and not clock.ahead:
            clock.ahead = jump_s
            produce(bootstrap, "numbers", *(b'{"n":%d}' % n for n in range(5, 10)))
        if counts.durable >= 10:
            committed[:] = [sum(positions(bootstrap, "numbers").values())]
        # Before any stop is asked for, so that the offsets were committed by an epoch that ended by itself.
        return committed == [10]

    assert run_until(runner, jump).durable == 10


@pytest.mark.bytewax
def test_a_run_that_goes_by_the_engines_snapshots_ends_when_its_clock_is_set_back_and_asks_for_a_new_start(
    broker: EmbeddedBroker, clock: Moved, tmp_path: Path
) -> None:
    produce(broker.bootstrap, "numbers", *(b'{"n":%d}' % n for n in range(5)))
    recovery = {"db_dir": str(tmp_path / "store")}
    runner = StreamingRunner.from_dict(FLOW, config_for(broker.bootstrap, runtime={"recovery": recovery}))

    def set_back(counts: FlowCounts) -> bool:
        if counts.durable >= 5:
            clock.ahead = -60.0
        return False

    with pytest.raises(ClockSetBackError, match=r"was set back by 60\.0 s"):
        run_until(runner, set_back, error_sinks={ErrorKind.TASK: FileSink(tmp_path / "errors")})


@pytest.mark.parametrize("held_up", ["by its client", "by a step"])
def test_a_worker_that_does_not_notice_is_waited_for_only_while_a_step_may_be_at_work(
    clock: Moved, monkeypatch: pytest.MonkeyPatch, held_up: str
) -> None:
    monkeypatch.setattr(wall_clock, "_LOOK", 0.01)
    monkeypatch.setattr(wall_clock, "_SHORT_GRACE", 0.02)
    delivery = watched()
    delivery.epochs.by_snapshots = True
    (standing,) = delivery.standings
    standing.waits = held_up == "by its client"
    found = ends_of(delivery)
    with watching_clock(delivery):
        clock.ahead = -60.0
        assert found.wait(LONG_S if standing.waits else 0.5) is standing.waits
        delivery.stop.request("a test")
        assert found.wait(LONG_S), "a stop is not heard"
    assert [type(error) for error in found.errors] == [ClockSetBackError]


@pytest.mark.parametrize("left", ["a stop", "an open epoch"])
def test_a_worker_that_hangs_in_its_client_behind_a_jump_ends_the_process_if_something_is_left_to_do(
    clock: Moved, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    monkeypatch.setattr(wall_clock, "_LOOK", 0.01)
    monkeypatch.setattr(wall_clock, "_SHORT_GRACE", 0.05)
    delivery = watched()
    (standing,) = delivery.standings
    standing.waits = True
    found = ends_of(delivery)
    with watching_clock(delivery):
        clock.ahead = -60.0
        # Idle, and everything is durable: the next record wakes it.
        assert not found.wait(0.3)
        if left == "a stop":
            delivery.stop.request("a test")
        else:
            standing.is_unsettled = lambda: True
        assert found.wait(LONG_S)
    assert [type(error) for error in found.errors] == [ClockSetBackError]


@pytest.mark.parametrize("goes_on", [True, False])
def test_commits_that_stop_behind_a_jump_end_the_process_and_one_that_comes_proves_the_client(
    clock: Moved, monkeypatch: pytest.MonkeyPatch, goes_on: bool
) -> None:
    monkeypatch.setattr(wall_clock, "_LOOK", 0.01)
    monkeypatch.setattr(wall_clock, "_COMMIT_GRACE", 0.3)
    delivery = watched()
    delivery.epochs.interval_s = 0.1
    offsets = delivery.standings[0].offsets
    partition = TopicPartition("numbers", 0)
    offsets.take_up({partition: 0}, committed=True)

    def commit(offset: int) -> None:
        offsets.advance({partition: offset})
        delivery.offsets.complete({partition: offset}, delivery.offsets.generation)
        delivery.offsets.publish()
        offsets.committed({partition: offset})
        clock.await_looks(3)

    found = ends_of(delivery)
    with watching_clock(delivery):
        commit(5)
        commit(6)
        clock.ahead = -60.0
        # Nothing is to be committed, so nothing is missed, in half again as many looks as a commit may take.
        clock.await_looks(60)
        assert not found.is_set()
        if goes_on:
            commit(7)
        delivery.standings[0].is_unsettled = lambda: True
        if goes_on:
            clock.await_looks(60)
            assert not found.is_set()
        else:
            assert found.wait(LONG_S)
    assert [type(error) for error in found.errors] == ([] if goes_on else [ClockSetBackError])


def watched() -> RunState:
    """A run with one worker."""
    delivery = RunState(ObservabilityRuntime.noop())
    delivery.standings.append(Standing(delivery.offsets.worker()))
    delivery.stop.held = True
    return delivery


class Ends(threading.Event):
    """Set when the process is to be ended, with what for."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[LoomError] = []

    def note(self, error: LoomError) -> None:
        self.errors.append(error)
        self.set()


def ends_of(delivery: RunState) -> Ends:
    ends = Ends()
    delivery.stop.overdue = ends.note
    return ends
