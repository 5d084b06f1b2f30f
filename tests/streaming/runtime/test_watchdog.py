"""A run that is alive and stands still is ended; one that waits, or whose broker is away, is not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from loom.core.errors import LoomError
from loom.core.model import LoomFrozenStruct
from loom.core.observability import ObservabilityRuntime
from loom.streaming import (
    BatchStep,
    CollectBatch,
    ForEach,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    StreamFlow,
    StreamingRunner,
    step,
)
from loom.streaming.bytewax import StalledError
from loom.streaming.kafka import EmbeddedBroker, TopicPartition
from loom.streaming.kafka.consumer import ConsumerClient
from loom.streaming.kafka.errors import BrokerUnavailableError
from loom.streaming.kafka.lag import records_behind
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.standing import Standing
from loom.streaming.runtime.watchdog import Watchdog
from tests.support.running import all_done, config_for, positions, produce, run_until
from tests.support.waiting import LONG_S

A, B = TopicPartition("numbers", 0), TopicPartition("numbers", 1)


class Watched:
    """A watchdog with a time-out of ten seconds, and one source client under it."""

    def __init__(self, **began: int) -> None:
        self.state = RunState(ObservabilityRuntime.noop())
        self.offsets = self.state.offsets.worker()
        self.offsets.take_up({A: 0, B: 0}, committed=True)
        self.standing = Standing(self.offsets)
        self.state.standings.append(self.standing)
        #: what the broker says
        self.lags: dict[TopicPartition, int] | BrokerUnavailableError = {}
        self.looks: list[dict[TopicPartition, int]] = []
        self.dog = Watchdog(self.state, 10, self.look)

    def look(self, asked: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        self.looks.append(dict(asked))
        if isinstance(self.lags, BrokerUnavailableError):
            raise self.lags
        return {partition: lag for partition, lag in self.lags.items() if partition in asked}

    def read(self, partition: TopicPartition, position: int) -> None:
        self.offsets.advance({partition: position})

    def comes_by(
        self, second: int, kept: Mapping[TopicPartition, tuple[int, float]], full_until: float | None = None
    ) -> None:
        self.standing.keeps(kept, full_until)
        self.standing.seen_at = second

    def confirm(self, partition: TopicPartition, position: int) -> None:
        self.offsets.committed({partition: position})

    def found_at(self, until: int, each_second: Callable[[int], object] = lambda _: None) -> int | None:
        """The second at which it finds something, up to that one."""
        for second in range(until + 1):
            each_second(second)
            if self.dog.check(second) is not None:
                return second
        return None


def test_a_batch_that_never_ends_is_found_after_the_timeout_and_a_quarter() -> None:
    watched = Watched()
    watched.read(A, 5)
    watched.lags = {A: 7}
    assert watched.found_at(60) == 13
    # Only what was overdue was asked for, and only then.
    assert watched.looks[0] == {A: 0, B: 0}
    assert watched.looks[-1] == {A: 0}


def test_what_is_found_names_partition_position_and_lag() -> None:
    watched = Watched()
    watched.read(A, 5)
    watched.lags = {A: 7}
    found = [watched.dog.check(second) for second in range(14)][-1]
    assert isinstance(found, StalledError)
    assert "numbers[0] at 0 (lag 7)" in str(found)
    assert "10 s" in str(found)


def test_a_source_that_hands_out_nothing_though_there_are_records_is_found() -> None:
    watched = Watched()
    watched.lags = {B: 3}
    # Once to see that there is a record, and the whole time-out again, since it may have come a moment ago.
    assert watched.found_at(60) == 23


def test_an_idle_flow_is_none() -> None:
    watched = Watched()
    assert watched.found_at(200) is None
    # It is looked at once per time-out, not all the time.
    assert len(watched.looks) == 20


def test_a_record_that_comes_to_an_idle_flow_has_the_whole_timeout() -> None:
    watched = Watched()

    def comes(second: int) -> None:
        if second == 39:
            watched.read(A, 1)
            watched.lags = {A: 1}

    assert watched.found_at(51, comes) is None
    assert watched.found_at(0) is None


def test_positions_that_move_on_slowly_are_none() -> None:
    watched = Watched()
    watched.lags = {A: 1_000}

    def slow(second: int) -> None:
        if second % 9 == 0:
            watched.read(A, second + 1)
            watched.confirm(A, second)

    assert watched.found_at(200, slow) is None


def test_a_partition_that_waits_its_turn_behind_others_is_none() -> None:
    watched = Watched()
    watched.lags = {A: 1_000, B: 1_000}
    assert watched.found_at(200, lambda second: watched.confirm(A, second)) is None


def test_a_position_that_is_pinned_while_others_move_on_is_found() -> None:
    watched = Watched()
    watched.read(B, 1)
    watched.lags = {A: 1_000, B: 1_000}
    assert watched.found_at(60, lambda second: watched.confirm(A, second)) == 13


def test_a_broker_that_is_away_is_no_standstill_and_afterwards_there_is_the_whole_time() -> None:
    watched = Watched()
    watched.read(A, 5)

    def back_at_forty(second: int) -> None:
        watched.lags = BrokerUnavailableError("nobody answers") if second < 40 else {A: 5}

    found = watched.found_at(100, back_at_forty)
    assert found is not None
    assert 50 <= found <= 63


def test_a_broker_that_has_just_come_back_gives_a_moment_to_go_on() -> None:
    """It was away for less than the time-out, so no look saw it."""
    watched = Watched()
    watched.read(A, 5)
    watched.lags = {A: 5}

    def goes_on(second: int) -> None:
        if second == 12:
            watched.confirm(A, 5)

    assert watched.found_at(20, goes_on) is None
    assert watched.looks[0] == {A: 0, B: 0}


# ---- what is kept, or not read, on purpose


def test_a_position_whose_records_are_kept_until_a_time_has_the_whole_timeout_from_then_on() -> None:
    watched = Watched()
    watched.read(A, 5)
    watched.lags = {A: 5}

    def collects(second: int) -> None:
        watched.comes_by(second, kept={A: (0, 100.0)})

    assert watched.found_at(200, collects) == 113


def test_a_worker_that_hangs_while_its_stage_keeps_records_is_found_all_the_same() -> None:
    watched = Watched()
    watched.read(A, 5)
    watched.lags = {A: 5}

    def hangs_at_forty(second: int) -> None:
        if second <= 40:
            watched.comes_by(second, kept={A: (0, 100.0)})

    assert watched.found_at(200, hangs_at_forty) == 53


def test_records_kept_behind_the_position_do_not_excuse_it() -> None:
    """What holds it up is something else, and that may never end."""
    watched = Watched()
    watched.read(A, 5)
    watched.lags = {A: 5}
    assert watched.found_at(60, lambda second: watched.comes_by(second, kept={A: (3, 100.0)})) == 13


def test_a_partition_that_is_not_read_since_the_stage_is_full_until_a_time_is_none() -> None:
    watched = Watched()
    watched.lags = {B: 3}
    # At sixty it is seen that there is a record, and from then on it has the whole time-out again.
    assert watched.found_at(200, lambda second: watched.comes_by(second, {A: (0, 50.0)}, full_until=50.0)) == 73


# ---- in a run


class Number(LoomFrozenStruct):
    n: int


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    return broker.bootstrap


#: The first record may take the client half a second and more to fetch, which is no stall.
STALL_TIMEOUT_MS = 3_000


def watched_config(bootstrap: str, **runtime: Any) -> dict[str, Any]:
    config = config_for(bootstrap, consumer={"delivery": "at_least_once"}, runtime=runtime)
    config["streaming"]["supervision"] = {"stall_timeout_ms": STALL_TIMEOUT_MS}
    return config


def flow(*nodes: Any) -> StreamFlow[Any, Any]:
    return StreamFlow("watched", FromTopic("numbers", Number), Process(*nodes), IntoTopic("out"))


@step
def same(number: Number) -> Number:
    return number


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[dict[TopicPartition, int]]:
    """What the broker has answered to each look, as far as it has."""
    answers: list[dict[TopicPartition, int]] = []

    def noted(*arguments: Any) -> dict[TopicPartition, int]:
        answers.append(records_behind(*arguments))
        return answers[-1]

    monkeypatch.setattr("loom.streaming.runtime.watchdog.records_behind", noted)
    return answers


def test_a_step_that_hangs_ends_the_run(bootstrap: str, looks: list[Any]) -> None:
    told: list[LoomError] = []
    released = threading.Event()

    @step
    def hang(number: Number) -> Number:
        released.wait(LONG_S)
        return number

    def end_now(error: LoomError) -> None:
        told.append(error)
        released.set()

    produce(bootstrap, "numbers", b'{"n":1}')
    runner = StreamingRunner.from_dict(flow(hang), watched_config(bootstrap, force_shutdown_timeout_ms=100))
    # A process that may be ended is, from here; this one lets the step go on instead.
    runner.on_overdue_stop = end_now
    with pytest.raises(StalledError, match=r"numbers\[0\] at 0 \(lag 1\).* in hang") as ended:
        runner.run()
    assert told == [ended.value]
    # Its record had been read, so nobody asked whether it came a moment ago.
    assert looks == [{A: 1}, {A: 1}]


def test_a_source_that_freezes_ends_the_run_in_order(bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = ConsumerClient.read
    produce(bootstrap, "numbers", b'{"n":1}')

    def freeze(reader: ConsumerClient, most: int, wait_s: float) -> Any:
        if reader.positions.get(A, 0) == 0:
            return read(reader, most, wait_s)
        reader.serve(wait_s)
        return ()

    monkeypatch.setattr(ConsumerClient, "read", freeze)

    def more() -> None:
        while positions(bootstrap, "numbers").get(0) != 1:
            pass
        produce(bootstrap, "numbers", b'{"n":2}')

    written = threading.Thread(target=more)
    written.start()
    with pytest.raises(StalledError, match=r"numbers\[0\] at 1 \(lag 1\)"):
        StreamingRunner.from_dict(flow(same), watched_config(bootstrap)).run()
    written.join()
    assert positions(bootstrap, "numbers")[0] == 1


class Together(BatchStep[Number, Number]):
    def execute(self, messages: list[Message[Number]]) -> list[Number]:
        return [message.payload for message in messages]


def test_a_run_that_collects_for_longer_than_the_timeout_goes_on(bootstrap: str) -> None:
    produce(bootstrap, "numbers", b'{"n":1}', b'{"n":2}')
    collecting = flow(CollectBatch(1_000, timeout_ms=3 * STALL_TIMEOUT_MS), Together, ForEach())
    # Three time-outs pass until the batch is together.
    run_until(StreamingRunner.from_dict(collecting, watched_config(bootstrap)), all_done(2))
    assert positions(bootstrap, "numbers")[0] == 2


def test_an_idle_run_goes_on(bootstrap: str, looks: list[Any]) -> None:
    produce(bootstrap, "numbers", b'{"n":1}', b'{"n":2}')
    runner = StreamingRunner.from_dict(flow(same), watched_config(bootstrap))
    # A first one may find the records on their way.
    run_until(runner, lambda counts: all_done(2)(counts) and looks[-3:] == [{}] * 3)
    assert positions(bootstrap, "numbers")[0] == 2


def test_a_broker_that_goes_away_is_told_and_no_standstill(
    broker: EmbeddedBroker, bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()
    away = Watchdog._broker_is_away

    def noted(dog: Watchdog, *arguments: Any) -> None:
        away(dog, *arguments)
        told.set()

    monkeypatch.setattr(Watchdog, "_broker_is_away", noted)
    monkeypatch.setattr("loom.streaming.kafka.lag._REACH", 0.3)

    @step
    def hang(number: Number) -> Number:
        broker.close()
        told.wait(LONG_S)
        return number

    produce(bootstrap, "numbers", b'{"n":1}')
    runner = StreamingRunner.from_dict(flow(hang), watched_config(bootstrap, force_shutdown_timeout_ms=100))
    with pytest.raises(LoomError) as ended:
        run_until(runner, lambda _: told.is_set())
    assert not isinstance(ended.value, StalledError)
