"""`With(max_threads=…)`: blocking steps wait together, and their results leave in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    CollectBatch,
    ContextFactory,
    ErrorKind,
    Explode,
    ForEach,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    ResourceScope,
    Router,
    StreamFlow,
    With,
    compile_flow,
    payload,
    step,
)
from loom.streaming.compiler import Code, CompilationError
from loom.streaming.testing import StreamingTestRunner
from tests.streaming.runtime.scopes.stopping import stopped_while
from tests.support.running import config_for, numbers
from tests.support.waiting import LONG_S


class Number(LoomFrozenStruct):
    n: int


def flow(*nodes: Any, output: Any = IntoTopic("out"), errors: Any = IntoTopic("errors")) -> StreamFlow[Any, Any]:  # noqa: B008
    return StreamFlow("threads", FromTopic("numbers", Number), Process(*nodes), output, errors)


def run(declared: StreamFlow[Any, Any], *values: int, batch_size: int) -> StreamingTestRunner:
    runner = StreamingTestRunner.from_flow(declared).with_batch_size(batch_size)
    return runner.with_payloads([Number(value) for value in values]).run()


def out_of(runner: StreamingTestRunner) -> list[int]:
    return [message.payload.n for message in runner.output]


@step
def slow(number: Number) -> Number | None:
    """The later ones are the faster ones."""
    time.sleep(0.01 / (1 + number.n % 4))
    if number.n == 7:
        raise ValueError("seven")
    return None if number.n == 8 else Number(number.n + 100)


def test_blocking_steps_wait_together_across_batches() -> None:
    everybody = threading.Barrier(4, timeout=LONG_S)

    @step
    def meet(number: Number) -> Number:
        everybody.wait()
        return number

    runner = run(flow(With(process=Process(meet), max_threads=4)), *range(8), batch_size=1)
    assert out_of(runner) == list(range(8))


def test_results_errors_and_drops_are_those_of_their_records_in_order() -> None:
    router = Router.by(payload.n, {101: Process(IntoTopic("aside"))}, default=Process(plus))
    runner = run(flow(With(process=Process(slow, router), max_threads=5)), *range(20), batch_size=6)
    assert out_of(runner) == [n + 200 for n in range(20) if n not in (1, 7, 8)]
    assert [m.payload.n for m in runner.terminal((0, 1, 0, 0))] == [101]
    assert [e.reason for e in runner.errors[ErrorKind.TASK]] == ["seven"]
    assert runner.counts.drops == {"threads.slow": 1}
    assert (runner.counts.read, runner.counts.written, runner.counts.dropped) == (20, 18, 1)


@step(name="plus")
def plus(number: Number) -> Number:
    return Number(number.n + 100)


def test_children_keep_their_order() -> None:
    explode = Explode(lambda number: [Number(number.n * 10 + n) for n in range(3)])
    runner = run(flow(explode, With(process=Process(plus), max_threads=3)), 1, 2, batch_size=10)
    assert out_of(runner) == [110, 111, 112, 120, 121, 122]


class Log:
    def __init__(self) -> None:
        self.entries: list[str] = []
        self.threads: set[int] = set()

    def resource(self) -> ContextFactory:
        @contextmanager
        def opened() -> Iterator[str]:
            self.threads.add(threading.get_ident())
            self.entries.append("+")
            yield "client"
            self.threads.add(threading.get_ident())
            self.entries.append("-")

        return ContextFactory(opened)


@pytest.mark.parametrize(
    ("life", "expected"), [(ResourceScope.WORKER, ["+", "-"]), (ResourceScope.BATCH, ["+", "-"] * 3)]
)
def test_the_threads_share_what_the_worker_opens_and_closes(life: ResourceScope, expected: list[str]) -> None:
    log = Log()

    @step
    def use(number: Number, client: str) -> Number:
        assert client == "client"
        return number

    runner = run(flow(With(life, process=Process(use), max_threads=3, client=log.resource())), *range(6), batch_size=2)
    assert out_of(runner) == list(range(6))
    assert sorted(log.entries) == sorted(expected)
    assert log.threads == {threading.get_ident()}


def test_whole_batches_are_worked_on_together() -> None:
    class Store(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Number]:
            time.sleep(0.005 / messages[0].payload.n)
            return [Number(message.payload.n + 100) for message in messages]

    scope = With(process=Process(Store), max_threads=3)
    runner = run(flow(CollectBatch(2, timeout_ms=1_000), scope, ForEach()), 1, 2, 3, 4, 5, batch_size=10)
    assert out_of(runner) == [101, 102, 103, 104, 105]


def test_a_stop_waits_for_blocked_calls() -> None:
    started, release = threading.Event(), threading.Event()

    @step
    def wait(number: Number) -> Number:
        started.set()
        assert release.wait(LONG_S)
        return number

    out, confirmed = stopped_while(flow(With(process=Process(wait), max_threads=2)), numbers(0, 1, 2), started, release)
    assert [message.payload.n for message in out] == [0, 1, 2]
    assert list(confirmed.values()) == [3]


def test_no_thread_is_left_behind() -> None:
    before = threading.active_count()
    for _ in range(5):
        run(flow(With(process=Process(plus), max_threads=4)), *range(4), batch_size=4)
    assert threading.active_count() <= before


def test_what_gathers_inside_is_refused() -> None:
    with pytest.raises(CompilationError) as refused:
        compile_flow(flow(With(process=Process(CollectBatch(2, 10), ForEach()), max_threads=2)), config=config_for())
    assert [issue.code for issue in refused.value.errors] == [Code.SCOPE_NODE]
