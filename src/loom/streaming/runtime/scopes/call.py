"""One call of a scope's inner process, and what came of it. Hot path: one of each per record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from loom.streaming.errors import LoomStreamingError
from loom.streaming.runtime.stages.node_input import ChildIndex, Indexes, Item
from loom.streaming.runtime.stages.reorder_buffer import InFlightInput

__all__ = ["Call", "CallTimedOutError", "Exit", "Outcome", "Suspension"]


class CallTimedOutError(LoomStreamingError, TimeoutError):
    """The call of a record took longer than `task_timeout_ms` and was cancelled. Never raised: it is that record's error."""


class Exit(NamedTuple):
    """Where something left the inner process, to be repeated on the worker's thread: a result, or an error."""

    #: the child indexes of the stage, and what they were
    cells: tuple[ChildIndex, ...]
    indexes: Indexes
    function: Callable[..., None]
    arguments: tuple[Any, ...]


class Outcome:
    """What came of one attempt of a call. Nothing of it has left the scope yet, so an attempt can be repeated."""

    __slots__ = ("drops", "ends_run", "errors", "exits")

    def __init__(self) -> None:
        #: in the order in which they were made
        self.exits: list[Exit] = []
        #: what steps raised, each with an exit of its own
        self.errors: list[BaseException] = []
        #: the step ids of results that were dropped
        self.drops: list[str] = []
        #: a fault that is no record's
        self.ends_run: BaseException | None = None


class Suspension(NamedTuple):
    """An async step that waits to be run, with what continues when it is done."""

    function: Callable[..., Any]
    #: the dependencies that it takes
    names: tuple[str, ...]
    argument: Any
    #: (result, *state) and (error, *state)
    resume: Callable[..., None]
    fail: Callable[..., None]
    state: tuple[Any, ...]
    cells: tuple[ChildIndex, ...]
    indexes: Indexes


class Call:
    """A record, or a batch of them, on its way through the inner process."""

    __slots__ = (
        "attempt",
        "awaits",
        "batch",
        "blocked_by",
        "cancel",
        "cancelled",
        "deadline",
        "done",
        "flights",
        "is_batch",
        "items",
        "keys",
        "lost",
        "marks",
        "outcome",
        "pending",
        "resources",
        "started_at",
    )

    def __init__(
        self, items: Sequence[Item], flights: Sequence[InFlightInput], keys: tuple[Any, ...], *, is_batch: bool
    ) -> None:
        self.items = items
        self.is_batch = is_batch
        #: of its inputs that are kept for it
        self.flights = flights
        #: the ids of inputs whose partitions have become another's
        self.lost: set[int] = set()
        #: the keys that no other call may have in progress
        self.keys = keys
        #: how many of its keys are taken by earlier calls
        self.blocked_by = 0
        #: which attempt this is, from 1 on; set by the scope when it starts the call
        self.attempt = 0
        #: when it was started, and when it has to be done, in seconds of the worker's clock
        self.started_at = 0.0
        self.deadline: float | None = None
        self.outcome = Outcome()
        #: async steps that are to be run next, the first one first
        self.pending: list[Suspension] = []
        #: the step that it awaits
        self.awaits: Suspension | None = None
        #: cancels the attempt in progress
        self.cancel: Callable[[], None] | None = None
        self.cancelled = False
        #: the attempt in progress has ended
        self.done = False
        #: what its steps are given
        self.resources: Any = None
        #: the batch whose resources it uses; `None` for a scope of the worker
        self.batch: Any = None
        #: its entries among the offsets that are kept
        self.marks: list[list[Any]] = []
