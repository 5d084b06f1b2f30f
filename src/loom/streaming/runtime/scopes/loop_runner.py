"""Runs the calls of one scope of one worker in the event loop of the bridge. Hot path: `_run` is a task of each call.

The worker hands calls over in lots, with one callback for each lot, and finds those that have ended in `completed`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from time import monotonic
from typing import TYPE_CHECKING

from loom.core.async_bridge import AsyncBridge, AsyncBridgeError
from loom.core.logger import get_logger
from loom.streaming.compiler.scope_model import CompiledDependency
from loom.streaming.runtime.scopes.async_resources import AsyncResources
from loom.streaming.runtime.scopes.call import Call, CallTimedOutError
from loom.streaming.runtime.scopes.calling import CallBatch
from loom.streaming.runtime.scopes.inner import InnerProcess
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
        timeout_ms: int | None,
        *,
        per_batch: bool,
    ) -> None:
        self.completed: deque[Call | CallBatch] = deque()
        #: set by who builds the scope
        self.process: InnerProcess | None = None
        self._stage = stage
        self._wake = stage.room.wake
        self._step_id = step_id
        self._dependencies = dependencies
        self._timeout_ms = timeout_ms
        self._inbox: deque[Callable[[], None]] = deque()
        #: a callback is on its way that empties the inbox
        self._called = False
        self._bridge: AsyncBridge | None = None
        self._served: Future[None] | None = None
        self._calls: TaskGroup | None = None
        self._hosts: TaskGroup | None = None
        self._arrived: anyio.Event | None = None
        self._closing = False
        self._reason: BaseException | None = None
        self._running: set[Call] = set()
        self._worker_resources: list[AsyncResources] = []
        self._per_batch = per_batch

    def resources(self) -> AsyncResources:
        made = AsyncResources(self._step_id, self._dependencies)
        if not self._per_batch:
            self._worker_resources.append(made)
        return made

    def submit(self, calls: Sequence[Call]) -> None:
        self._tell(lambda: self._start(calls))

    def cancel(self, call: Call) -> None:
        self._tell(lambda: self._cancel(call))

    def close_batch(self, batch: CallBatch) -> None:
        self._tell(lambda: self._spawn_close(batch))

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
        named = [str(place(call.items[0][1])) for call in list(self._running)]
        _log.warning("async_calls_abandoned", scope=self._step_id, calls=len(named), records=named[:10])

    def _tell(self, what: Callable[[], None]) -> None:
        self._inbox.append(what)
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

        async with anyio.create_task_group() as self._hosts:
            async with anyio.create_task_group() as self._calls:
                while not self._closing:
                    self._arrived = arrived = anyio.Event()
                    self._called = False
                    inbox = self._inbox
                    while inbox:
                        inbox.popleft()()
                    await arrived.wait()
                self._calls.cancel_scope.cancel()
            for resources in reversed(self._worker_resources):
                error = await resources.close(self._reason)
                if error is not None:
                    _log.warning("close_failed", what=f"resources of {self._step_id}", error=str(error))
            # Of batches that were not committed.
            self._hosts.cancel_scope.cancel()

    def _look(self) -> None:
        """Called in the loop, outside of any task: something is in the inbox."""
        if self._arrived is not None:
            self._arrived.set()

    def _start(self, calls: Sequence[Call]) -> None:
        assert self._calls is not None
        for call in calls:
            self._running.add(call)
            self._calls.start_soon(self._run, call)

    def _cancel(self, call: Call) -> None:
        if call.cancel is not None:
            call.cancel()

    def _spawn_close(self, batch: CallBatch) -> None:
        assert self._calls is not None
        self._calls.start_soon(self._close_resources, batch)

    async def _close_resources(self, batch: CallBatch) -> None:
        batch.error = await batch.resources.close()
        self._complete(batch)

    def _complete(self, what: Call | CallBatch) -> None:
        self.completed.append(what)
        self._wake.set()

    async def _run(self, call: Call) -> None:
        import anyio

        process, timeout_ms = self.process, self._timeout_ms
        assert process is not None
        try:
            if not call.resources.ready:
                assert self._hosts is not None
                await call.resources.open(self._hosts)
            with anyio.CancelScope() as limit:
                if timeout_ms is not None:
                    limit.deadline = anyio.current_time() + timeout_ms / 1000
                call.cancel = limit.cancel
                if call.cancelled:
                    limit.cancel()
                await self._drive(process, call, limit)
            call.cancel = None
            if limit.cancelled_caught:
                process.fail_all(
                    call, CallTimedOutError(f"the call took longer than {timeout_ms} ms and was cancelled")
                )
        except Exception as error:  # noqa: BLE001 - raised again by the worker
            call.outcome.ends_run = error
        self._running.discard(call)
        self._complete(call)

    async def _drive(self, process: InnerProcess, call: Call, limit: anyio.CancelScope) -> None:
        """Run a call from one async step to the next."""
        process.enter(call)
        pending = call.pending
        while pending:
            step = call.awaits = pending.pop(0)
            try:
                if step.names:
                    result = await step.function(step.argument, **call.resources.given(step.names))
                else:
                    result = await step.function(step.argument)
            except BaseException as error:
                if self._is_cancelled(error, limit):
                    raise
                process.failed(call, step, error)
            else:
                process.resume(call, step, result)
            pending = call.pending
        call.awaits = None

    def _is_cancelled(self, error: BaseException, limit: anyio.CancelScope) -> bool:
        """Whether an exception is the loop's way to end this call; a step may raise the like by itself."""
        import anyio

        if not isinstance(error, anyio.get_cancelled_exc_class()):
            return False
        return limit.cancel_called or self._closing or anyio.current_effective_deadline() == float("-inf")


async def _go_round() -> None:
    import anyio.lowlevel

    for _ in range(_ROUNDS):
        await anyio.lowlevel.checkpoint()
