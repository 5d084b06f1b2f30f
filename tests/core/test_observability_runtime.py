"""Events reach every observer in order, spans end as they should, and no observer can hurt the flow."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import structlog

from loom.core.config import ConfigError
from loom.core.observability import (
    EventKind,
    LifecycleEvent,
    LifecycleObserver,
    LifecycleStatus,
    ObservabilityConfig,
    ObservabilityRuntime,
    Scope,
)
from loom.core.observability.extras import MissingExtraError
from loom.core.observability.metrics import Measures
from loom.core.observability.settings import LogSettings
from loom.core.observability.spans import Sampling
from tests.support.waiting import LONG_S, until

EVENT = LifecycleEvent(Scope.NODE, "orders.price", EventKind.START)


class Recorder:
    def __init__(self) -> None:
        self.events: list[LifecycleEvent] = []

    def on_event(self, event: LifecycleEvent) -> None:
        self.events.append(event)


class Broken:
    def __init__(self) -> None:
        self.calls = 0

    def on_event(self, event: LifecycleEvent) -> None:
        self.calls += 1
        raise RuntimeError("the observer's own fault")


@pytest.fixture(autouse=True)
def unconfigured() -> Any:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


def test_an_event_says_only_what_it_knows() -> None:
    unsaid = (EVENT.trace_id, EVENT.correlation_id, EVENT.id, EVENT.duration_ms, EVENT.status, EVENT.error)
    assert unsaid == (None,) * 6
    assert EVENT.meta == {}
    assert (str(Scope.BATCH_COLLECT), str(EventKind.ERROR), str(LifecycleStatus.FAILURE)) == (
        "batch_collect",
        "error",
        "failure",
    )


def test_every_observer_is_handed_the_event() -> None:
    first, second = Recorder(), Recorder()
    ObservabilityRuntime([first, second]).emit(EVENT)
    assert first.events == second.events == [EVENT]
    assert isinstance(first, LifecycleObserver)


def test_a_span_has_a_beginning_and_an_end() -> None:
    recorder = Recorder()
    began = time.monotonic()
    with ObservabilityRuntime([recorder]).span(
        Scope.FLOW, "orders", trace_id="t", correlation_id="c", meta={"workers": 2}
    ):
        assert [event.kind for event in recorder.events] == [EventKind.START]
        inside = time.monotonic()
        time.sleep(0.02)
        inside = time.monotonic() - inside
    took = time.monotonic() - began
    start, end = recorder.events
    assert (start.status, start.duration_ms) == (None, None)
    assert (end.kind, end.status, end.error) == (EventKind.END, LifecycleStatus.SUCCESS, None)
    assert end.duration_ms is not None
    assert inside * 1_000 - 5 < end.duration_ms < took * 1_000 + 5
    assert start.id is not None
    assert start.id == end.id
    for event in recorder.events:
        assert (event.scope, event.name, event.trace_id, event.correlation_id) == (Scope.FLOW, "orders", "t", "c")
        assert event.meta == {"workers": 2}


@pytest.mark.parametrize("error", [ValueError("boom"), KeyboardInterrupt()])
def test_a_span_that_fails_says_so_and_raises_on(error: BaseException) -> None:
    recorder = Recorder()
    with pytest.raises(type(error)) as caught, ObservabilityRuntime([recorder]).span(Scope.FLOW, "orders"):
        raise error
    assert caught.value is error
    start, end = recorder.events
    assert (end.kind, end.status, end.error) == (EventKind.ERROR, LifecycleStatus.FAILURE, repr(error))
    assert end.duration_ms is not None
    assert end.id == start.id


def test_two_spans_are_told_apart() -> None:
    recorder = Recorder()
    runtime = ObservabilityRuntime([recorder])
    for _ in range(2):
        with runtime.span(Scope.FLOW, "orders"):
            pass
    assert len({event.id for event in recorder.events}) == 2


def test_an_observer_that_raises_hurts_neither_the_flow_nor_the_others() -> None:
    broken, recorder = Broken(), Recorder()
    runtime = ObservabilityRuntime([broken, recorder])
    with runtime.span(Scope.FLOW, "orders"):
        runtime.emit(EVENT)
    assert len(recorder.events) == 3
    assert broken.calls == 3


def test_an_observer_that_raises_is_logged_once_per_class(capsys: pytest.CaptureFixture[str]) -> None:
    runtime = ObservabilityRuntime([Broken(), Broken()])
    runtime.emit(EVENT)
    runtime.emit(EVENT)
    logged = capsys.readouterr().err
    assert logged.count("observer_failed") == 1
    assert "Broken" in logged
    assert "the observer's own fault" in logged


def test_an_observer_that_is_behind_is_not_waited_for_until_it_has_caught_up(hasty_observers: None) -> None:
    release, seen = threading.Event(), []

    class Slow:
        def on_event(self, event: LifecycleEvent) -> None:
            release.wait()
            seen.append(event)

    runtime = ObservabilityRuntime([Slow()])
    emitted = 3_000
    for _ in range(emitted):
        # If each waited, all of them would take ten minutes.
        runtime.emit(EVENT)
    assert seen == []
    release.set()
    until(lambda: len(seen) == emitted)

    def waited_for() -> bool:
        nonlocal emitted
        emitted += 1
        runtime.emit(EVENT)
        return len(seen) == emitted

    until(waited_for)


def test_events_that_nobody_takes_are_dropped_counted_and_logged_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loom.core.observability.outbox._MOST_WAITING", 3)
    release = threading.Event()

    class Stuck:
        def on_event(self, event: LifecycleEvent) -> None:
            release.wait(LONG_S)

    runtime = ObservabilityRuntime([Stuck()])
    for _ in range(10):
        runtime.post(EVENT)
    assert 6 <= runtime.dropped <= 7
    assert capsys.readouterr().err.count("observer_behind") == 1
    release.set()


def test_only_the_scopes_that_an_observer_names_are_listened_to() -> None:
    recorder = Recorder()
    recorder.scopes = ["flow", Scope.READ]  # type: ignore[attr-defined]
    runtime = ObservabilityRuntime([recorder])
    assert [scope for scope in Scope if runtime.listens(scope)] == [Scope.FLOW, Scope.READ]
    runtime.emit(EVENT)
    assert runtime.begin(Scope.NODE, "orders.price") is None
    assert recorder.events == []


def test_without_observers_a_runtime_is_not_enabled() -> None:
    silent = ObservabilityRuntime.noop()
    assert not silent.enabled
    with silent.span(Scope.FLOW, "orders"):
        silent.emit(EVENT)
    assert ObservabilityRuntime([Recorder()]).enabled


@pytest.mark.parametrize(
    "config",
    [None, {}, {"log": None}, {"log": {"enabled": False}, "otel": {"enabled": "false"}}, ObservabilityConfig()],
)
def test_a_configuration_without_parts_observes_nothing(config: Any) -> None:
    assert not ObservabilityRuntime.from_config(config).enabled


@pytest.mark.parametrize("config", [{"log": {"level": "debug"}}, ObservabilityConfig(log=LogSettings(level="debug"))])
def test_a_configured_log_writes_events_at_its_level(config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ObservabilityRuntime.from_config(config).emit(EVENT)
    captured = capsys.readouterr()
    assert "node start" in captured.err
    assert "orders.price" in captured.err
    assert captured.out == ""


def test_a_wrong_configuration_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        ObservabilityRuntime.from_config({"logs": {}, "log": {"format": "xml"}, "prometheus": {"config": {"port": -1}}})
    assert [problem.key for problem in caught.value.problems] == [
        "observability.logs",
        "observability.log.format",
        "observability.prometheus.config.port",
    ]


@pytest.mark.parametrize("extra", ["prometheus", "otel"])
def test_an_observer_without_its_extra_is_refused_and_the_extra_named(
    extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=rf"loom-streaming\[{extra}\]"):
        ObservabilityRuntime.from_config({extra: {}})


def test_a_configured_tracer_follows_records_and_is_told_of_runs_alone() -> None:
    runtime = ObservabilityRuntime.from_config({"otel": {"endpoint": "http://127.0.0.1:1", "sample_ratio": 0.5}})
    assert runtime.tracing is not None
    assert runtime.tracing.sampling == Sampling(0.5, True)
    assert [scope for scope in Scope if runtime.listens(scope)] == [Scope.POLL_CYCLE, Scope.FLOW]
    runtime.close()


def test_a_configured_endpoint_serves_and_is_told_of_no_events() -> None:
    runtime = ObservabilityRuntime.from_config({"prometheus": {"config": {"port": 0, "client_statistics_ms": 70}}})
    assert runtime.measures == Measures(70)
    assert not any(runtime.listens(scope) for scope in Scope)
    runtime.start_scrape_server()
    runtime.start_scrape_server()
    runtime.stop_scrape_server()
    runtime.stop_scrape_server()


def test_the_scrape_server_is_started_by_whoever_has_one() -> None:
    started = []

    class Metrics(Recorder):
        def start_scrape_server(self) -> None:
            started.append(self)
            raise OSError("the port is taken")

    metrics = Metrics()
    ObservabilityRuntime([Recorder(), metrics]).start_scrape_server()
    assert started == [metrics]
