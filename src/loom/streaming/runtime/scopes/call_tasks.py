"""The tasks that make the calls of a scope. On asyncio they are its own: a task group spends several times as much on each.

Used inside the event loop only, by `loop_calls.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["CallTasks", "Signal"]

T = TypeVar("T")


class Signal(Protocol):
    """Is set once; one task waits for it."""

    def set(self) -> object:
        """Let the task go on."""

    def wait(self) -> Awaitable[object]:
        """Returns when it is set."""


class CallTasks:
    """Starts tasks, and waits for their ends.

    Args:
        group: where there is no better way it starts them. It is cancelled when a task fails, and raises what it failed with.
    """

    def __init__(self, group: TaskGroup) -> None:
        self._group = group
        self._loop = _asyncio_loop()
        self._context = copy_context()
        #: calls something after some seconds; `None` where that needs a task
        self.later: Callable[[float, Callable[[], None]], object] | None = self._loop.call_later if self._loop else None
        #: where the loop is one of asyncio: those that have not told that they end, and what one of them failed with
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault: BaseException | None = None

    def start(self, work: Callable[[T], Coroutine[Any, Any, None]], what: T) -> asyncio.Task[None] | None:
        """Start a task. Called by the task that owns the group.

        Returns:
            Where the loop is one of asyncio, the task, which has not begun. It has to call `left` when it ends, and `failed` in
            place of raising an exception: callbacks of its end would cost as much again.
        """
        if self._loop is None:
            self._group.start_soon(work, what, name="calls")
            return None
        task = self._loop.create_task(work(what), name="calls", context=self._context.copy())
        self._tasks.add(task)
        return task

    def left(self, task: asyncio.Task[None]) -> None:
        """A task is about to end."""
        self._tasks.discard(task)

    def failed(self, fault: Exception) -> None:
        """A task is about to end because of a fault."""
        self._fault = self._fault or fault
        self._group.cancel_scope.cancel()

    def signal(self) -> Signal:
        """A signal that is not set."""
        if self._loop is not None:
            return _Future(self._loop)
        import anyio

        return anyio.Event()

    async def ended(self) -> None:
        """Returns when every task has ended, however long that takes: a task group does so as well."""
        import anyio

        # One that was cancelled before it began has told nothing.
        tasks = [task for task in self._tasks if not task.done()]
        if tasks:
            with anyio.CancelScope(shield=True):
                await asyncio.wait(tasks)
        if self._fault is not None:
            raise self._fault


class _Future:
    """A future of asyncio as a signal: made in a fraction of the time of an event."""

    __slots__ = ("_future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future = loop.create_future()

    def set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def wait(self) -> Awaitable[None]:
        return self._future


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """The running loop where it is one of asyncio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
