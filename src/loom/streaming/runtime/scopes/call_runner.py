"""What a scope asks of whatever makes its calls elsewhere: an event loop, or threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from loom.streaming.runtime.scopes.call import Call

__all__ = ["CallBatch", "CallRunner"]


class CallBatch:
    """The calls of one batch, which share resources; they are committed together when these have been closed."""

    __slots__ = ("calls", "error", "is_closed", "left", "resources", "sealed")

    def __init__(self, resources: Any) -> None:
        self.resources = resources
        self.calls: list[Call] = []
        #: how many of them are not done
        self.left = 0
        #: no more calls are added
        self.sealed = False
        #: its resources are
        self.is_closed = False
        #: what went wrong when the resources were closed
        self.error: BaseException | None = None


class CallRunner(Protocol):
    """Runs calls elsewhere. Its methods are called on the worker's thread."""

    #: attempts that have ended, and batches whose resources have been closed
    completed: deque[Call | CallBatch]
    #: attempts that have begun, where calls have a time limit
    begun: deque[Call]

    def submit(self, calls: Sequence[Call]) -> None:
        """Start an attempt of each, in this order, or as soon as the runner has a place for it."""

    def cancel(self, call: Call) -> None:
        """The call has had its time; its attempt ends soon, as an error, if it can be cancelled."""

    def resources(self) -> Any:
        """What the calls of the worker, or of one batch, share; not opened yet."""

    def close_batch(self, batch: CallBatch) -> None:
        """Every call of a batch is done: close its resources, then complete it."""

    def expect_no_more(self) -> None:
        """The stream ends: hardly any more attempts come, so what is kept ready for them may be let go."""

    def settle(self) -> None:
        """Let the calls go on as far as they can without waiting for time or for others."""
