"""A wall clock that is set back ends a run that counts on it, and freezes none; every other clock of ours is monotonic."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from bytewax.inputs import DynamicSource, FixedPartitionedSource, StatefulSourcePartition, StatelessSourcePartition

from loom.core.errors import LoomError
from loom.core.observability import ObservabilityRuntime
from loom.streaming import Drain, FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, compile_flow, step
from loom.streaming.bytewax import ClockSetBackError
from loom.streaming.bytewax.override_source import wrap_source
from loom.streaming.kafka import EmbeddedBroker
from loom.streaming.metrics import FlowCounts
from loom.streaming.runtime import wall_clock
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.standing import Standing
from loom.streaming.runtime.wall_clock import WallClock, watching_clock
from tests.support.one_way import Number
from tests.support.running import config_for, produce, run_until

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
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + self.ahead)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Moved:
    return Moved(monkeypatch)


def test_a_run_whose_clock_is_set_back_ends_and_asks_for_a_new_start(clock: Moved) -> None:
    flow = StreamFlow("clock", FromTopic("numbers", Number), Process(kept), output=IntoTopic("out", payload=Number))
    with EmbeddedBroker() as broker:
        broker.create_topic("numbers")
        broker.create_topic("out")
        produce(broker.bootstrap, "numbers", *(b'{"n":%d}' % n for n in range(5)))
        runner = StreamingRunner.from_dict(flow, config_for(broker.bootstrap))

        def set_back(counts: FlowCounts) -> bool:
            if counts.durable >= 5:
                clock.ahead = -60.0
            return False

        with pytest.raises(ClockSetBackError, match=r"was set back by 60\.0 s"):
            run_until(runner, set_back)


@pytest.mark.parametrize("held_up", ["by its client", "by a step"])
def test_a_worker_that_does_not_notice_is_waited_for_only_while_a_step_may_be_at_work(
    clock: Moved, monkeypatch: pytest.MonkeyPatch, held_up: str
) -> None:
    monkeypatch.setattr(wall_clock, "_LOOK", 0.01)
    monkeypatch.setattr(wall_clock, "_SHORT_GRACE", 0.02)
    delivery = RunState(ObservabilityRuntime.noop())
    standing = Standing([], dict, None)
    standing.waits = held_up == "by its client"
    delivery.standings.append(standing)
    ended = threading.Event()
    found: list[LoomError] = []
    delivery.stop.held = True
    delivery.stop.overdue = lambda error: (found.append(error), ended.set())  # type: ignore[func-returns-value]
    with watching_clock(delivery):
        clock.ahead = -60.0
        assert ended.wait(5 if standing.waits else 0.5) is standing.waits
        delivery.stop.request("a test")
        assert ended.wait(5), "a stop is not heard"
    assert [type(error) for error in found] == [ClockSetBackError]
