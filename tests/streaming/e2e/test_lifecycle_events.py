"""What observers are told of a run, and that no observer can slow or stop it."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from bytewax.testing import TestingSink, TestingSource, run_main

from loom.core.observability import EventKind, LifecycleEvent, LifecycleStatus, ObservabilityRuntime, Scope
from loom.streaming import (
    BatchStep,
    CollectBatch,
    ErrorKind,
    ForEach,
    FromTopic,
    IntoTopic,
    Message,
    MessageMeta,
    Process,
    Route,
    Router,
    StreamFlow,
    StreamingRunner,
    compile_flow,
    payload,
    step,
)
from loom.streaming.bytewax import FlowFailedError, build_dataflow
from loom.streaming.kafka import EmbeddedBroker
from tests.streaming.e2e.test_progress import Number
from tests.support.running import all_done, config_for, produce, run_until
from tests.support.waiting import LONG_S, until


@step
def twice(number: Number) -> Number:
    if number.n < 0:
        raise ValueError("negative")
    return Number(2 * number.n)


@step
def even(number: Number) -> Number:
    return number


@step
def odd(number: Number) -> Number:
    return number


class Together(BatchStep[Number, Number]):
    def execute(self, messages: list[Message[Number]]) -> list[Number]:
        return [message.payload for message in messages]


class Recorder:
    def __init__(self, *scopes: Scope) -> None:
        if scopes:
            self.scopes = scopes
        self.events: list[LifecycleEvent] = []

    def on_event(self, event: LifecycleEvent) -> None:
        self.events.append(event)

    def of(self, scope: Scope) -> list[LifecycleEvent]:
        return [event for event in self.events if event.scope is scope]


def in_memory(process: Process, *numbers: int, observers: list[Any]) -> list[int]:
    out: list[Message[Number]] = []
    flow = StreamFlow("telling", FromTopic("numbers", Number), process, IntoTopic("out"), IntoTopic("errors"))
    plan = compile_flow(flow, config=config_for("localhost:9"))
    source = TestingSource([Message(Number(n), MessageMeta(f"n-{n}")) for n in numbers])
    runtime = ObservabilityRuntime(observers)
    failed: list[Any] = []
    sinks = dict.fromkeys(ErrorKind, TestingSink(failed))
    dataflow = build_dataflow(
        plan, observability_runtime=runtime, source=source, sink=TestingSink(out), error_sinks=sinks
    )
    run_main(dataflow)
    runtime.settle()
    return [message.payload.n for message in out]


def assert_paired(events: list[LifecycleEvent]) -> None:
    """Each beginning has one end, of the same thing, and no id is used twice."""
    starts = [event for event in events if event.kind is EventKind.START]
    ends = {event.id: event for event in events if event.kind is not EventKind.START}
    assert len(starts) == len(ends) == len({event.id for event in starts})
    for start in starts:
        end = ends[start.id]
        assert (end.scope, end.name) == (start.scope, start.name)
        assert end.duration_ms is not None
        assert end.duration_ms >= 0
        assert (end.status is LifecycleStatus.SUCCESS) == (end.kind is EventKind.END)


def test_a_run_tells_of_every_scope_in_pairs(broker: EmbeddedBroker) -> None:
    for topic in ("numbers", "out", "errors"):
        broker.create_topic(topic)
    produce(broker.bootstrap, "numbers", *(b'{"n":%d}' % n for n in (1, 2, 3, -1)))
    process = Process(twice, CollectBatch(2, timeout_ms=50), Together, ForEach())
    flow = StreamFlow("telling", FromTopic("numbers", Number), process, IntoTopic("out"), IntoTopic("errors"))
    recorder = Recorder()
    runtime = ObservabilityRuntime([recorder])
    config = config_for(broker.bootstrap, consumer={"delivery": "at_least_once"})
    runner = StreamingRunner.from_dict(flow, config, observability_runtime=runtime)
    run_until(runner, all_done(4))
    runtime.settle(LONG_S)

    assert_paired(recorder.events)
    assert {event.scope for event in recorder.events} == set(Scope)
    cycle, flow_events = recorder.of(Scope.POLL_CYCLE), recorder.of(Scope.FLOW)
    assert [event.name for event in (*cycle, *flow_events)] == ["telling"] * 4
    assert recorder.events[0] is cycle[0]
    assert recorder.events[-1] is cycle[-1]
    assert {event.name for event in recorder.of(Scope.TRANSPORT)} == {"consumer", "producers"}
    assert {event.name for event in recorder.of(Scope.READ)} == {"numbers"}
    read = [event.meta["records"] for event in recorder.of(Scope.READ) if event.kind is EventKind.END]
    assert sum(read) == 4
    written: Counter[str] = Counter()
    for event in recorder.of(Scope.WRITE):
        if event.kind is EventKind.END:
            written[event.name] += event.meta["records"]
    assert written == {"out": 3, "errors": 1}
    nodes: Counter[str] = Counter()
    for event in recorder.of(Scope.NODE):
        if event.kind is EventKind.END:
            nodes[event.name] += event.meta["records"]
    assert nodes["telling.twice"] == 4
    assert nodes["telling.collect_batch"] == 3
    assert nodes["telling.together"] == 3
    errors = [event.meta.get("errors", 0) for event in recorder.of(Scope.NODE) if event.kind is EventKind.END]
    assert sum(errors) == 1
    collected = [event.meta["records"] for event in recorder.of(Scope.BATCH_COLLECT) if event.kind is EventKind.END]
    assert sum(collected) == 3
    assert collected[0] == 2


def test_nodes_in_branches_are_told_apart() -> None:
    recorder = Recorder(Scope.NODE)
    router = Router.when(
        [Route(payload.n > 2, Process(odd), name="large")],  # type: ignore[operator]
        default=Process(even),
    )
    assert in_memory(Process(twice, router), 1, 2, 3, observers=[recorder]) == [2, 4, 6]
    assert_paired(recorder.events)
    counted: Counter[str] = Counter()
    for event in recorder.events:
        if event.kind is EventKind.END:
            counted[event.name.rpartition(".")[2]] += event.meta["records"]
    assert (counted["twice"], counted["odd"], counted["even"]) == (3, 2, 1)


def test_an_observer_is_told_only_of_the_scopes_that_it_names() -> None:
    recorder = Recorder(Scope.READ, Scope.WRITE)
    in_memory(Process(twice), 1, 2, observers=[recorder])
    assert {event.scope for event in recorder.events} == {Scope.READ, Scope.WRITE}


def test_without_a_listener_the_loop_is_the_bare_one_and_no_event_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def built(*_: Any, **__: Any) -> None:
        raise AssertionError("an event was built")

    monkeypatch.setattr("loom.core.observability.runtime.LifecycleEvent", built)
    monkeypatch.setattr("loom.streaming.runtime.stages.node_timer.NodeTimer.__init__", built)
    assert in_memory(Process(twice), 1, 2, observers=[]) == [2, 4]


def test_an_observer_that_never_returns_or_always_raises_holds_up_nothing(hasty_observers: None) -> None:
    release, recorder = threading.Event(), Recorder()

    class Stuck:
        def on_event(self, event: LifecycleEvent) -> None:
            release.wait()

    class Broken:
        def on_event(self, event: LifecycleEvent) -> None:
            raise SystemExit("the observer's own fault")

    try:
        assert in_memory(Process(twice), *range(200), observers=[Stuck(), Broken(), recorder]) == [
            2 * n for n in range(200)
        ]
    finally:
        release.set()
    until(
        lambda: (
            len(recorder.of(Scope.READ)) == 2
            and len({event.id for event in recorder.events}) * 2 == len(recorder.events)
        )
    )
    assert_paired(recorder.events)
    assert [event.meta["records"] for event in recorder.of(Scope.READ)] == [200, 200]


def test_a_run_that_fails_tells_where(broker: EmbeddedBroker) -> None:
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    produce(broker.bootstrap, "numbers", b'{"n":1}', b'{"n":-1}')
    flow = StreamFlow("telling", FromTopic("numbers", Number), Process(twice), IntoTopic("out"))
    recorder = Recorder()
    runtime = ObservabilityRuntime([recorder])
    config = config_for(broker.bootstrap, consumer={"delivery": "at_least_once"})
    with pytest.raises(FlowFailedError):
        StreamingRunner.from_dict(flow, config, observability_runtime=runtime).run()
    runtime.settle(LONG_S)
    failed = {(event.scope, event.name) for event in recorder.events if event.kind is EventKind.ERROR}
    assert failed == {(Scope.POLL_CYCLE, "telling"), (Scope.FLOW, "telling"), (Scope.NODE, "telling.twice")}
    assert_paired(recorder.events)
