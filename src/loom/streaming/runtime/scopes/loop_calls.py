"""The calls of one scope inside the event loop: at most so many at once, in tasks that make one call after the other. Hot path.

A task, a cancel scope and their ends cost more than a call that only waits, so tasks stay: one that has nothing to do is parked
and is given the next call, until no more are expected. Each call has a context (`contextvars`) of its own.
"""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextvars import copy_context
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from loom.streaming.runtime.scopes.call import Call, CallTimedOutError
from loom.streaming.runtime.scopes.call_tasks import CallTasks, Signal
from loom.streaming.runtime.scopes.inner import InnerProcess
from loom.streaming.runtime.waker import Waker

if TYPE_CHECKING:
    import anyio
    from anyio.abc import TaskGroup

__all__ = ["LoopCalls"]

#: Seconds in which calls that have ended are gathered while others wait for their places: the worker has nothing to hand over
#: then, and each time that it is woken costs as much as several calls.
_GATHER_S = 0.005
#: After so many calls in a row that waited for nothing, a task lets others go first.
_STRETCH = 32


class _Worker:
    """A task that makes calls."""

    __slots__ = ("call", "given", "is_cancelled", "limit", "task")

    def __init__(self, call: Call) -> None:
        #: the call in progress; `None` while there is none
        self.call: Call | None = call
        #: the scope of its calls
        self.limit: anyio.CancelScope | None = None
        #: that scope was cancelled here
        self.is_cancelled = False
        #: set when a parked worker has a call, or is to end
        self.given: Signal | None = None
        #: where the loop is one of asyncio
        self.task: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        """Cancel the call in progress, or the wait for one."""
        self.is_cancelled = True
        if self.limit is not None:
            self.limit.cancel()

    @property
    def is_at_work(self) -> bool:
        """Whether the call has begun."""
        return self.call is not None and self.call.maker is not None


class LoopCalls:
    """Makes calls. Used inside the event loop only.

    Args:
        process: the inner process of the scope.
        limit: the most calls at once.
        timeout_s: the longest that one may take, in seconds; `None` means no limit.
        begun: is given each call that begins, where there is such a limit.
        completed: is given each call that has ended.
        wake: set then.
        deal_again: calls `deal`, for calls that came while a task found none.
    """

    def __init__(
        self,
        process: InnerProcess,
        limit: int,
        timeout_s: float | None,
        begun: deque[Call],
        completed: deque[Any],
        wake: Waker,
        deal_again: Callable[[], None],
    ) -> None:
        self._process = process
        # Made once, and not by each task: one more object for each call that waits.
        self._enter, self._go_on = process.enter, process.go_on
        self._limit = limit
        self._timeout_s = timeout_s
        self._begun = begun
        self._completed = completed
        self._wake = wake
        self._deal_again = deal_again
        #: handed over, and not begun yet; appended to by the thread of the worker
        self._waiting: deque[Call] = deque()
        #: where there is a time limit: in progress, in the order of the times at which they have to be done
        self._deadlines: dict[Call, float] = {}
        self._workers: dict[_Worker, None] = {}
        self._parked: list[_Worker] = []
        #: set when a call begins while none is in progress; only where there is a time limit
        self._some: anyio.Event | None = None
        self._closing = False
        #: Hardly any more calls come, so a task that has nothing to do ends. Set from any thread.
        self.is_ending = False
        self._new_context = copy_context().copy
        self._tasks: CallTasks | None = None
        self._hosts: TaskGroup | None = None
        self._make_limit: Callable[[], anyio.CancelScope] | None = None

    def open(self, calls: TaskGroup, hosts: TaskGroup) -> None:
        """Called by the task that owns these groups: one for the calls, and one for their resources."""
        import anyio

        self._tasks, self._hosts = CallTasks(calls), hosts
        # The class for this loop, so that it is not looked up for each task.
        self._make_limit = type(anyio.CancelScope())
        self._new_context = copy_context().copy
        if self._timeout_s is not None:
            calls.start_soon(self._watch, self._timeout_s, name="time limits of calls")

    async def close(self) -> None:
        """Cancel every call, and return when all have ended. Called by the task that owns the groups."""
        self._closing = True
        for worker in self._workers:
            if worker.given is not None:
                worker.given.set()
            else:
                worker.cancel()
        if self._tasks is not None:
            await self._tasks.ended()

    def unfinished(self) -> list[Call]:
        """The calls that have not ended. May be called from any thread."""
        return [*(call for worker in list(self._workers) if (call := worker.call) is not None), *list(self._waiting)]

    def add(self, calls: Sequence[Call]) -> bool:
        """Let calls wait for their turn. Called by any thread.

        Returns:
            Whether a task could take one of them at once, so that `deal` is to be called in the loop. Else a task does as soon
            as it has made its call: it looks for others once more after it has said that it has none.
        """
        self._waiting.extend(calls)
        return bool(self._parked) or len(self._workers) < self._limit

    def deal(self) -> list[Callable[[], None]]:
        """Hand calls that wait to tasks that have none.

        Returns:
            What the task that owns the groups has to call, to start tasks. Their places are taken.
        """
        waiting, parked, workers = self._waiting, self._parked, self._workers
        new: list[Callable[[], None]] = []
        while waiting and (parked or len(workers) < self._limit):
            call = waiting.popleft()
            if parked:
                worker = parked.pop()
                worker.call = call
                assert worker.given is not None
                worker.given.set()
            else:
                worker = _Worker(call)
                workers[worker] = None
                new.append(partial(self._start, worker))
        return new

    def _start(self, worker: _Worker) -> None:
        assert self._tasks is not None
        worker.task = self._tasks.start(self._work, worker)

    async def _work(self, worker: _Worker) -> None:
        """One task: a cancel scope serves all calls until one of them is cancelled."""
        import anyio

        tasks, make_limit, task = self._tasks, self._make_limit, worker.task
        assert tasks is not None
        assert make_limit is not None
        try:
            while True:
                worker.is_cancelled = False
                worker.limit = make_limit()
                try:
                    with worker.limit:
                        await self._make_calls(worker, task)
                except anyio.get_cancelled_exc_class():
                    # Somebody has cancelled the task: while it was parked, or while it made a call that was cancelled too.
                    if self._is_cancelling() or (worker.is_at_work and not worker.is_cancelled):
                        raise
                if self._closing or (self.is_ending and worker.call is None and not self._waiting):
                    return
                if task is not None and task.cancelling():
                    await _forget_cancellation(task)
                if worker.call is not None and (worker.is_cancelled or worker.call.cancelled):
                    self._fail(worker, worker.call)
        except Exception as fault:
            if task is None:
                raise
            tasks.failed(fault)
        finally:
            if not self._closing:
                del self._workers[worker]
                if self._waiting:
                    self._deal_again()
            if task is not None:
                tasks.left(task)

    @types.coroutine
    def _make_calls(self, worker: _Worker, task: asyncio.Task[Any] | None) -> Generator[Any, Any, None]:
        """Make one call after the other, each in a context of its own, until one is cancelled or the scope is closed.

        A coroutine by hand: what a step awaits is passed on to the event loop here, and its answer into the context of the call.
        Nothing else is between the two, and little is kept for a call that waits: after a wait all of it has to be fetched from
        memory again, which takes longer than what is done with it.
        """
        waiting, completed, wake, new_context = self._waiting, self._completed, self._wake, self._new_context
        enter, go_on, timeout_s, stretch = self._enter, self._go_on, self._timeout_s, 0
        assert self._tasks is not None
        later = self._tasks.later
        while not (worker.is_cancelled or self._closing):
            call = worker.call
            if call is None:
                if waiting:
                    call = worker.call = waiting.popleft()
                    if completed and not waiting:
                        wake.set()
                elif self.is_ending:
                    return
                else:
                    yield from self._park(worker).__await__()
                    continue
            stretch += 1
            try:
                if not call.resources.ready:
                    assert self._hosts is not None
                    yield from call.resources.open(self._hosts).__await__()
                if call.cancelled:
                    return
                if timeout_s is not None:
                    self._limit_time(call, timeout_s)
                call.maker = worker
                context = new_context()
                context.run(enter, call)
                while (pending := call.pending) is not None:
                    at = call.awaits = pending.pop(0)
                    if not pending:
                        call.pending = pending = None
                    step = at.step
                    try:
                        made = (
                            step.function(at.argument, **call.resources.given(step.names))
                            if step.names
                            else step.function(at.argument)
                        )
                        wants = context.run(made.send, None)
                        stretch = 0
                        while True:
                            try:
                                answer = yield wants
                            except BaseException as error:  # noqa: BLE001 - thrown into what waits
                                wants = context.run(made.throw, error)
                            else:
                                wants = context.run(made.send, answer)
                    except StopIteration as end:
                        context.run(go_on, call, at, step.resume, end.value)
                    except BaseException as error:
                        if self._is_cancelled(error, worker):
                            raise
                        context.run(go_on, call, at, step.fail, error)
                call.awaits = None
            except Exception as error:  # noqa: BLE001 - raised again by the worker
                call.ends_run, stretch = error, 0
            call.maker = worker.call = None
            if timeout_s is not None:
                self._deadlines.pop(call, None)
            completed.append(call)
            if len(completed) == 1:  # else the worker has been woken for those before it, or soon is
                if waiting and later is not None:
                    later(_GATHER_S, self._wake_if_completed)
                else:
                    wake.set()
            if task is not None and task.cancelling() and not worker.is_cancelled:
                yield from _forget_cancellation(task).__await__()
            if stretch >= _STRETCH:
                stretch = 0
                yield from _checkpoint().__await__()

    def _wake_if_completed(self) -> None:
        if self._completed:
            self._wake.set()

    def _fail(self, worker: _Worker, call: Call) -> None:
        """A call was cancelled."""
        limit_ms = round((self._timeout_s or 0.0) * 1000)
        self._process.fail_all(call, CallTimedOutError(f"the call took longer than {limit_ms} ms and was cancelled"))
        call.maker = worker.call = None
        self._deadlines.pop(call, None)
        self._completed.append(call)
        self._wake.set()

    async def _park(self, worker: _Worker) -> None:
        """Wait until there is a call, or the scope is closed."""
        assert self._tasks is not None
        worker.given = given = self._tasks.signal()
        self._parked.append(worker)
        if self._waiting:
            self._deal_again()
        try:
            await given.wait()
        except BaseException:
            if worker in self._parked:
                self._parked.remove(worker)
            raise
        finally:
            worker.given = None

    def _is_cancelled(self, error: BaseException, worker: _Worker) -> bool:
        """Whether an exception is the loop's way to end this call; a step may raise the like by itself."""
        import anyio

        if not isinstance(error, anyio.get_cancelled_exc_class()):
            return False
        return worker.is_cancelled or self._is_cancelling()

    def _is_cancelling(self) -> bool:
        import anyio

        return self._closing or anyio.current_effective_deadline() == -inf

    def _limit_time(self, call: Call, timeout_s: float) -> None:
        import anyio

        self._deadlines[call] = anyio.current_time() + timeout_s
        self._begun.append(call)
        if self._some is not None:
            self._some.set()

    async def _watch(self, timeout_s: float) -> None:
        """Cancel calls that have had their time: all have the same, so the first to begin is the first to be cancelled."""
        import anyio

        while True:
            if not self._deadlines:
                self._some = anyio.Event()
                await self._some.wait()
                self._some = None
            now = anyio.current_time()
            next_at = now + timeout_s
            for call, at in list(self._deadlines.items()):
                if at > now:
                    next_at = at
                    break
                if at <= now and call.maker is not None:
                    call.maker.cancel()
            await anyio.sleep_until(next_at)


async def _forget_cancellation(task: asyncio.Task[Any]) -> None:
    """A step has cancelled the task that it runs in, which is to make other calls yet."""
    while task.cancelling():
        task.uncancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        pass


async def _checkpoint() -> None:
    import anyio.lowlevel

    await anyio.lowlevel.checkpoint()
