"""Tasks of the event loop make one call after the other: no call notices what another has left behind."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace

from loom.core.async_bridge import AsyncBridge
from loom.core.model import LoomFrozenStruct
from loom.streaming import ErrorKind, FromTopic, IntoTopic, Process, ResourceScope, Retry, StreamFlow, WithAsync, step
from loom.streaming.testing import StreamingTestRunner
from tests.support.running import in_memory, numbers
from tests.support.waiting import LONG_S


class Number(LoomFrozenStruct):
    n: int


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def bridge(request: pytest.FixtureRequest) -> Iterator[AsyncBridge]:
    """Each of the event loops."""
    pytest.importorskip(request.param)
    made = AsyncBridge(use_uvloop=True) if request.param == "uvloop" else AsyncBridge(request.param)
    yield made
    assert made.shutdown(LONG_S)


def calling(work: Any, *behind: Any, **options: Any) -> StreamFlow[Any, Any]:
    @step(name="call")
    async def call(number: Number) -> Number:
        return Number(await work(number.n))

    scope = WithAsync(process=Process(call), **options)
    return StreamFlow(
        "calling", FromTopic("numbers", Number), Process(scope, *behind), IntoTopic("out"), IntoTopic("errors")
    )


def test_the_next_call_begins_though_the_worker_is_busy(bridge: AsyncBridge) -> None:
    all_began = threading.Event()
    in_time: list[bool] = []

    async def work(n: int) -> int:
        if n == 5:
            all_began.set()
        await anyio.sleep(0.001)
        return n

    @step(name="block")
    def block(number: Number) -> Number:
        in_time.append(all_began.wait(LONG_S))
        return number

    out = in_memory(calling(work, block, max_concurrency=2), numbers(*range(6)), bridge=bridge)
    assert [one.n for one in out.payloads()] == list(range(6))
    assert in_time == [True] * 6


def test_each_call_has_a_context_of_its_own(bridge: AsyncBridge) -> None:
    seen: ContextVar[int] = ContextVar("seen", default=-1)

    async def work(n: int) -> int:
        before = seen.get()
        seen.set(n)
        await anyio.sleep(0.001)
        assert seen.get() == n
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(inherits, n)
        return before

    async def inherits(n: int) -> None:
        assert seen.get() == n

    out = in_memory(calling(work, max_concurrency=2), numbers(*range(6)), bridge=bridge)
    assert ([one.n for one in out.payloads()], out.counts.failed) == ([-1] * 6, {})


@pytest.mark.own_event_loop
@pytest.mark.parametrize("waits", [False, True])
def test_a_call_that_cancels_its_task_cancels_no_other(waits: bool) -> None:
    async def work(n: int) -> int:
        if n == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            if waits:
                await asyncio.sleep(3_600)
        await asyncio.sleep(0 if n == 1 else 0.001)
        return n

    out = in_memory(calling(work, max_concurrency=1), numbers(*range(4)))
    assert [one.n for one in out.payloads()] == [0, 2, 3]
    assert [one.error_type for one in out.errors[ErrorKind.TASK]] == ["asyncio.exceptions.CancelledError"]


@pytest.mark.own_event_loop
def test_a_call_that_leaves_a_cancellation_behind_cancels_no_other() -> None:
    async def work(n: int) -> int:
        if n == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        else:
            await asyncio.sleep(0.001)
        return n

    out = in_memory(calling(work, max_concurrency=1), numbers(*range(4)))
    assert ([one.n for one in out.payloads()], out.counts.failed) == ([0, 1, 2, 3], {})


@pytest.mark.own_event_loop
def test_tasks_that_are_cancelled_between_two_calls_go_on() -> None:
    began: set[int] = set()
    cancelled = threading.Event()

    async def work(n: int) -> int:
        began.add(n)
        if n == 0:
            while len(began) < 3:  # noqa: ASYNC110 - the other calls share nothing else with this one
                await asyncio.sleep(0)
            for _ in range(10):  # until the other two are parked
                await asyncio.sleep(0)
            mine = asyncio.current_task()
            for task in asyncio.all_tasks():
                if task.get_name() == "calls" and task is not mine:
                    task.cancel()
            cancelled.set()
            while 3 not in began:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        return n

    @step(name="block")
    def block(number: Number) -> Number:
        cancelled.wait(10)
        return number

    # The fourth call begins when the worker has taken the result of the second one, of the same key, which it is kept from.
    keyed = [replace(one, key=b"%d" % (n % 2 if n else 9)) for n, one in enumerate(numbers(0, 1, 2, 3))]
    out = in_memory(calling(work, block, max_concurrency=3, ordering="key"), keyed)
    assert (sorted(one.n for one in out.payloads()), out.counts.failed) == ([0, 1, 2, 3], {})


def test_a_call_that_is_cancelled_leaves_its_place_to_the_next(bridge: AsyncBridge) -> None:
    async def work(n: int) -> int:
        if n % 2:
            await anyio.sleep_forever()
        await anyio.sleep(0.001)
        return n

    out = in_memory(calling(work, max_concurrency=1, task_timeout_ms=300), numbers(*range(6)), bridge=bridge)
    assert [one.n for one in out.payloads()] == [0, 2, 4]
    assert out.counts.failed == {ErrorKind.TASK: 3}


def test_the_time_of_a_call_counts_from_its_beginning() -> None:
    async def work(n: int) -> int:
        if n == 1:
            await anyio.sleep_forever()
        return n

    declared = calling(work, max_concurrency=1, task_timeout_ms=3_600_000)
    runner = StreamingTestRunner.from_flow(declared).with_payloads([Number(1), Number(2)]).advance(3_600_000).run()
    assert [message.payload.n for message in runner.output] == [2]
    assert [e.original_message.payload.n for e in runner.errors[ErrorKind.TASK] if e.original_message] == [1]


@pytest.mark.parametrize("scope", list(ResourceScope))
def test_nothing_is_left_of_a_call_that_has_failed(scope: ResourceScope) -> None:
    class RefusedError(Exception):
        """An exception of a class of Python's own cannot be referred to weakly."""

    raised = WeakSet[RefusedError]()
    times = 0

    async def work(n: int) -> int:
        nonlocal times
        times += 1
        await anyio.lowlevel.checkpoint()
        raised.add(error := RefusedError(n))
        raise error

    retry = Retry(attempts=2, wait_initial_ms=1, wait_jitter_ms=0)
    out = in_memory(calling(work, scope=scope, retry=retry), numbers(*range(10)))
    assert (out.counts.failed, times) == ({ErrorKind.TASK: 10}, 20)
    gc.collect()
    assert not raised
