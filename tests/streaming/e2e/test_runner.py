"""The runner around a run: where flow and config come from, who observes, and what is left when it is over."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from loom.core.config import ConfigContext, ConfigError
from loom.core.model import LoomFrozenStruct
from loom.core.observability import EventKind, LifecycleEvent, LifecycleStatus, ObservabilityRuntime, Scope
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, step
from loom.streaming.bytewax import UnroutedRecordError
from loom.streaming.kafka import EmbeddedBroker
from tests.support.running import NOBODY, all_done, config_for, content, positions, produce, run_bytewax, run_until

pytestmark = pytest.mark.both_engines


class Number(LoomFrozenStruct):
    n: int


@step
def positive(number: Number) -> Number | None:
    if number.n < 0:
        raise ValueError("negative")
    return number if number.n else None


def flow(name: str = "running", output: str = "out") -> StreamFlow[Any, Any]:
    return StreamFlow(name, FromTopic("numbers", Number), Process(positive), IntoTopic(output))


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    """Three numbers of which none is written, so that no producer is needed."""
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    produce(broker.bootstrap, "numbers", *[b'{"n":0}'] * 3)
    return broker.bootstrap


def config(bootstrap: str = NOBODY, **sections: Any) -> dict[str, Any]:
    return config_for(bootstrap, consumer={"delivery": "at_least_once"}, **sections)


@pytest.mark.parametrize("source", ["yaml", "dict", "context"])
def test_a_runner_is_made_from_a_file_a_mapping_or_a_context(bootstrap: str, tmp_path: Path, source: str) -> None:
    file = tmp_path / "loom.yaml"
    file.write_text(yaml.safe_dump(config(bootstrap)))
    runner = {
        "yaml": lambda: StreamingRunner.from_yaml(flow(), file),
        "dict": lambda: StreamingRunner.from_dict(flow(), config(bootstrap)),
        "context": lambda: StreamingRunner.from_context(flow(), config=ConfigContext.from_dict(config(bootstrap))),
    }[source]()
    assert runner.metrics is None
    counts = run_until(runner, all_done(3))
    assert (counts.read, counts.dropped) == (3, 3)


def test_a_file_is_read_when_the_runner_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        StreamingRunner.from_yaml(flow(), tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("given", ["mapping", "context", "path"])
def test_run_takes_another_flow_and_config(bootstrap: str, tmp_path: Path, given: str) -> None:
    file = tmp_path / "loom.yaml"
    file.write_text(yaml.safe_dump(config(bootstrap)))
    more: dict[str, Any] = {
        "mapping": {"config": config(bootstrap)},
        "context": {"config": ConfigContext.from_dict(config(bootstrap))},
        "path": {"config_path": file},
    }[given]
    runner = StreamingRunner.from_dict(flow("first"), config(NOBODY))
    counts = run_until(runner, all_done(3), flow=flow("second"), **more)
    assert counts.drops == {"second.positive": 3}


def test_an_empty_runner_may_be_given_everything_by_run(bootstrap: str) -> None:
    assert run_until(StreamingRunner(), all_done(3), flow=flow(), config=config(bootstrap)).read == 3


class Recorder:
    def __init__(self) -> None:
        self.events: list[LifecycleEvent] = []

    def on_event(self, event: LifecycleEvent) -> None:
        self.events.append(event)

    def seen(self, *scopes: Scope) -> list[tuple[Scope, str, EventKind]]:
        return [(event.scope, event.name, event.kind) for event in self.events if event.scope in scopes]


def test_the_whole_call_and_the_engine_in_it_are_observed(bootstrap: str) -> None:
    recorder = Recorder()
    observed = ObservabilityRuntime([recorder])
    run_until(StreamingRunner.from_dict(flow(), config(bootstrap), observability_runtime=observed), all_done(3))
    assert recorder.seen(Scope.POLL_CYCLE, Scope.FLOW) == [
        (Scope.POLL_CYCLE, "running", EventKind.START),
        (Scope.FLOW, "running", EventKind.START),
        (Scope.FLOW, "running", EventKind.END),
        (Scope.POLL_CYCLE, "running", EventKind.END),
    ]


def test_everything_that_is_opened_is_closed(bootstrap: str) -> None:
    recorder = Recorder()
    observed = ObservabilityRuntime([recorder])
    run_until(StreamingRunner.from_dict(flow(), config(bootstrap), observability_runtime=observed), all_done(3))
    opened = [name for _, name, kind in recorder.seen(Scope.TRANSPORT) if kind is EventKind.START]
    closed = [name for _, name, kind in recorder.seen(Scope.TRANSPORT) if kind is EventKind.END]
    assert opened
    assert sorted(opened) == sorted(closed)


def test_a_failed_run_is_observed_as_one_and_closes_what_it_opened(bootstrap: str) -> None:
    produce(bootstrap, "numbers", b'{"n":-1}')
    recorder = Recorder()
    observed = ObservabilityRuntime([recorder])
    with pytest.raises(UnroutedRecordError):
        StreamingRunner.from_dict(flow(), config(bootstrap), observability_runtime=observed).run()
    last = recorder.events[-1]
    assert (last.scope, last.kind, last.status) == (Scope.POLL_CYCLE, EventKind.ERROR, LifecycleStatus.FAILURE)
    assert "negative" in str(last.error)
    kinds = [kind for _, _, kind in recorder.seen(Scope.TRANSPORT)]
    assert kinds.count(EventKind.START) == kinds.count(EventKind.END) > 0


def test_an_observer_that_raises_never_hurts_a_run(bootstrap: str) -> None:
    class Raising:
        def on_event(self, event: LifecycleEvent) -> None:
            raise OSError("no room for events")

    observed = ObservabilityRuntime([Raising()])
    runner = StreamingRunner.from_dict(flow(), config(bootstrap), observability_runtime=observed)
    assert run_until(runner, all_done(3)).read == 3


def test_observers_follow_the_config_that_run_is_given(bootstrap: str, capsys: pytest.CaptureFixture[str]) -> None:
    runner = StreamingRunner.from_dict(flow(), config(bootstrap))
    run_until(runner, all_done(3))
    assert "flow end" not in capsys.readouterr().err
    produce(bootstrap, "numbers", b'{"n":0}')
    over = threading.Event()

    def stop() -> None:
        while not over.wait(0.002) and positions(bootstrap, "numbers")[0] < 4:
            pass
        runner.shutdown()

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        runner.run(config=config(bootstrap, observability={"log": {"enabled": True}}))
    finally:
        over.set()
        stopper.join()
    assert "flow end" in capsys.readouterr().err


def test_what_a_flow_promises_is_told_at_its_start(bootstrap: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_until(StreamingRunner.from_dict(flow(), config(bootstrap)), all_done(3))
    told = capsys.readouterr().err
    assert "at_least_once" in told
    assert "errors-unrouted" in told
    run_until(StreamingRunner.from_dict(flow(), config_for(bootstrap)), all_done(0))
    assert "best effort: may lose and may repeat" in capsys.readouterr().err


@pytest.mark.bytewax
def test_a_prepared_run_may_be_run_by_the_engines_own_runner(bootstrap: str) -> None:
    runner = StreamingRunner.from_dict(flow(), config(bootstrap))
    prepared = runner.prepare_run()
    metrics = runner.metrics
    assert metrics is not None
    over = threading.Event()

    def stop() -> None:
        while not over.wait(0.002) and not all_done(3)(metrics.read()):
            pass
        prepared.shutdown()

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        run_bytewax(prepared.dataflow)
    finally:
        over.set()
        stopper.join()
        runner.shutdown()
    assert positions(bootstrap, "numbers")[0] == 3


@pytest.mark.bytewax
def test_the_output_of_another_run_is_left_alone(bootstrap: str) -> None:
    """Preparing anew releases the earlier preparation, not what it has written."""
    runner = StreamingRunner.from_dict(flow(), config(bootstrap))
    first = runner.prepare_run()
    second = runner.prepare_run()
    assert first is not second
    assert first.dataflow is not second.dataflow
    runner.shutdown()
    assert content(bootstrap, "out") == {"out": []}
