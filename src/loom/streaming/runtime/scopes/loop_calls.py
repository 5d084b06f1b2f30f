"""The calls of one scope inside the event loop: at most so many at once, in tasks that make one call after the other. Hot path.

A task, a cancel scope and their ends cost more than a call that only waits, so tasks stay: one that has nothing to do is parked
and is given the next call. Each call has a context (`contextvars`) of its own.
"""

from __future__ import annotations

import asyncio
import threading
import types
from collections import deque
from collections.abc import Generator, Sequence
from contextvars import copy_context
from math import inf
from typing import TYPE_CHECKING, Any

from loom.streaming.runtime.scopes.call import Call, CallTimedOutError
from loom.streaming.runtime.scopes.inner import InnerProcess

if TYPE_CHECKING:
    import anyio
    from anyio.abc import TaskGroup

__all__ = ["LoopCalls"]

#: After so many calls in a row that waited for nothing, a task lets others go first.
_STRETCH = 32


class _Parked:
    """A task without a call."""

    __slots__ = ("call", "given")

    def __init__(self, given: anyio.Event) -> None:
        self.call: Call | None = None
        self.given = given


class LoopCalls:
    """Makes calls. Used inside the event loop only.

    Args:
        process: the inner process of the scope.
        limit: the most calls at once.
        timeout_s: the longest that one may take, in seconds; `None` means no limit.
        begun: is given each call that begins, where there is such a limit.
        completed: is given each call that has ended.
        wake: set then.
    """

    def __init__(
        self,
        process: InnerProcess,
        limit: int,
        timeout_s: float | None,
        begun: deque[Call],
        completed: deque[Any],
        wake: threading.Event,
    ) -> None:
        self._process = process
        self._limit = limit
        self._timeout_s = timeout_s
        self._begun = begun
        self._completed = completed
        self._wake = wake
        #: handed over, and not begun yet
        self._waiting: deque[Call] = deque()
        #: in progress, in the order of the times at which they have to be done
        self._running: dict[Call, float] = {}
        self._parked: list[_Parked] = []
        self._tasks = 0
        #: set when a call begins while none is in progress; only where there is a time limit
        self._some: anyio.Event | None = None
        self._closing = False
        self._context = copy_context()
        self._calls: TaskGroup | None = None
        self._hosts: TaskGroup | None = None

    def open(self, calls: TaskGroup, hosts: TaskGroup) -> None:
        """Called by the task that owns these groups: one for the calls, and one for their resources."""
        self._calls, self._hosts = calls, hosts
        self._context = copy_context()
        if self._timeout_s is not None:
            calls.start_soon(self._watch, self._timeout_s, name="time limits of calls")

    def close(self) -> None:
        """Cancel every call."""
        self._closing = True
        if self._calls is not None:
            self._calls.cancel_scope.cancel()

    def unfinished(self) -> list[Call]:
        """The calls that have not ended. May be called from any thread."""
        return [*list(self._running), *list(self._waiting)]

    def put(self, calls: Sequence[Call]) -> list[Call]:
        """Begin calls, or let them wait for their turn. Returns those that need a new task (`begin`)."""
        parked, new = self._parked, []
        for call in calls:
            if parked:
                free = parked.pop()
                free.call = call
                free.given.set()
            elif self._tasks < self._limit:
                self._tasks += 1
                new.append(call)
            else:
                self._waiting.append(call)
        return new

    def begin(self, call: Call) -> None:
        """Begin a call in a new task. Called by the task that owns the groups."""
        assert self._calls is not None
        self._calls.start_soon(self._work, call, name="calls")

    async def _work(self, first: Call) -> None:
        """One task: a cancel scope serves all calls until one of them is cancelled."""
        import anyio

        running, waiting, completed, wake = self._running, self._waiting, self._completed, self._wake
        task, call, stretch = _asyncio_task(), first, 0
        at_work = True
        while True:
            limit = anyio.CancelScope()
            try:
                with limit:
                    while not limit.cancel_called:
                        if not at_work:
                            call, at_work = waiting.popleft() if waiting else await self._given(), True
                        running[call] = inf
                        try:
                            if not call.resources.ready:
                                assert self._hosts is not None
                                await call.resources.open(self._hosts)
                            if call.cancelled:
                                break
                            if self._timeout_s is not None:
                                self._limit_time(call, self._timeout_s)
                            call.cancel = limit.cancel
                            waited = await self._drive(call, limit)
                        except Exception as error:  # noqa: BLE001 - raised again by the worker
                            call.outcome.ends_run, waited = error, True
                        call.cancel = None
                        del running[call]
                        at_work = False
                        is_first = not completed
                        completed.append(call)
                        if is_first:  # else the worker has been woken for those before it
                            wake.set()
                        if task is not None and task.cancelling() and not limit.cancel_called:
                            await _forget_cancellation(task)
                        stretch = 0 if waited else stretch + 1
                        if stretch >= _STRETCH:
                            stretch = 0
                            await anyio.lowlevel.checkpoint()
            except anyio.get_cancelled_exc_class():
                # Both the call was cancelled and somebody has cancelled the task that made it.
                if not at_work or self._is_ending() or not limit.cancel_called:
                    raise
            if task is not None and task.cancelling():
                await _forget_cancellation(task)
            if at_work:
                self._fail(call)
                at_work = False

    def _fail(self, call: Call) -> None:
        """A call was cancelled."""
        limit_ms = round((self._timeout_s or 0.0) * 1000)
        self._process.fail_all(call, CallTimedOutError(f"the call took longer than {limit_ms} ms and was cancelled"))
        call.cancel = None
        del self._running[call]
        self._completed.append(call)
        self._wake.set()

    async def _given(self) -> Call:
        """Park until there is a call."""
        import anyio

        parked = _Parked(anyio.Event())
        self._parked.append(parked)
        await parked.given.wait()
        assert parked.call is not None
        return parked.call

    @types.coroutine
    def _drive(self, call: Call, limit: anyio.CancelScope) -> Generator[Any, Any, bool]:
        """Run a call from one async step to the next, in a context of its own. Returns whether it waited for anything."""
        process, run = self._process, self._context.copy().run
        waited = False
        call.awaits = None
        run(process.enter, call)
        while call.pending:
            at = call.awaits = call.pending.pop(0)
            step = at.step
            try:
                if step.names:
                    work = run(step.function, at.argument, **call.resources.given(step.names))
                else:
                    work = run(step.function, at.argument)
                send = work.send
                wants = run(send, None)
                waited = True
                while True:
                    try:
                        answer = yield wants
                    except BaseException as error:  # noqa: BLE001 - thrown into what waits
                        wants = run(work.throw, error)
                    else:
                        wants = run(send, answer)
            except StopIteration as done:
                run(process.go_on, call, at, step.resume, done.value)
            except BaseException as error:
                if self._is_cancelled(error, limit):
                    raise
                run(process.go_on, call, at, step.fail, error)
        call.awaits = None
        return waited

    def _is_cancelled(self, error: BaseException, limit: anyio.CancelScope) -> bool:
        """Whether an exception is the loop's way to end this call; a step may raise the like by itself."""
        import anyio

        if not isinstance(error, anyio.get_cancelled_exc_class()):
            return False
        return limit.cancel_called or self._is_ending()

    def _is_ending(self) -> bool:
        import anyio

        return self._closing or anyio.current_effective_deadline() == -inf

    def _limit_time(self, call: Call, timeout_s: float) -> None:
        import anyio

        del self._running[call]  # as the last one, since its time is over last
        self._running[call] = anyio.current_time() + timeout_s
        self._begun.append(call)
        if self._some is not None:
            self._some.set()

    async def _watch(self, timeout_s: float) -> None:
        """Cancel calls that have had their time: all have the same, so the first to begin is the first to be cancelled."""
        import anyio

        while True:
            if not self._running:
                self._some = anyio.Event()
                await self._some.wait()
                self._some = None
            now = anyio.current_time()
            next_at = now + timeout_s
            for call, at in list(self._running.items()):
                if now < at < inf:
                    next_at = at
                    break
                if at <= now and call.cancel is not None:
                    call.cancel()
            await anyio.sleep_until(next_at)


def _asyncio_task() -> asyncio.Task[Any] | None:
    """The current task where the loop is one of asyncio."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


async def _forget_cancellation(task: asyncio.Task[Any]) -> None:
    """A step has cancelled the task that it runs in, which is to make other calls yet."""
    while task.cancelling():
        task.uncancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        pass
