"""`WithAsync`: calls overlap, across batches and within limits, and their results leave in the order that was asked for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from loom.core.async_bridge import AsyncBridge
from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchExpandStep,
    BatchStep,
    Broadcast,
    BroadcastRoute,
    CollectBatch,
    ContextFactory,
    Drain,
    ErrorKind,
    ExpandStep,
    Explode,
    ForEach,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RecordStep,
    ResourceScope,
    Router,
    StreamFlow,
    With,
    WithAsync,
    compile_flow,
    payload,
    step,
)
from loom.streaming.compiler import Code, CompilationError
from loom.streaming.kafka import KafkaRecord
from loom.streaming.runtime.run_errors import ResourceError
from loom.streaming.testing import StreamingTestRunner
from tests.streaming.runtime.scopes.stopping import stopped_while
from tests.support.running import config_for, in_memory, numbers
from tests.support.waiting import LONG_S


class Number(LoomFrozenStruct):
    n: int
    key: str = ""


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def bridge(request: pytest.FixtureRequest) -> Iterator[AsyncBridge]:
    """Each of the event loops."""
    pytest.importorskip(request.param)
    made = AsyncBridge(use_uvloop=True) if request.param == "uvloop" else AsyncBridge(request.param)
    yield made
    assert made.shutdown(LONG_S)


class Meter:
    """How many calls there were at once."""

    def __init__(self) -> None:
        self.now = self.most = self.all = 0

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        self.now += 1
        self.all += 1
        self.most = max(self.most, self.now)
        try:
            yield
        finally:
            self.now -= 1


def flow(*nodes: Any, output: Any = IntoTopic("out"), errors: Any = IntoTopic("errors")) -> StreamFlow[Any, Any]:  # noqa: B008
    return StreamFlow("scoped", FromTopic("numbers", Number), Process(*nodes), output, errors)


def calling(work: Callable[[Number], Any], meter: Meter | None = None) -> Any:
    """An async step that awaits the work for each number."""
    counted = meter or Meter()

    @step(name="call")
    async def call(number: Number) -> Number:
        async with counted.call():
            await work(number)
        return Number(number.n + 100, number.key)

    return call


async def until(event: threading.Event) -> None:
    while not event.is_set():  # noqa: ASYNC110 - set by another thread, perhaps
        await anyio.sleep(0.001)


async def a_moment(number: Number) -> None:
    """The later ones are the faster ones."""
    await anyio.sleep(0.03 / (1 + number.n % 5))


def runner_of(declared: StreamFlow[Any, Any], *values: Number, batch_size: int = 100) -> StreamingTestRunner:
    runner = StreamingTestRunner.from_flow(declared).with_batch_size(batch_size)
    return runner.with_payloads(values, key=lambda number: number.key or None)


def of(*values: int) -> list[Number]:
    return [Number(value) for value in values]


def out_of(runner: StreamingTestRunner) -> list[int]:
    return [message.payload.n for message in runner.output]


def test_calls_overlap_up_to_the_limit_and_results_leave_in_order(bridge: AsyncBridge) -> None:
    meter = Meter()
    declared = flow(WithAsync(process=Process(calling(a_moment, meter)), max_concurrency=4))
    out = in_memory(declared, numbers(*range(20)), bridge=bridge)
    assert [one.n for one in out.payloads()] == list(range(100, 120))
    assert (meter.most, meter.all) == (4, 20)
    assert (out.counts.read, out.counts.written, out.counts.durable) == (20, 20, 20)


def test_calls_overlap_across_batches() -> None:
    meter = Meter()
    met = threading.Event()

    async def meet(number: Number) -> None:
        if meter.now == 6:
            met.set()
        await until(met)

    runner = runner_of(
        flow(WithAsync(process=Process(calling(meet, meter)), max_concurrency=6)), *of(*range(6)), batch_size=1
    )
    assert out_of(runner.run()) == list(range(100, 106))
    assert meter.most == 6


def test_with_ordering_none_results_leave_as_they_are_done() -> None:
    go = threading.Event()

    async def first_waits(number: Number) -> None:
        if number.n == 0:
            await until(go)

    @step(name="see")
    def see(number: Number) -> Number:
        if number.n == 103:
            go.set()
        return number

    scope = WithAsync(process=Process(calling(first_waits)), ordering="none")
    found = out_of(runner_of(flow(scope, see), *of(0, 1, 2, 3), batch_size=1).run())
    assert sorted(found) == [100, 101, 102, 103]
    assert found[-1] == 100


def test_with_ordering_key_the_next_call_of_a_key_begins_when_the_one_before_is_done() -> None:
    going: dict[str, int] = {}
    most_at_once: list[int] = []

    async def alone(number: Number) -> None:
        assert not going.get(number.key, 0), f"two calls of {number.key} at once"
        going[number.key] = 1
        most_at_once.append(sum(going.values()))
        await anyio.sleep(0.002)
        going[number.key] = 0
        if number.n == 4:
            raise ValueError("four")

    records = [Number(n, "abc"[n % 3]) for n in range(15)]
    scope = WithAsync(process=Process(calling(alone)), ordering="key", max_concurrency=15)
    runner = runner_of(flow(scope), *records, batch_size=4).run()
    by_key = {key: [m.payload.n for m in runner.output if m.payload.key == key] for key in "abc"}
    assert by_key == {k: [100 + r.n for r in records if r.key == k and r.n != 4] for k in "abc"}
    assert [envelope.reason for envelope in runner.errors[ErrorKind.TASK]] == ["four"]
    assert max(most_at_once) > 1


def test_with_ordering_key_records_without_a_key_are_free() -> None:
    meter = Meter()
    met = threading.Event()

    async def meet(number: Number) -> None:
        if meter.now == 5:
            met.set()
        await until(met)

    scope = WithAsync(process=Process(calling(meet, meter)), ordering="key")
    assert len(runner_of(flow(scope), *of(*range(5))).run().output) == 5


def test_a_hanging_call_is_cancelled_and_its_error_routed(bridge: AsyncBridge) -> None:
    cleaned: list[int] = []

    async def hang(number: Number) -> None:
        if number.n == 1:
            try:
                await anyio.sleep_forever()
            finally:
                cleaned.append(number.n)

    declared = flow(WithAsync(process=Process(calling(hang)), task_timeout_ms=500))
    out = in_memory(declared, numbers(0, 1, 2), bridge=bridge)
    assert [one.n for one in out.payloads()] == [100, 102]
    (envelope,) = out.errors[ErrorKind.TASK]
    assert envelope.reason == "the call took longer than 500 ms and was cancelled"
    assert (envelope.step_id, envelope.original_message.payload) == ("scoped.call", Number(1))
    assert cleaned == [1]
    assert out.counts.failed == {ErrorKind.TASK: 1}


def test_the_time_limit_is_that_of_a_message_not_of_a_step() -> None:
    """Each of the two steps takes less than the limit, both together take more, however quick the machine is."""

    async def most_of_it(number: Number) -> None:
        await anyio.sleep(0.4)

    @step(name="again")
    async def again(number: Number) -> Number:
        await most_of_it(number)
        return number

    scope = WithAsync(process=Process(calling(most_of_it), again), task_timeout_ms=600)
    runner = runner_of(flow(scope), Number(1)).run()
    assert (len(runner.errors[ErrorKind.TASK]), runner.output) == (1, [])


def test_the_clock_of_the_test_kit_cancels_too() -> None:
    async def hang(number: Number) -> None:
        await anyio.sleep_forever()

    scope = WithAsync(process=Process(calling(hang)), task_timeout_ms=3_600_000)
    runner = runner_of(flow(scope), Number(1)).advance(3_600_000).with_payloads([Number(2)]).advance(3_600_000).run()
    assert [e.original_message.payload.n for e in runner.errors[ErrorKind.TASK] if e.original_message] == [1, 2]


def test_errors_are_of_their_kind_and_in_order() -> None:
    async def fail(number: Number) -> None:
        await a_moment(number)
        if number.n == 1:
            raise ValueError("one")
        if number.n == 2:
            raise RuleViolation("two")
        if number.n == 3:
            raise asyncio.CancelledError

    runner = runner_of(flow(WithAsync(process=Process(calling(fail)))), *of(0, 1, 2, 3, 4)).run()
    assert out_of(runner) == [100, 104]
    assert [e.error_type for e in runner.errors[ErrorKind.TASK]] == [
        "builtins.ValueError",
        "asyncio.exceptions.CancelledError",
    ]
    assert [e.reason for e in runner.errors[ErrorKind.BUSINESS]] == ["two"]
    assert runner.counts.failed == {ErrorKind.TASK: 2, ErrorKind.BUSINESS: 1}


def test_what_ends_a_program_ends_the_run_and_names_the_step() -> None:
    async def leave(number: Number) -> None:
        raise SystemExit(3)

    with pytest.raises(Exception, match=r"scoped\.call raised SystemExit"):
        runner_of(flow(WithAsync(process=Process(calling(leave)))), Number(1)).run()


def test_the_errors_of_a_hung_neighbour_do_not_delay_other_partitions() -> None:
    release = threading.Event()
    seen: list[int] = []

    async def hang(number: Number) -> None:
        if number.n == 0:
            await until(release)

    @step(name="see")
    def see(number: Number) -> Number:
        seen.append(number.n)
        if number.n == 109:
            release.set()
        return number

    items = [KafkaRecord("numbers", None, b'{"n":%d}' % n, {}, min(n, 1), n) for n in range(10)]
    declared = flow(WithAsync(process=Process(calling(hang))), see)
    out = in_memory(declared, items, config=config_for(consumer={"batch_size": 2}))
    assert seen[-1] == 100 or seen.index(100) > seen.index(109)
    assert len(out.output) == 10


def test_sync_steps_routers_and_expansions_run_inside_in_order() -> None:
    @step(name="plus")
    def plus(number: Number) -> Number | None:
        return Number(number.n + 1) if number.n != 105 else None

    class Twice(ExpandStep[Number, Number]):
        async def execute(self, message: Message[Number]) -> list[Number]:
            await a_moment(message.payload)
            return [message.payload, Number(message.payload.n + 1_000)]

    class Thrice(ExpandStep[Number, Number]):
        async def execute(self, message: Message[Number]) -> AsyncIterator[Number]:
            for more in range(3):
                await anyio.lowlevel.checkpoint()
                yield Number(message.payload.n + 10_000 * more)

    router = Router.by(payload.n, {100: Process(Twice), 101: Process(IntoTopic("aside"))}, default=Process(Thrice))
    declared = flow(WithAsync(process=Process(calling(a_moment), router, plus)))
    runner = runner_of(declared, *of(0, 1, 2, 5)).run()
    assert out_of(runner) == [101, 1101, 103, 10103, 20103, 10106, 20106]
    assert [m.payload.n for m in runner.terminal((0, 1, 1, 0))] == [101]
    assert runner.counts.drops == {"scoped.plus": 1}
    assert (runner.counts.read, runner.counts.written) == (4, 4)


def test_children_of_an_expansion_are_called_one_after_the_other_and_tell_their_index() -> None:
    meter = Meter()

    async def pick(number: Number) -> None:
        await anyio.sleep(0.001)
        if number.n == 2:
            raise ValueError("two")

    scope = WithAsync(
        process=Process(Explode(lambda number: [Number(n) for n in range(number.n)]), calling(pick, meter))
    )
    runner = runner_of(flow(scope), Number(4)).run()
    assert out_of(runner) == [100, 101, 103]
    (envelope,) = runner.errors[ErrorKind.TASK]
    assert (envelope.index, meter.most) == ("2", 1)


def test_an_expansion_whose_child_hangs_is_one_error_of_its_record() -> None:
    async def hang(number: Number) -> None:
        if number.n == 2:
            await anyio.sleep_forever()

    explode = Explode(lambda number: [Number(n) for n in range(number.n)])
    runner = runner_of(flow(WithAsync(process=Process(explode, calling(hang)), task_timeout_ms=300)), Number(4)).run()
    (envelope,) = runner.errors[ErrorKind.TASK]
    assert (out_of(runner), envelope.step_id, envelope.original_message.payload.n) == ([], "scoped.with_async", 4)  # type: ignore[union-attr]


def test_expansions_in_front_of_a_scope_keep_the_order_of_their_children() -> None:
    explode = Explode(lambda number: [Number(number.n * 10 + n) for n in range(3)])
    runner = runner_of(flow(explode, WithAsync(process=Process(calling(a_moment)))), *of(1, 2)).run()
    assert out_of(runner) == [110, 111, 112, 120, 121, 122]


def test_an_inner_topic_keeps_the_order_and_ends_the_message() -> None:
    declared = flow(WithAsync(process=Process(calling(a_moment), IntoTopic("inner"))), output=None)
    runner = runner_of(declared, *of(*range(10)), batch_size=3).run()
    assert [m.payload.n for m in runner.terminal((0, 1))] == list(range(100, 110))
    assert (runner.output, runner.counts.written) == ([], 10)


def test_an_inner_topic_does_not_wait_for_its_batch() -> None:
    release = threading.Event()
    written: list[int] = []

    async def last_waits(number: Number) -> None:
        if number.n == 3:
            await until(release)

    class Sink:
        name = "seen"

        def build_partition(self, *args: Any, **kwargs: Any) -> Sink:
            return self

        def write_batch(self, items: list[Message[Number]]) -> None:
            written.extend(item.payload.n for item in items)
            if len(written) == 3:
                release.set()

        def flush(self) -> None: ...

        def close(self) -> None: ...

    scope = WithAsync(process=Process(calling(last_waits), Sink()))
    runner_of(flow(scope, output=None), *of(0, 1, 2, 3)).with_sinks().run()
    assert written == [100, 101, 102, 103]


def test_a_broadcast_inside_counts_each_record_once() -> None:
    both = Broadcast(BroadcastRoute(Process(IntoTopic("a"))), BroadcastRoute(Process(Drain()), name="b"))
    runner = runner_of(flow(WithAsync(process=Process(calling(a_moment), both)), output=None), *of(1, 2)).run()
    assert [m.payload.n for m in runner.terminal((0, 1, 0, 0))] == [101, 102]
    assert runner.counts.written == 2


def test_behind_a_collector_a_call_takes_a_whole_batch() -> None:
    sizes: list[int] = []

    class Store(BatchStep[Number, Number]):
        async def execute(self, messages: list[Message[Number]], add: int) -> list[Any]:
            sizes.append(len(messages))
            await anyio.sleep(0.02 / len(sizes))
            return [ValueError("three") if m.payload.n == 3 else Number(m.payload.n + add) for m in messages]

    class Repeat(BatchExpandStep[Number, Number]):
        async def execute(self, messages: list[Message[Number]]) -> list[list[Number]]:
            return [[m.payload] * 2 for m in messages]

    scope = WithAsync(process=Process(Store, Repeat), add=100)
    runner = runner_of(flow(CollectBatch(2, timeout_ms=1_000), scope, ForEach()), *of(1, 2, 3, 4, 5)).run()
    assert out_of(runner) == [101, 101, 102, 102, 104, 104, 105, 105]
    assert sizes == [2, 2, 1]
    assert [e.reason for e in runner.errors[ErrorKind.TASK]] == ["three"]


def test_a_collector_behind_a_scope_gets_all_of_its_results_at_the_end() -> None:
    sizes: list[int] = []

    class Store(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Number]:
            sizes.append(len(messages))
            return [m.payload for m in messages]

    scope = WithAsync(process=Process(calling(a_moment)))
    runner = runner_of(flow(scope, CollectBatch(100, timeout_ms=60_000), Store, ForEach()), *of(*range(7))).run()
    assert sorted(out_of(runner)) == list(range(100, 107))
    assert sizes == [7]


def test_two_scopes_one_behind_the_other() -> None:
    @step(name="second")
    async def second(number: Number) -> Number:
        await anyio.sleep(0.001 * (number.n % 3))
        return Number(number.n * 2)

    scopes = [WithAsync(process=Process(calling(a_moment))), WithAsync(process=Process(second), max_concurrency=2)]
    assert out_of(runner_of(flow(*scopes), *of(*range(12)), batch_size=5).run()) == [2 * n for n in range(100, 112)]


class Log:
    """Async resources that tell when they are opened and closed, and by which task."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def resource(self, name: str, *, fails: str | None = None) -> ContextFactory:
        @asynccontextmanager
        async def opened() -> AsyncIterator[str]:
            await anyio.lowlevel.checkpoint()
            if fails == "open":
                raise OSError("refused")
            async with anyio.create_task_group():  # has to be left by the task that has entered it
                self.entries.append(f"+{name}")
                try:
                    yield name
                finally:
                    self.entries.append(f"-{name}")
            if fails == "close":
                raise OSError("not committed")

        return ContextFactory(opened)


class Use(RecordStep[Number, Number]):
    async def execute(self, message: Message[Number], client: str, other: str = "") -> Number:
        await a_moment(message.payload)
        if message.payload.n == 13:
            raise ValueError("thirteen")
        return message.payload


def test_resources_of_a_worker_are_opened_once_by_the_first_call_and_closed_in_reverse(bridge: AsyncBridge) -> None:
    log = Log()
    declared = flow(WithAsync(process=Process(Use), client=log.resource("a"), other=log.resource("b")))
    assert log.entries == []
    in_memory(declared, [], bridge=bridge)
    assert log.entries == []
    in_memory(declared, numbers(*range(10)), bridge=bridge)
    assert log.entries == ["+a", "+b", "-b", "-a"]


def test_resources_of_a_batch_are_closed_when_its_calls_are_done() -> None:
    log = Log()
    scope = WithAsync(ResourceScope.BATCH, process=Process(Use), client=log.resource("a"))
    assert out_of(runner_of(flow(scope), *of(*range(6)), batch_size=2).run()) == list(range(6))
    assert sorted(log.entries) == ["+a"] * 3 + ["-a"] * 3


def test_a_batch_whose_resources_do_not_close_ends_the_run() -> None:
    scope = WithAsync(ResourceScope.BATCH, process=Process(Use), client=Log().resource("a", fails="close"))
    runner = runner_of(flow(scope), Number(1))
    with pytest.raises(
        ResourceError, match=r"the resources of scoped\.with_async do not close: OSError: not committed"
    ):
        runner.run()
    assert runner.output == []


@pytest.mark.parametrize("life", list(ResourceScope))
def test_if_a_resource_does_not_open_those_before_it_are_closed_and_the_run_ends(life: ResourceScope) -> None:
    log = Log()
    scope = WithAsync(life, process=Process(Use), client=log.resource("a"), other=log.resource("b", fails="open"))
    with pytest.raises(
        ResourceError, match=r"the resource 'other' of scoped\.with_async does not open: OSError: refused"
    ):
        runner_of(flow(scope), *of(1, 2)).run()
    assert log.entries == ["+a", "-a"]


def test_a_run_that_fails_closes_its_resources() -> None:
    log = Log()
    with pytest.raises(Exception, match="thirteen"):
        runner_of(flow(WithAsync(process=Process(Use), client=log.resource("a")), errors=None), *of(1, 13, 2)).run()
    assert log.entries == ["+a", "-a"]


def test_a_sync_step_inside_is_given_what_the_scope_has_opened() -> None:
    @step(name="tell")
    def tell(number: Number, client: str) -> Number:
        assert client == "a"
        return Number(number.n + 1)

    scope = WithAsync(process=Process(calling(a_moment), tell), client=Log().resource("a"))
    assert out_of(runner_of(flow(scope), Number(1)).run()) == [102]


def test_a_stop_waits_for_calls_in_progress_and_confirms_them() -> None:
    started, results = threading.Event(), []
    release = threading.Event()

    async def wait(number: Number) -> None:
        started.set()
        await until(release)
        results.append(number.n)

    declared = flow(WithAsync(process=Process(calling(wait)), max_concurrency=2))
    out, confirmed = stopped_while(declared, numbers(0, 1, 2, 3), started, release)
    assert [message.payload.n for message in out] == [100, 101, 102, 103]
    assert sorted(results) == [0, 1, 2, 3]
    assert list(confirmed.values()) == [4]


def issues(*nodes: Any, config: Any = None) -> list[tuple[Code, tuple[int, ...], str]]:
    with pytest.raises(CompilationError) as refused:
        compile_flow(flow(*nodes), config=config or config_for())
    return [(issue.code, issue.path, issue.message) for issue in refused.value.errors]


def test_a_sync_context_in_an_async_scope_is_a_compile_error() -> None:
    class Client:
        def __enter__(self) -> Client:
            return self

        def __exit__(self, *args: Any) -> None: ...

    wanted = [(Code.SCOPE_DEPENDENCY, (0,), "'client' is a synchronous context, which WithAsync cannot open")]
    assert issues(WithAsync(process=Process(Use), client=Client())) == wanted
    assert issues(WithAsync(process=Process(Use), client=ContextFactory(Client))) == wanted


def test_an_async_step_outside_of_an_async_scope_is_a_compile_error() -> None:
    call = calling(a_moment)
    assert [found[:2] for found in issues(call)] == [(Code.STEP_ASYNC, (0,))]
    assert [found[:2] for found in issues(With(process=Process(call)))] == [(Code.STEP_ASYNC, (0, 0))]


def test_what_gathers_or_nests_inside_is_a_compile_error() -> None:
    class All(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Number]:
            return [message.payload for message in messages]

    call = calling(a_moment)
    assert [f[:2] for f in issues(WithAsync(process=Process(call, All)))] == [(Code.SCOPE_NODE, (0, 1))]
    collect = WithAsync(process=Process(call, CollectBatch(2, 10), ForEach()))
    assert [f[:2] for f in issues(collect)] == [(Code.SCOPE_NODE, (0, 1))]
    nested = WithAsync(process=Process(WithAsync(process=Process(call))))
    assert [f[:2] for f in issues(nested)] == [(Code.SCOPE_NODE, (0, 0))]


def test_no_order_under_exactly_once_is_a_warning_since_the_position_is_a_prefix() -> None:
    scope = WithAsync(process=Process(calling(a_moment)), ordering="none")
    plan = compile_flow(flow(scope), config=config_for(consumer={"delivery": "exactly_once"}))
    assert [(w.code, w.path) for w in plan.warnings] == [(Code.SCOPE_ORDERING, (0,))]
    assert not compile_flow(flow(scope), config=config_for(consumer={"delivery": "at_least_once"})).warnings


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_concurrency": 0}, r"WithAsync\(max_concurrency=0\) must be at least 1"),
        ({"task_timeout_ms": 0}, r"WithAsync\(task_timeout_ms=0\) must be at least 1"),
        ({"task_timeout_ms": 1.5}, "takes a whole number"),
        ({"ordering": "keys"}, "did you mean 'key'"),
        ({"retry": 3}, "parameter of a scope"),
        ({"max_threads": 3}, "parameter of a scope"),
    ],
)
def test_limits_and_names_are_checked_when_the_scope_is_declared(options: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        WithAsync(process=Process(Use), **options)
