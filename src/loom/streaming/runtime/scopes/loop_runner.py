"""Runs the calls of one scope of one worker in the event loop of the bridge. `LoopCalls` makes them.

The worker hands calls over in lots, and finds those that have ended in `completed`. The loop is told of a lot only where a task
could take a call of it at once: to wake another thread costs as much as several calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from loom.core.async_bridge import AsyncBridge, AsyncBridgeError
from loom.core.logger import get_logger
from loom.streaming.compiler.scope_model import CompiledDependency
from loom.streaming.runtime.scopes.async_resources import AsyncResources
from loom.streaming.runtime.scopes.call import Call
from loom.streaming.runtime.scopes.call_runner import CallBatch
from loom.streaming.runtime.scopes.inner import InnerProcess
from loom.streaming.runtime.scopes.loop_calls import LoopCalls
from loom.streaming.runtime.stages.stage import Stage

if TYPE_CHECKING:
    import anyio
    from anyio.abc import TaskGroup

__all__ = ["LoopRunner"]

_log = get_logger(__name__)

#: seconds between two looks at the limit of a stop while calls are being closed
_SLICE = 0.1
#: How often the loop is let go round until no call has ended: a step that only passes its time in the loop takes a few rounds.
_ROUNDS = 32


class LoopRunner:
    """The calls of one scope in an event loop; the methods are the worker's, what is async or starts with `_` the loop's."""

    def __init__(
        self,
        stage: Stage,
        step_id: str,
        dependencies: tuple[CompiledDependency, ...],
        process: InnerProcess,
        *,
        limit: int,
        timeout_ms: int | None,
        per_batch: bool,
    ) -> None:
        self.completed: deque[Call | CallBatch] = deque()
        self.begun: deque[Call] = deque()
        self._stage = stage
        self._wake = stage.room.wake
        self._step_id = step_id
        self._dependencies = dependencies
        timeout_s = None if timeout_ms is None else timeout_ms / 1000
        self._calls = LoopCalls(process, limit, timeout_s, self.begun, self.completed, self._wake, self._look)
        self._inbox: deque[Callable[[], None]] = deque()
        #: a callback is on its way that calls `_look`
        self._called = False
        self._bridge: AsyncBridge | None = None
        self._served: Future[None] | None = None
        #: what the task of the scope has to start, and what tells it so
        self._to_start: deque[Callable[[], object]] = deque()
        self._tasks: TaskGroup | None = None
        self._arrived: anyio.Event | None = None
        self._closing = False
        self._reason: BaseException | None = None
        self._worker_resources: list[AsyncResources] = []
        self._per_batch = per_batch

    def resources(self) -> AsyncResources:
        made = AsyncResources(self._step_id, self._dependencies)
        if not self._per_batch:
            self._worker_resources.append(made)
        return made

    def submit(self, calls: Sequence[Call]) -> None:
        if self._calls.add(calls):
            self._wake_loop()

    def cancel(self, call: Call) -> None:
        self._tell(partial(self._cancel, call))

    def close_batch(self, batch: CallBatch) -> None:
        self._tell(partial(self._close_batch, batch))

    def expect_no_more(self) -> None:
        self._calls.is_ending = True

    def settle(self) -> None:
        bridge = self._bridge
        if bridge is None:
            return
        while True:
            before = len(self.completed)
            bridge.run(_go_round)
            if len(self.completed) == before:
                return

    def close(self) -> None:
        """End it: cancel calls in progress, close the resources. Waits as long as a stop may take."""
        bridge, served = self._bridge, self._served
        if bridge is None or served is None:
            return
        lifetime = self._stage.services.lifetime
        self._reason = lifetime.fault
        try:
            self._closing = True
            bridge.soon(self._look)
        except AsyncBridgeError:
            return  # the loop has ended, and everything in it
        began = monotonic()
        while True:
            try:
                served.result(_SLICE)
            except TimeoutError:
                left = lifetime.left_s()
                if left is not None and monotonic() - began >= left:
                    self._abandon()
                    return
                continue
            except CancelledError:
                pass  # the bridge was shut down beneath it
            return

    def _abandon(self) -> None:
        place = self._stage.place
        named = [str(place(call.items[0][1])) for call in self._calls.unfinished()]
        _log.warning("async_calls_abandoned", scope=self._step_id, calls=len(named), records=named[:10])

    def _tell(self, what: Callable[[], None]) -> None:
        self._inbox.append(what)
        self._wake_loop()

    def _wake_loop(self) -> None:
        """Have `_look` called in the loop; the first time, start the task of the scope, which calls it."""
        if self._bridge is None:
            self._bridge = bridge = self._stage.services.bridge
            self._stage.hold(self, f"calls of {self._step_id}", self.close)
            self._called = True
            self._served = bridge.start(self._serve, name=f"calls of {self._step_id}")
        elif not self._called:
            self._called = True
            self._bridge.soon(self._look)

    # ---- in the loop

    async def _serve(self) -> None:
        import anyio

        async with anyio.create_task_group() as hosts:
            async with anyio.create_task_group() as self._tasks:
                self._calls.open(self._tasks, hosts)
                try:
                    while not self._closing:
                        self._arrived = anyio.Event()
                        self._look()
                        while self._to_start:
                            self._to_start.popleft()()
                        await self._arrived.wait()
                finally:
                    await self._calls.close()
                self._tasks.cancel_scope.cancel()
            for resources in reversed(self._worker_resources):
                error = await resources.close(self._reason)
                if error is not None:
                    _log.warning("close_failed", what=f"resources of {self._step_id}", error=str(error))
            # Of batches that were not committed.
            hosts.cancel_scope.cancel()

    def _look(self) -> None:
        """Empty the inbox, and deal calls. Called in the loop, also outside of any task, where nothing can be started."""
        if self._arrived is None:
            return  # the task of the scope is about to look
        self._called = False
        inbox = self._inbox
        while inbox:
            inbox.popleft()()
        self._to_start.extend(self._calls.deal())
        if self._to_start or self._closing:
            self._arrived.set()

    def _cancel(self, call: Call) -> None:
        if call.maker is not None:
            call.maker.cancel()

    def _close_batch(self, batch: CallBatch) -> None:
        assert self._tasks is not None
        self._to_start.append(partial(self._tasks.start_soon, self._close_resources, batch))

    async def _close_resources(self, batch: CallBatch) -> None:
        batch.error = await batch.resources.close()
        self.completed.append(batch)
        self._wake.set()


async def _go_round() -> None:
    import anyio.lowlevel

    for _ in range(_ROUNDS):
        await anyio.lowlevel.checkpoint()
