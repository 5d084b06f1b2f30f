"""The tasks that make calls: parked, ended when no more are expected, cancelled by somebody, and what is told of their calls."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from loom.streaming.runtime.scopes.async_resources import AsyncResources
from loom.streaming.runtime.scopes.call import AsyncStep, Call, Suspension
from loom.streaming.runtime.scopes.inner import InnerProcess
from loom.streaming.runtime.scopes.loop_calls import LoopCalls
from loom.streaming.runtime.waker import Waker
from tests.support.waiting import LONG_S


class OneStep:
    """An inner process of one async step, which awaits what the record of the call makes."""

    def __init__(self, fault: Exception | None = None) -> None:
        self._fault = fault
        self._step = AsyncStep(self._run, (), self.resume, self.resume, ())

    async def _run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        return await work()

    def resume(self, result: Any) -> None:
        """What came of it."""

    def enter(self, call: Call) -> None:
        call.pending = [Suspension(self._step, call.items[0], (), ())]

    def go_on(self, call: Call, at: Suspension, function: Callable[..., None], what: Any) -> None:
        function(what)

    def fail_all(self, call: Call, error: BaseException) -> None:
        if self._fault is not None:
            raise self._fault


class Drained(deque[Any]):
    """A worker on another thread takes everything just before the next call is added."""

    drains = False

    def append(self, call: Any, /) -> None:
        if self.drains:
            self.clear()
        super().append(call)


class Calling:
    """A scope's calls, without a worker."""

    def __init__(self, limit: int, fault: Exception | None = None) -> None:
        self.completed, self.wake = Drained(), Waker()
        process = cast(InnerProcess, OneStep(fault))
        self.calls = LoopCalls(process, limit, None, deque(), self.completed, self.wake, self.deal)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        with anyio.fail_after(LONG_S):
            async with anyio.create_task_group() as hosts, anyio.create_task_group() as tasks:
                self.calls.open(tasks, hosts)
                try:
                    yield
                finally:
                    await self.calls.close()

    def put(self, *works: Callable[[], Awaitable[Any]]) -> list[Call]:
        made = [Call(cast(Any, [work]), [], resources=AsyncResources("scope", ())) for work in works]
        if self.calls.add(made):
            self.deal()
        return made

    def deal(self) -> None:
        for start in self.calls.deal():
            start()

    async def until_completed(self, count: int) -> None:
        while len(self.completed) < count:
            await anyio.lowlevel.checkpoint()
        for _ in range(10):  # until their tasks have parked, or ended
            await anyio.lowlevel.checkpoint()


def tasks_of_calls() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "calls"]


async def at_once() -> None:
    await anyio.lowlevel.checkpoint()


@pytest.mark.own_event_loop
def test_a_task_without_a_call_is_parked_until_no_more_are_expected() -> None:
    async def run() -> None:
        calling = Calling(3)
        async with calling.open():
            calling.put(at_once, at_once, at_once)
            await calling.until_completed(3)
            parked = set(tasks_of_calls())
            assert len(parked) == 3
            calling.calls.is_ending = True
            calling.put(at_once, at_once)
            await calling.until_completed(5)
            assert len(tasks_of_calls()) == 1

    asyncio.run(run())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_calls_that_come_though_none_were_expected_are_made(backend: str) -> None:
    pytest.importorskip(backend)

    async def run() -> None:
        calling = Calling(2)
        async with calling.open():
            calling.calls.is_ending = True
            for count in (3, 6, 7):
                calling.put(*[at_once] * (count - len(calling.completed)))
                await calling.until_completed(count)
            assert not calling.calls.unfinished()

    anyio.run(run, backend=backend)


def test_a_worker_that_takes_what_has_ended_meanwhile_is_woken_for_the_next() -> None:
    async def run() -> None:
        calling = Calling(1)
        async with calling.open():
            calling.put(at_once)
            await calling.until_completed(1)
            assert calling.wake.wait(0)
            calling.completed.drains = True
            calling.put(at_once)
            await calling.until_completed(1)
            while not calling.wake.wait(0):
                await anyio.lowlevel.checkpoint()

    anyio.run(run)


def test_a_task_at_work_takes_the_next_call_and_nobody_is_told_of_it() -> None:
    async def run() -> None:
        calling, may_end = Calling(1), anyio.Event()
        async with calling.open():
            calling.put(may_end.wait)
            await anyio.lowlevel.checkpoint()
            assert not calling.calls.add([Call(cast(Any, [at_once]), [], resources=AsyncResources("scope", ()))])
            may_end.set()
            await calling.until_completed(2)

    anyio.run(run)


@pytest.mark.parametrize(("ending", "look"), [(False, 2), (True, 3)], ids=["parks", "ends"])
def test_a_call_that_comes_while_a_task_finds_none_is_made(
    ending: bool, look: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread hands it over just behind the last look of the task, and sees it at work."""
    calling, told = Calling(1), []

    class Late(deque[Any]):
        looks = 0

        def __bool__(self) -> bool:
            found = len(self) > 0
            self.looks += len(calling.completed) == 1
            if self.looks == look and not told:
                late = Call(cast(Any, [at_once]), [], resources=AsyncResources("scope", ()))
                told.append(calling.calls.add([late]))
            return found

    monkeypatch.setattr(calling.calls, "_waiting", Late())

    async def run() -> None:
        async with calling.open():
            calling.calls.is_ending = ending
            calling.put(at_once)
            await calling.until_completed(2)
            assert told == [False]

    anyio.run(run)


@pytest.mark.own_event_loop
def test_parked_tasks_that_somebody_cancels_take_the_next_calls() -> None:
    async def run() -> None:
        calling = Calling(2)
        async with calling.open():
            calling.put(at_once, at_once)
            await calling.until_completed(2)
            for task in (parked := tasks_of_calls()):
                task.cancel()
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            assert set(tasks_of_calls()) == set(parked)
            calling.put(at_once, at_once)
            await calling.until_completed(4)

    asyncio.run(run())


@pytest.mark.own_event_loop
def test_a_task_that_is_cancelled_before_it_begins_is_not_waited_for() -> None:
    async def run() -> None:
        calling = Calling(2)
        async with calling.open():
            calling.put(at_once, at_once)
            for task in tasks_of_calls():
                task.cancel()

    asyncio.run(run())


@pytest.mark.own_event_loop
def test_a_fault_of_a_task_ends_the_scope() -> None:
    async def run() -> None:
        calling = Calling(2, fault=LookupError("lost"))
        async with calling.open():
            forever, _ = calling.put(anyio.sleep_forever, anyio.sleep_forever)
            while forever.maker is None:
                await anyio.lowlevel.checkpoint()
            forever.maker.cancel()
            await anyio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as raised:
        asyncio.run(run())
    assert raised.value.subgroup(lambda error: isinstance(error, LookupError)) is not None


def test_calls_that_are_handed_over_before_the_first_ones_begin_take_no_place_twice() -> None:
    calls = Calling(2).calls
    assert [(calls.add([Call([], [])]), len(calls.deal())) for _ in range(3)] == [(True, 1), (True, 1), (False, 0)]
    assert len(calls.unfinished()) == 3
