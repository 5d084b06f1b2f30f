"""Runs the calls of one scope of one worker in threads, so that blocking steps wait together. Hot path: `_run`.

Each call has a copy of the inner process for itself while it runs. The threads are daemons, because a step that blocks cannot be
cancelled and must not keep the process alive.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from queue import SimpleQueue
from time import monotonic

from loom.core.logger import get_logger
from loom.streaming.compiler.scope_model import CompiledDependency
from loom.streaming.runtime.run_errors import ResourceError
from loom.streaming.runtime.scopes.call import Call
from loom.streaming.runtime.scopes.call_runner import CallBatch
from loom.streaming.runtime.scopes.inner import InnerProcess
from loom.streaming.runtime.scopes.resources import Resources
from loom.streaming.runtime.stages.stage import Stage

__all__ = ["ThreadRunner"]

_log = get_logger(__name__)

#: seconds between two looks at the limit of a stop
_SLICE = 0.1


class ThreadRunner:
    """The calls of one scope in threads, one for each of `processes`, started when they are needed."""

    def __init__(
        self,
        stage: Stage,
        step_id: str,
        dependencies: tuple[CompiledDependency, ...],
        processes: Sequence[InnerProcess],
        *,
        per_batch: bool,
    ) -> None:
        self.completed: deque[Call | CallBatch] = deque()
        self.begun: deque[Call] = deque()
        self._stage = stage
        self._wake = stage.room.wake
        self._step_id = step_id
        self._dependencies = dependencies
        self._per_batch = per_batch
        #: the copies that no call uses; a call takes one when it is submitted, so there is always one
        self._free = deque(processes)
        self._queue: SimpleQueue[tuple[InnerProcess, Call] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._running: set[Call] = set()
        self._changed = threading.Condition()
        self._held = False

    def resources(self) -> Resources:
        return Resources(self._step_id, self._dependencies, None if self._per_batch else self._hold_resources)

    def _hold_resources(self, resources: Resources) -> None:
        lifetime = self._stage.services.lifetime
        self._stage.hold(resources, f"resources of {self._step_id}", lambda: resources.close(lifetime.fault))

    def submit(self, calls: Sequence[Call]) -> None:
        for call in calls:
            # Here, and not in the thread: resources are opened and closed by the thread of the worker.
            call.resources.open()
            if not self._held:
                self._held = True
                self._stage.hold(self, f"calls of {self._step_id}", self.close)
            with self._changed:
                self._running.add(call)
                if len(self._threads) < len(self._running):
                    self._start_thread()
            self._queue.put((self._free.popleft(), call))

    def cancel(self, call: Call) -> None:
        """A blocking call cannot be cancelled; what comes of it is dropped by the scope."""

    def close_batch(self, batch: CallBatch) -> None:
        try:
            batch.resources.close()
        except ResourceError as error:
            batch.error = error
        self.completed.append(batch)
        self._wake.set()

    def expect_no_more(self) -> None:
        """Threads end when the runner is closed."""

    def settle(self) -> None:
        """A blocking call ends in its own time."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running)

    def close(self) -> None:
        """End the threads. Waits for calls in progress as long as a stop may take."""
        left, began = self._stage.services.lifetime.left_s(), monotonic()
        with self._changed:
            while self._running:
                self._changed.wait(_SLICE)
                if self._running and left is not None and monotonic() - began >= left:
                    named = [str(self._stage.place(call.items[0][1])) for call in self._running]
                    _log.warning("async_calls_abandoned", scope=self._step_id, calls=len(named), records=named[:10])
                    break
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(0 if self._running else None)

    def _start_thread(self) -> None:
        name = f"loom-{self._step_id}-{len(self._threads)}"
        thread = threading.Thread(target=self._work, daemon=True, name=name)
        self._threads.append(thread)
        thread.start()

    # ---- in the threads

    def _work(self) -> None:
        while (found := self._queue.get()) is not None:
            self._run(*found)

    def _run(self, process: InnerProcess, call: Call) -> None:
        try:
            process.enter(call)
        except Exception as error:  # noqa: BLE001 - raised again by the worker
            call.ends_run = error
        self._free.append(process)
        with self._changed:
            self._running.discard(call)
            self.completed.append(call)
            self._changed.notify_all()
        self._wake.set()
