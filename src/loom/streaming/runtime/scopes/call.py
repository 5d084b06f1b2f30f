"""One call of a scope's inner process, and what came of it. Hot path: one of each per record.

These are structs because one is made in a third of the time that a class with slots takes. The garbage collector does not know
of them, so nothing may lead from one back to itself: an error does so by its traceback until `drop_outcome`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from loom.streaming.errors import LoomStreamingError
from loom.streaming.runtime.stages.node_input import ChildIndex, Indexes, Item
from loom.streaming.runtime.stages.reorder_buffer import InFlightInput

__all__ = ["AsyncStep", "Call", "CallMaker", "CallTimedOutError", "Exit", "Outcome", "Suspension", "exits_left"]


class CallTimedOutError(LoomStreamingError, TimeoutError):
    """The call of a record took longer than `task_timeout_ms` and was cancelled. Never raised: it is that record's error."""


#: Where something left the inner process, to be repeated on the worker's thread (a result, or an error): the child indexes of
#: the stage and what they were, the function and its arguments.
Exit: TypeAlias = tuple[tuple[ChildIndex, ...], Indexes, Callable[..., None], tuple[Any, ...]]


class Outcome(msgspec.Struct, eq=False, gc=False):
    """What came of one attempt of a call. Nothing of it has left the scope yet, so an attempt can be repeated."""

    #: in the order in which they were made
    exits: list[Exit] = []
    #: what steps raised, each with an exit of its own
    errors: tuple[BaseException, ...] = ()
    #: the step ids of results that were dropped
    drops: tuple[str, ...] = ()


class AsyncStep(msgspec.Struct, eq=False):
    """An async step of an inner process, with what continues when it is done."""

    #: makes a coroutine
    function: Callable[..., Coroutine[Any, Any, Any]]
    #: the dependencies that it takes
    names: tuple[str, ...]
    #: (result, *state) and (error, *state)
    resume: Callable[..., None]
    fail: Callable[..., None]
    cells: tuple[ChildIndex, ...]


class Suspension(msgspec.Struct, eq=False, gc=False):
    """An async step that waits to be run for a call."""

    step: AsyncStep
    argument: Any
    state: tuple[Any, ...]
    indexes: Indexes


class CallMaker(Protocol):
    """Makes one call at a time."""

    def cancel(self) -> None:
        """Cancel the call in progress."""


class Call(msgspec.Struct, eq=False, gc=False):
    """A record, or a batch of them, on its way through the inner process."""

    items: Sequence[Item]
    #: of its inputs that are kept for it
    flights: Sequence[InFlightInput]
    #: the keys that no other call may have in progress
    keys: tuple[Any, ...] = ()
    is_batch: bool = False
    #: what its steps are given
    resources: Any = None
    #: the batch whose resources it uses; `None` for a scope of the worker
    batch: Any = None
    #: the ids of inputs whose partitions have become another's
    lost: frozenset[int] = frozenset()
    #: how many of its keys are taken by earlier calls
    blocked_by: int = 0
    #: which attempt this is, from 1 on; set by the scope when it hands the call over
    attempt: int = 0
    #: when it has to be done, in seconds of the worker's clock
    deadline: float = 0.0
    #: what has come of the attempt in progress, or of the last one, if anything has; see `noted`
    outcome: Outcome | None = None
    #: a fault that is no record's
    ends_run: BaseException | None = None
    #: async steps that are to be run next, the first one first; `None` where there is none
    pending: list[Suspension] | None = None
    #: the step that it awaits
    awaits: Suspension | None = None
    #: makes the attempt in progress
    maker: CallMaker | None = None
    cancelled: bool = False
    #: the attempt in progress has ended
    done: bool = False
    #: its offsets are kept
    is_kept: bool = False

    @property
    def errors(self) -> tuple[BaseException, ...]:
        """What steps raised in the attempt in progress, or in the last one."""
        return self.outcome.errors if self.outcome is not None else ()

    def noted(self) -> Outcome:
        """Its outcome, to be added to. Most calls wait long before they have one, and what waits is kept small."""
        outcome = self.outcome
        if outcome is None:
            outcome = self.outcome = Outcome()
        return outcome

    def drop_outcome(self) -> None:
        """Its outcome has left the scope, or never will."""
        self.outcome = self.batch = None


def exits_left(exits: Iterable[Exit], lost: Collection[int]) -> Iterator[Exit]:
    """What came of inputs that are still ours."""
    for cells, indexes, function, arguments in exits:
        if cells or len(arguments) > 1:
            if id(arguments[-2]) not in lost:
                yield cells, indexes, function, arguments
            continue
        items = [item for item in arguments[0] if id(item[1]) not in lost]
        if items:
            yield cells, indexes, function, (items,)
