"""A run is asked to stop: whoever asks, and from wherever, it ends in order and confirms what it has written."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, compile_flow, step
from loom.streaming.bytewax import BytewaxRuntimeConfig, build_dataflow_with_shutdown
from loom.streaming.kafka import EmbeddedBroker
from loom.streaming.runtime.preflight import Preflight
from tests.support.running import all_done, config_for, content, positions, produce, run_all, run_bytewax
from tests.support.waiting import LONG_S

pytestmark = pytest.mark.both_engines


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


def flow(*nodes: Any) -> StreamFlow[Any, Any]:
    return StreamFlow("stopping", FromTopic("numbers", Number), Process(*(nodes or (same,))), IntoTopic("out"))


@pytest.fixture
def config(broker: EmbeddedBroker) -> dict[str, Any]:
    """Of a flow over 40 records in two partitions, a few at a time."""
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    from loom.streaming.kafka import KafkaRecord

    produce(
        broker.bootstrap,
        "numbers",
        *(KafkaRecord("numbers", b"%d" % n, b'{"n":%d}' % n, partition=n % 2) for n in range(40)),
    )
    return config_for(broker.bootstrap, consumer={"delivery": "at_least_once", "batch_size": 5})


def assert_in_order(broker: EmbeddedBroker) -> int:
    """Exactly what was written is confirmed; tells how much that is."""
    written = content(broker.bootstrap, "out")["out"]
    found = sorted(int((record.value or b"")[5:-1]) for record in written)
    assert len(found) == len(set(found))
    confirmed = positions(broker.bootstrap, "numbers")
    expected = [n for partition in (0, 1) for n in range(partition, confirmed[partition] * 2 + partition, 2)]
    assert found == sorted(expected)
    return len(found)


def asking(ask: Any, after: int = 12) -> Any:
    """A step that asks for the stop when it has seen some records."""
    seen = []

    @step
    def counted(number: Number) -> Number:
        seen.append(number.n)
        if len(seen) == after:
            ask()
        return number

    return counted


def test_a_step_may_stop_the_runner_it_runs_in(broker: EmbeddedBroker, config: dict[str, Any]) -> None:
    runner = StreamingRunner.from_dict(flow(asking(lambda: runner.shutdown())), config)
    runner.run()
    assert 12 <= assert_in_order(broker) < 40
    run_all(flow(), config, 40 - sum(positions(broker.bootstrap, "numbers").values()))
    assert assert_in_order(broker) == 40


@pytest.mark.bytewax
def test_a_step_may_stop_a_dataflow_of_its_own(broker: EmbeddedBroker, config: dict[str, Any]) -> None:
    built = build_dataflow_with_shutdown(compile_flow(flow(asking(lambda: built.shutdown())), config=config))
    run_bytewax(built.dataflow)
    built.shutdown()
    assert 12 <= assert_in_order(broker) < 40


@pytest.fixture
def user_signal() -> Iterator[int]:
    before = signal.getsignal(signal.SIGUSR1)
    yield signal.SIGUSR1
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.bytewax
def test_a_signal_handler_of_the_callers_may_stop_a_run(
    broker: EmbeddedBroker, config: dict[str, Any], user_signal: int
) -> None:
    built = build_dataflow_with_shutdown(compile_flow(flow(), config=config))
    signal.signal(user_signal, lambda *_: built.shutdown())
    over = threading.Event()

    def send() -> None:
        while not over.wait(0.002) and not all_done(40)(built.state.metrics.read()):
            pass
        os.kill(os.getpid(), user_signal)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        run_bytewax(built.dataflow)
    finally:
        over.set()
        sender.join()
        built.shutdown()
    assert assert_in_order(broker) == 40


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_stops_the_run_and_the_handlers_are_given_back(
    broker: EmbeddedBroker, config: dict[str, Any], number: int
) -> None:
    before = signal.getsignal(number)
    StreamingRunner.from_dict(flow(asking(lambda: os.kill(os.getpid(), number))), config).run()
    assert 12 <= assert_in_order(broker) < 40
    assert signal.getsignal(number) is before


def test_a_stop_before_the_run_is_no_stop_of_it(broker: EmbeddedBroker, config: dict[str, Any]) -> None:
    runner = StreamingRunner.from_dict(flow(), config)
    runner.prepare_run()
    runner.shutdown()
    from tests.support.running import run_until

    run_until(runner, all_done(40))
    assert assert_in_order(broker) == 40


def test_a_stop_ends_its_epoch_at_once_however_long_it_was_to_be(
    broker: EmbeddedBroker, config: dict[str, Any]
) -> None:
    runner = StreamingRunner.from_dict(flow(asking(lambda: runner.shutdown())), config)
    runner.run(runtime=BytewaxRuntimeConfig(epoch_interval_ms=3_600_000))
    assert 12 <= assert_in_order(broker) < 40


@pytest.mark.bytewax
def test_a_dataflow_may_be_run_again(broker: EmbeddedBroker, config: dict[str, Any]) -> None:
    """Of a stopped dataflow a second run ends at once, in order, and says nothing wrong."""
    built = build_dataflow_with_shutdown(compile_flow(flow(asking(lambda: built.shutdown())), config=config))
    for _ in range(2):
        run_bytewax(built.dataflow)
    assert 12 <= assert_in_order(broker) < 40


# ---- before anything is read


def run_and_stop(runner: StreamingRunner, begun: threading.Event) -> None:
    """Run, and ask for the stop once it has begun to wait. It ends in order: a wait that gave up would raise."""

    def ask() -> None:
        begun.wait(LONG_S)
        os.kill(os.getpid(), signal.SIGTERM)

    asker = threading.Thread(target=ask)
    asker.start()
    runner.run()
    asker.join()


def test_a_run_that_waits_for_its_broker_gives_up_when_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, look = threading.Event(), Preflight.snapshot

    def noted(preflight: Preflight) -> Any:
        begun.set()
        return look(preflight)

    monkeypatch.setattr(Preflight, "snapshot", noted)
    monkeypatch.setattr("loom.streaming.kafka.cluster_snapshot._REACH", 3_600.0)
    run_and_stop(StreamingRunner.from_dict(flow(), config_for()), begun)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_broker_that_goes_away_behind_the_first_look_holds_up_no_stop(
    broker: EmbeddedBroker, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, delivery: str
) -> None:
    """What waits then is the look at the group's positions, or the fencing of a predecessor."""
    begun, look = threading.Event(), Preflight.snapshot

    def look_once(preflight: Preflight) -> Any:
        seen = look(preflight)
        broker.close()
        begun.set()
        return seen

    monkeypatch.setattr(Preflight, "snapshot", look_once)
    config["kafka"]["consumer"]["delivery"] = delivery
    run_and_stop(StreamingRunner.from_dict(flow(), config), begun)


def test_a_library_says_that_it_starts_nothing_again(
    broker: EmbeddedBroker, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    config["streaming"]["supervision"] = {"restarts": 3}
    run_all(flow(), config, 40)
    assert "only `loom run` restarts a flow" in capsys.readouterr().err
