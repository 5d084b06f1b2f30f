"""How scopes of systems of this kind confirm too early, end a run or leak; each test is named after what happened elsewhere."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio.lowlevel
import anyio.to_thread
import pytest

from loom.core.model import LoomFrozenStruct
from loom.core.observability import EventKind, LifecycleEvent, ObservabilityRuntime, Scope
from loom.streaming import (
    Broadcast,
    BroadcastRoute,
    ContextFactory,
    ErrorKind,
    ExpandRoutes,
    ExpandStep,
    Fork,
    FromTopic,
    IntoTopic,
    Message,
    PartitionGuarantee,
    PartitionPolicy,
    Process,
    Retry,
    Route,
    Router,
    StreamFlow,
    StreamingRunner,
    With,
    WithAsync,
    step,
)
from loom.streaming.compiler import compile_flow
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from loom.streaming.runtime.build_options import BuildOptions
from loom.streaming.runtime.engine import load_engine
from loom.streaming.runtime.run_errors import ForcedShutdownError
from loom.streaming.testing import StreamingTestRunner
from tests.support.engines import chosen_engine
from tests.support.one_way import running
from tests.support.running import all_done, config_for, content, positions, produce, run_until
from tests.support.waiting import LONG_S, until


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


@step
async def soon(number: Number) -> Number:
    await anyio.lowlevel.checkpoint()
    return number


def flow(*nodes: Any, output: IntoTopic[Any] | None = None) -> StreamFlow[Any, Any]:
    return StreamFlow("scoped", FromTopic("numbers", Number), Process(*nodes), output, IntoTopic("errors"))


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in ("numbers", "first", "second", "errors"):
        broker.create_topic(topic)
    return broker.bootstrap


def config(bootstrap: str, **runtime: Any) -> dict[str, Any]:
    return config_for(bootstrap, consumer={"delivery": "at_least_once"}, runtime={"epoch_interval_ms": 20, **runtime})


def write(bootstrap: str, *values: int) -> None:
    produce(bootstrap, "numbers", *(KafkaRecord("numbers", None, b'{"n":%d}' % n, partition=0) for n in values))


def numbers_in(bootstrap: str, topic: str) -> list[int]:
    return sorted(int((record.value or b"")[5:-1]) for record in content(bootstrap, topic)[topic])


@pytest.mark.both_engines
def test_a_record_is_not_confirmed_at_the_write_of_one_scope_while_another_works_on_it(bootstrap: str) -> None:
    """An async scope confirmed a record at its inner write and then let it go on."""
    release = threading.Event()

    @step
    async def later(number: Number) -> Number:
        await anyio.to_thread.run_sync(release.wait, LONG_S)
        return number

    declared = flow(
        Broadcast(
            BroadcastRoute(
                Process(WithAsync(process=Process(soon, IntoTopic("first")), ordering="none")), name="first"
            ),
            BroadcastRoute(
                Process(WithAsync(process=Process(later, IntoTopic("second")), ordering="none")), name="second"
            ),
        )
    )
    write(bootstrap, 7)
    runner = StreamingRunner.from_dict(declared, config(bootstrap))
    with running(runner) as raised:
        until(lambda: numbers_in(bootstrap, "first") == [7])
        # An epoch later.
        write(bootstrap, 8)
        until(lambda: numbers_in(bootstrap, "first") == [7, 8])
        assert positions(bootstrap, "numbers")[0] == 0
        release.set()
        until(lambda: positions(bootstrap, "numbers")[0] == 2)
    assert raised == []
    assert numbers_in(bootstrap, "first") == numbers_in(bootstrap, "second") == [7, 8]


@pytest.mark.both_engines
def test_a_record_expanded_inside_a_scope_is_not_confirmed_when_the_first_of_its_results_is_written(
    bootstrap: str,
) -> None:
    """A record expanded to N results was confirmed when the first of them was written."""
    release = threading.Event()

    class Twice(ExpandStep[Number, Number]):
        def execute(self, message: Message[Number]) -> list[Number]:
            return [message.payload, Number(message.payload.n + 100)]

    @step
    async def holds_some(number: Number) -> Number:
        if number.n >= 100:
            await anyio.to_thread.run_sync(release.wait, LONG_S)
        return number

    declared = flow(
        WithAsync(process=Process(soon, Twice)),
        WithAsync(process=Process(holds_some), ordering="none"),
        output=IntoTopic("first"),
    )
    write(bootstrap, 7, 8)
    runner = StreamingRunner.from_dict(declared, config(bootstrap))
    with running(runner) as raised:
        until(lambda: numbers_in(bootstrap, "first") == [7, 8])
        # An epoch later.
        write(bootstrap, 9)
        until(lambda: numbers_in(bootstrap, "first") == [7, 8, 9])
        assert positions(bootstrap, "numbers")[0] == 0
        release.set()
        until(lambda: positions(bootstrap, "numbers")[0] == 3)
    assert raised == []
    assert numbers_in(bootstrap, "first") == [7, 8, 9, 107, 108, 109]


@pytest.mark.both_engines
def test_wherever_a_record_ends_inside_a_scope_its_position_moves(bootstrap: str) -> None:
    """A sync scope never confirmed at all; an async one did not confirm what was dropped, failed or matched nothing."""

    @step
    async def ends(number: Number) -> Number | None:
        if number.n == 0:
            return None
        if number.n == 1:
            raise ValueError("no")
        if number.n == 2:
            await anyio.sleep_forever()
        return number

    @step
    def blocks(number: Number) -> Number | None:
        return number if number.n else None

    class Nothing:
        def expand(self, number: Number) -> dict[type, list[Any]]:
            return {} if number.n == 3 else {Number: [number]}

    def parity(number: Number) -> str:
        return {4: "nowhere"}.get(number.n, "first")

    ways = Fork.by(
        parity, {"first": Process(ExpandRoutes(expander=Nothing(), routes={Number: Process(IntoTopic("first"))}))}
    )
    declared = flow(
        Broadcast(
            BroadcastRoute(Process(WithAsync(process=Process(ends, ways), task_timeout_ms=1_000)), name="async"),
            BroadcastRoute(Process(With(process=Process(same, IntoTopic("second")))), name="sync"),
            BroadcastRoute(Process(With(process=Process(blocks, IntoTopic("second")), max_threads=2)), name="threads"),
        )
    )
    write(bootstrap, *range(6))
    counts = run_until(StreamingRunner.from_dict(declared, config(bootstrap)), all_done(6))
    assert counts.accounted == 6
    assert positions(bootstrap, "numbers")[0] == 6
    assert numbers_in(bootstrap, "first") == [5]
    assert numbers_in(bootstrap, "second") == sorted([*range(6), *range(1, 6)])


def _raises(*_: Any) -> Any:
    raise RuntimeError("a fault of the author")


class Raises:
    def expand(self, number: Number) -> dict[type, list[Any]]:
        raise RuntimeError("a fault of the author")

    def partition_key(self, message: Message[Number]) -> bytes | str | None:
        raise RuntimeError("a fault of the author")


@pytest.mark.parametrize("kind", ["sync", "threads", "async"])
@pytest.mark.parametrize(
    ("node", "error"),
    [
        (Router.by(_raises, {"a": Process(same)}), ErrorKind.ROUTING),
        (Router.when([Route(_raises, Process(same))]), ErrorKind.ROUTING),
        (ExpandRoutes(expander=Raises(), routes={Number: Process(IntoTopic("first"))}), ErrorKind.TASK),
        (IntoTopic("first", partitioning=PartitionPolicy(Raises(), PartitionGuarantee.BEST_EFFORT)), ErrorKind.ROUTING),
    ],
    ids=["selector", "predicate", "expander", "strategy"],
)
def test_what_an_author_raises_inside_a_scope_is_an_error_of_its_record_and_ends_no_run(
    kind: str, node: Any, error: ErrorKind
) -> None:
    """An exception in a selector, a predicate, an expander or a partition strategy ended the run instead of becoming that
    record's error.
    """
    ends = isinstance(node, ExpandRoutes | IntoTopic)
    if kind == "async":
        scope: Any = WithAsync(process=Process(soon, node))
    else:
        scope = With(process=Process(same, node), max_threads=2 if kind == "threads" else 1)
    declared = flow(scope, output=None if ends else IntoTopic("first"))
    runner = StreamingTestRunner.from_flow(declared).with_payloads(Number(n) for n in range(3)).run()
    found = runner.errors[error]
    assert [envelope.original_message.payload.n for envelope in found] == [0, 1, 2]  # type: ignore[union-attr]
    assert (runner.counts.read, runner.counts.failed) == (3, {error: 3})


def test_the_producers_of_topics_inside_scopes_are_closed(bootstrap: str) -> None:
    """Inner producers of scopes were never closed."""
    events: list[LifecycleEvent] = []

    class Recorder:
        def on_event(self, event: LifecycleEvent) -> None:
            events.append(event)

    declared = flow(
        Broadcast(
            BroadcastRoute(Process(WithAsync(process=Process(soon, IntoTopic("first")))), name="async"),
            BroadcastRoute(Process(With(process=Process(same, IntoTopic("second")))), name="sync"),
        )
    )
    chosen = config(bootstrap)
    # Producers of their own.
    chosen["kafka"]["producers"] = {name: {"client_id": name} for name in ("first", "second")}
    write(bootstrap, 1, 2)
    observed = ObservabilityRuntime([Recorder()])
    run_until(StreamingRunner.from_dict(declared, chosen, observability_runtime=observed), all_done(2))
    transport = [event for event in events if event.scope is Scope.TRANSPORT]
    opened = sorted(event.name for event in transport if event.kind is EventKind.START)
    closed = sorted(event.name for event in transport if event.kind is EventKind.END)
    assert opened == closed
    assert len(opened) >= 2
    assert numbers_in(bootstrap, "first") == numbers_in(bootstrap, "second") == [1, 2]


def test_a_call_that_a_stop_abandons_is_unconfirmed_and_no_error_as_well(bootstrap: str) -> None:
    """A record that was cut off became an error and was read again."""
    begun = threading.Event()

    @step
    async def hangs(number: Number) -> Number:
        begun.set()
        await anyio.sleep_forever()
        return number

    declared = flow(WithAsync(process=Process(hangs), retry=Retry(3)), output=IntoTopic("first"))
    write(bootstrap, 1)
    runner = StreamingRunner.from_dict(declared, config(bootstrap, force_shutdown_timeout_ms=200))
    with running(runner) as raised:
        assert begun.wait(LONG_S)
    assert [type(error) for error in raised] == [ForcedShutdownError]
    assert positions(bootstrap, "numbers").get(0, 0) == 0
    assert numbers_in(bootstrap, "errors") == numbers_in(bootstrap, "first") == []


def test_async_calls_overlap_without_a_batch_node(bootstrap: str) -> None:
    """Async concurrency existed only behind a batch node."""
    together = threading.Barrier(3)

    @step
    async def meet(number: Number) -> Number:
        await anyio.to_thread.run_sync(together.wait, LONG_S)
        return number

    declared = flow(WithAsync(process=Process(meet), max_concurrency=3), output=IntoTopic("first"))
    write(bootstrap, 1, 2, 3)
    run_until(StreamingRunner.from_dict(declared, config(bootstrap)), all_done(3))
    assert numbers_in(bootstrap, "first") == [1, 2, 3]


class Opened:
    """What was opened and closed, in order."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    @contextmanager
    def plain(self, name: str) -> Iterator[str]:
        self.entries.append(f"+{name}")
        yield name
        self.entries.append(f"-{name}")

    @asynccontextmanager
    async def awaited(self, name: str) -> AsyncIterator[str]:
        with self.plain(name):
            await anyio.lowlevel.checkpoint()
            yield name

    def scope(self, kind: str, name: str, seen: list[tuple[int, str]]) -> Any:
        if kind == "async":

            @step
            async def use_soon(number: Number, client: str) -> Number:
                await anyio.lowlevel.checkpoint()
                seen.append((number.n, client))
                return number

            return WithAsync(process=Process(use_soon), client=ContextFactory(lambda: self.awaited(name)))

        @step
        def use(number: Number, client: str) -> Number:
            seen.append((number.n, client))
            return number

        most = 2 if kind == "threads" else 1
        return With(process=Process(use), max_threads=most, client=ContextFactory(lambda: self.plain(name)))


@pytest.mark.parametrize("kind", ["sync", "threads", "async"])
def test_a_worker_scoped_resource_is_opened_when_the_flow_runs(bootstrap: str, kind: str) -> None:
    """A worker-scoped resource was opened while the flow was being put together, not when it ran."""
    opened = Opened()
    declared = flow(opened.scope(kind, "client", []), output=IntoTopic("first"))
    plan = compile_flow(declared, config=config(bootstrap))
    load_engine(chosen_engine()).lower(plan, BuildOptions()).shutdown()
    assert opened.entries == []
    write(bootstrap, 1, 2)
    run_until(StreamingRunner.from_dict(declared, config(bootstrap)), all_done(2))
    assert opened.entries == ["+client", "-client"]


@pytest.mark.parametrize("kind", ["sync", "threads", "async"])
def test_two_scopes_at_the_same_index_in_different_branches_share_no_resources(kind: str) -> None:
    """Two scopes at the same index in different branches shared one set of resources."""
    opened, odd, even = Opened(), list[tuple[int, str]](), list[tuple[int, str]]()
    ways = Router.by(
        lambda number: number.n % 2,
        {1: Process(opened.scope(kind, "odd", odd)), 0: Process(opened.scope(kind, "even", even))},
    )
    runner = StreamingTestRunner.from_flow(flow(ways, output=IntoTopic("first")))
    runner.with_payloads(Number(n) for n in range(4)).run()
    assert (sorted(odd), sorted(even)) == ([(1, "odd"), (3, "odd")], [(0, "even"), (2, "even")])
    assert sorted(opened.entries) == ["+even", "+odd", "-even", "-odd"]


def test_the_time_limit_of_a_message_is_not_one_of_each_step() -> None:
    """A per-message time-out was per step."""

    async def wait(number: Number) -> Number:
        # Less than the limit, and twice as much is more.
        await anyio.sleep(0.4)
        return number

    scope = WithAsync(process=Process(step(name="one")(wait), step(name="two")(wait)), task_timeout_ms=600)
    runner = StreamingTestRunner.from_flow(flow(scope, output=IntoTopic("first"))).with_payloads([Number(1)]).run()
    assert (len(runner.errors[ErrorKind.TASK]), runner.output) == (1, [])


@pytest.mark.parametrize("kind", ["sync", "threads", "async"])
def test_what_an_inner_topic_takes_is_not_written_by_the_output_as_well(bootstrap: str, kind: str) -> None:
    """An inner write plus the flow's output: both wrote the record."""
    first = Process(soon if kind == "async" else same, IntoTopic("first"))
    inner: Any = (
        WithAsync(process=first) if kind == "async" else With(process=first, max_threads=2 if kind == "threads" else 1)
    )
    ways = Router.by(lambda number: number.n % 2, {1: Process(inner), 0: Process(same)})
    write(bootstrap, *range(4))
    run_until(StreamingRunner.from_dict(flow(ways, output=IntoTopic("second")), config(bootstrap)), all_done(4))
    assert (numbers_in(bootstrap, "first"), numbers_in(bootstrap, "second")) == ([1, 3], [0, 2])
