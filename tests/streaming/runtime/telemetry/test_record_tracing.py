"""Followed records of a stage: what is said of each, whatever way it takes, and that its results are what they would be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.core.observability import LifecycleEvent, ObservabilityRuntime
from loom.core.observability.spans import FinishedSpan, Sampling, SpanBatch, SpanRun
from loom.core.tracing import ids_of_each
from loom.streaming import (
    Broadcast,
    BroadcastRoute,
    Explode,
    Fork,
    FromTopic,
    IntoTopic,
    Process,
    Router,
    StreamFlow,
    compile_flow,
    step,
)
from loom.streaming.headers import Headers
from loom.streaming.kafka.record_accessor import RECORDS
from loom.streaming.metrics import Counts
from loom.streaming.record import KafkaRecord
from loom.streaming.runtime.error_log import ErrorLog
from loom.streaming.runtime.output_table import output_table_of
from loom.streaming.runtime.stages.fuse import build_stage
from loom.streaming.runtime.stages.stage import Stage
from loom.streaming.runtime.stages.stage_io import Result, SourceBatch
from loom.streaming.runtime.telemetry.node_times import timer_of
from loom.streaming.runtime.telemetry.record_tracing import TracedErrors, tracer_of
from tests.support.running import config_for

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{SPAN}-01".encode(), f"00-{TRACE}-{SPAN}-00".encode()


class Number(LoomFrozenStruct):
    n: int


class Numbers(LoomFrozenStruct):
    all: list[Number]


@step
def plus_one(number: Number) -> Number:
    if number.n < 0:
        raise ValueError("negative")
    return Number(number.n + 1)


@step
def twice(number: Number) -> Number:
    return Number(2 * number.n)


@step
def half(number: Number) -> Number:
    return Number(number.n // 2)


@step
def gather(number: Number) -> Numbers:
    return Numbers([number, number])


def all_of(numbers: Numbers) -> list[Number]:
    return numbers.all


def parity(number: Number) -> str:
    return "odd" if number.n % 2 else "even"


class Told:
    """An observer that traces, and keeps what it is handed."""

    scopes = frozenset[str]()
    is_asked = False
    lost = 0

    def __init__(self, ratio: float) -> None:
        self.sampling = Sampling(ratio)
        self.singles: list[FinishedSpan] = []
        self.runs: list[SpanRun] = []
        #: by offset: span, the parent's id, what it came to with the times, and the end
        self.found: dict[Any, tuple[str, str | None, list[tuple[str, int]], int]] = {}

    @property
    def tracing(self) -> Told:
        return self

    def on_event(self, event: LifecycleEvent) -> None:
        """Nothing is asked for."""

    def add(self, span: FinishedSpan) -> None:
        self.singles.append(span)
        way = list(zip(span.path, span.times, strict=True))
        self.found[span.values[0]] = (span.place.parent_id, span.parent_id, way, span.ended_ns)

    def add_all(self, batch: SpanBatch) -> None:
        count, records = 0, 0
        for one in batch:
            if isinstance(one, FinishedSpan):
                self.add(one)
                count, records = count + 1 + len(one.path), records + 1
                continue
            self.runs.append(one)
            parents: Iterable[str | None] = one.parent_ids or [None] * len(one.values)
            rows = zip(one.values, ids_of_each(one.ids), parents, zip(*one.times, strict=True), strict=True)
            for offset, ids, parent, (*times, ended) in rows:
                self.found[offset] = (ids[16:].hex(), parent, list(zip(one.path, times, strict=True)), ended)
                count, records = count + 1 + len(one.path), records + 1
        assert (count, records) == (batch.spans, len(batch))

    def enter(self, *_: Any) -> None:
        raise AssertionError("nobody asks")

    leave = enter

    def names(self, offset: int) -> list[str]:
        """What a record came to, in time."""
        span, _, way, ended = self.found[offset]
        times = [time for _, time in way] + [ended]
        assert times == sorted(times)
        assert span
        return [name.removeprefix("told.") for name, _ in way]


def staged(process: Process, told: Told | None, *, output: bool = True, errors: bool = True) -> Stage:
    flow: StreamFlow[Any, Any] = StreamFlow(
        "told",
        FromTopic("numbers", Number),
        process,
        **({"output": IntoTopic("out")} if output else {}),
        **({"errors": IntoTopic("errors")} if errors else {}),
    )
    plan = compile_flow(flow, config=config_for())
    outputs, counts, log = output_table_of(plan, sink=None, terminal_sinks=None, error_sinks=None), Counts(), ErrorLog()
    observability = ObservabilityRuntime([] if told is None else [told])
    timer = timer_of(plan, observability, counts)
    tracer = tracer_of(plan, outputs, RECORDS, observability, timer)
    return build_stage(
        plan,
        outputs.slots,
        RECORDS if tracer is None else tracer.view,
        counts,
        lambda _dropped: None,
        log if tracer is None else TracedErrors(log, tracer),
        observability=observability,
        timer=timer,
        tracer=tracer,
    )


def record(offset: int, n: int, *headers: tuple[str, bytes]) -> KafkaRecord:
    return KafkaRecord("numbers", b"k", b'{"n":%d}' % n, Headers(headers), 0, offset, 1)


def run(stage: Stage, *batch: KafkaRecord) -> list[Result]:
    return list(stage.run(SourceBatch(stage, batch, {}, monotonic())).results)


def plain(results: Sequence[Result]) -> list[tuple[Any, ...]]:
    """Results without their headers."""
    return [(slot, value, key, time, origin) for slot, value, key, time, _, origin in results]


def traced(result: Result) -> str:
    """The span that the headers of a result name."""
    return (dict(Headers.of(result[4])).get("traceparent") or b"").split(b"-")[2].decode()


FLOWS: dict[str, tuple[Callable[[], Process], bool, dict[int, list[str]]]] = {
    "steps": (lambda: Process(plus_one, twice), True, {1: ["source", "plus_one", "twice", "output"]}),
    "branches that meet": (
        lambda: Process(Router.by(parity, {"odd": Process(plus_one)}, default=Process(twice, plus_one)), half),
        True,
        {
            1: ["source", "router", "odd.plus_one", "half", "output"],
            2: ["source", "router", "default.twice", "default.plus_one", "half", "output"],
        },
    ),
    "branches that end": (
        lambda: Process(
            Fork.by(parity, {"odd": Process(plus_one, IntoTopic("odd"))}, default=Process(IntoTopic("even")))
        ),
        False,
        {
            1: ["source", "fork", "odd.plus_one", "odd.into-odd"],
            2: ["source", "fork", "default.into-even"],
        },
    ),
    "branches that all take": (
        lambda: Process(
            twice,
            Broadcast(
                BroadcastRoute(Process(plus_one), IntoTopic("a")), BroadcastRoute(Process(twice), IntoTopic("b"))
            ),
        ),
        False,
        {1: ["source", "twice", "broadcast", "a.plus_one", "b.twice"]},
    ),
    "many of one": (
        lambda: Process(gather, Explode(all_of), plus_one),
        True,
        {1: ["source", "gather", "explode", "plus_one", "plus_one"]},
    ),
}


@pytest.mark.parametrize("name", FLOWS)
def test_a_followed_record_says_what_it_came_to(name: str) -> None:
    make, output, expected = FLOWS[name]
    told = Told(1.0)
    stage, other = staged(make(), told, output=output), staged(make(), None, output=output)
    batch = [record(100 + n, n) for n in (1, 2, 3, 4)]
    results = run(stage, *batch)
    assert plain(results) == plain(run(other, *batch))
    assert {offset: told.names(100 + offset) for offset in expected} == expected
    for result in results:
        assert traced(result) == told.found[result[5].offset][0]


def test_a_batch_in_which_some_bring_headers() -> None:
    told = Told(0.0)
    stage = staged(Process(plus_one), told)
    own = ("own", b"1")
    first = [record(0, 0), record(1, 1), record(2, 2, ("traceparent", SAMPLED), own)]
    rest = [record(3, 3), record(4, 4, ("traceparent", NOT_SAMPLED)), record(5, 5, own)]
    results = run(stage, *first, *rest)
    assert [result[1] for result in results] == [b'{"n":%d}' % n for n in range(1, 7)]
    headers = [dict(Headers.of(result[4] or ())) for result in results]
    assert [len(each) for each in headers] == [0, 0, 2, 0, 1, 1]
    assert (headers[4], headers[5]) == ({"traceparent": NOT_SAMPLED}, dict((own,)))
    assert list(told.found) == [2]
    assert (told.found[2][1], traced(results[2])) == (SPAN, told.found[2][0])


def test_those_that_are_drawn_before_and_behind_the_first_with_headers() -> None:
    told = Told(1.0)
    stage = staged(Process(plus_one), told)
    results = run(stage, record(0, 0), record(1, 1, ("traceparent", NOT_SAMPLED)), record(2, 2), record(3, 3))
    assert sorted(told.found) == [0, 2, 3]
    assert [traced(result) for result in results] == [told.found[0][0], SPAN, told.found[2][0], told.found[3][0]]
    assert [result[1] for result in results] == [b'{"n":%d}' % n for n in range(1, 5)]


def test_a_record_that_ends_the_run_says_how_far_it_came() -> None:
    told = Told(1.0)
    stage = staged(Process(twice, plus_one, half), told, errors=False)
    with pytest.raises(Exception, match="negative"):
        run(stage, record(0, 1), record(1, -1), record(2, 2))
    assert told.names(0) == ["source", "twice", "plus_one", "half", "output"]
    assert told.names(1) == ["source", "twice", "plus_one"]
    assert [span.error is not None for span in told.singles] == [True]
    assert 2 not in told.found


@pytest.mark.parametrize("value", [b"no number", b""])
def test_a_record_that_is_no_number_says_how_far_it_came(value: bytes) -> None:
    told = Told(1.0)
    stage = staged(Process(plus_one), told)
    (result,) = run(stage, KafkaRecord("numbers", b"k", value, Headers(()), 0, 7, 1))
    assert told.names(7)[0] == "source"
    assert traced(result) == told.found[7][0]


def test_records_of_several_partitions_are_runs_of_their_own() -> None:
    told = Told(1.0)
    stage = staged(Process(plus_one), told)
    batch = [KafkaRecord("numbers", b"k", b'{"n":1}', Headers(()), at % 3, at, 1) for at in range(9)]
    run(stage, *batch)
    assert sorted(list(one.values) for one in told.runs) == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    about = [one.shape.attributes["messaging.destination.partition.id"] for one in told.runs]
    assert sorted(map(str, about)) == ["0", "1", "2"]


@pytest.mark.parametrize("offset", [-1, 1 << 56, (1 << 63) - 1])
def test_an_offset_that_no_run_can_hold_is_told_by_itself(offset: int) -> None:
    told = Told(1.0)
    run(staged(Process(plus_one), told), record(offset, 1), record(5, 2))
    assert [span.values for span in told.singles] == [(offset,)]
    assert [list(one.values) for one in told.runs] == [[5]]
    assert told.names(offset) == told.names(5) == ["source", "plus_one", "output"]
