"""The inner process of a scope whose calls overlap: built apart from the stage, so that it can run on another thread.

Whatever leaves it (a result, an error, a drop) is noted in the outcome of the current call, and repeated on the worker's thread
when the scope commits the call. So the stage's own state is touched by one thread only. Hot path inside the closures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from inspect import iscoroutinefunction
from typing import Any

from loom.streaming.compiler.model import CompiledNode, CompiledTopic, NodePath, StepId
from loom.streaming.errors import ErrorKind
from loom.streaming.message import TOMBSTONE, MessageMeta
from loom.streaming.metrics import Counts
from loom.streaming.runtime.scopes.call import AsyncStep, Call, Suspension
from loom.streaming.runtime.stages.builder import StageBuilder, Suspend
from loom.streaming.runtime.stages.failures import Attempts, Fail
from loom.streaming.runtime.stages.node_input import Ancestors, ChildIndex, Item, NodeInput, Receive

__all__ = ["InnerProcess", "build_inner"]


class _Current:
    """Whose call is at work; set before each stretch of synchronous work."""

    __slots__ = ("call",)

    call: Call


class _Drops(Counter[str]):
    """Notes what is dropped with the call; `drops[step] += 1` is all that nodes do with it."""

    def __init__(self, current: _Current) -> None:
        super().__init__()
        self._current = current

    def __getitem__(self, step: str) -> int:
        return 0

    def __setitem__(self, step: str, count: int) -> None:
        self._current.call.noted().drops += (step,)


class _CallCounts(Counts):
    """The only counter that the nodes inside a scope use is that of drops."""

    def __init__(self, current: _Current) -> None:
        super().__init__()
        self.drops = _Drops(current)


class InnerProcess:
    """An inner process that runs one call at a time; between the async steps of a call others may run."""

    def __init__(self, current: _Current, entry: NodeInput, cells: tuple[ChildIndex, ...], fail: Fail) -> None:
        self._current = current
        self._entry = entry
        self._record = entry.record
        #: copies of the child indexes in front of the scope
        self._cells = cells
        self._fail = fail

    def enter(self, call: Call) -> None:
        """Run a call up to its first async steps, which are then in `call.pending`."""
        self._current.call = call
        if call.is_batch:
            self._entry.batch(list(call.items))
            return
        for payload, origin, meta, indexes in call.items:
            if indexes:
                for cell, index in zip(self._cells, indexes, strict=True):
                    cell.at = index
            if payload is TOMBSTONE:
                self._entry.tombstone(payload, origin, meta)
            else:
                self._record(payload, origin, meta)

    def go_on(self, call: Call, at: Suspension, function: Callable[..., None], what: Any) -> None:
        """Go on behind an async step: `function` is its `resume` or its `fail`, `what` its result or what it has raised."""
        self._current.call = call
        if at.indexes:
            for cell, index in zip(at.step.cells, at.indexes, strict=True):
                cell.at = index
        later = call.pending
        if later is None:
            function(what, *at.state)
            return
        call.pending = []
        function(what, *at.state)
        # What follows from this child comes before its later siblings.
        call.pending.extend(later)

    def fail_all(self, call: Call, error: BaseException) -> None:
        """Make every input of a call an error, in place of all else that came of it."""
        self._current.call = call
        call.outcome = None
        at = call.awaits
        if at is not None and at.indexes == call.items[0][3] and not call.is_batch:
            # No expansion has made several of the record, so it is known which step has failed it.
            self.go_on(call, at, at.step.fail, error)
        else:
            for payload, origin, meta, indexes in call.items:
                for cell, index in zip(self._cells, indexes, strict=True):
                    cell.at = index
                self._fail(error, payload, origin, meta)
        call.pending = None


class _InnerBuilder(StageBuilder):
    """Builds nodes whose ways out are noted; `outer` builds the real ones."""

    def __init__(self, outer: StageBuilder, current: _Current, attempts: Attempts | None) -> None:
        super().__init__(
            outer.builder_of,
            outer.plan,
            outer.slots,
            outer.view,
            _CallCounts(current),
            outer.stage,
            outer.log_drop,
            outer.error_log,
            message=outer.message,
        )
        self._outer = outer
        self._current = current
        #: where errors find out how many attempts there were
        self._attempts = attempts
        #: the stage's child index that each one of ours is a copy of
        self._original: dict[ChildIndex, ChildIndex] = {}
        self.provides = self

    def mirror(self, above: Ancestors) -> Ancestors:
        """The same place, with child indexes of our own."""
        copies: dict[ChildIndex, ChildIndex] = {cell: ChildIndex() for cell in (*above.cells, *above.told)}
        self._original.update((copy, cell) for cell, copy in copies.items())
        return Ancestors(
            tuple(copies[cell] for cell in above.cells), above.waits, tuple(copies[cell] for cell in above.told)
        )

    def original(self, above: Ancestors) -> Ancestors:
        """The place in the stage."""
        original = self._original
        return Ancestors(
            tuple(original[cell] for cell in above.cells), above.waits, tuple(original[cell] for cell in above.told)
        )

    def cell(self, path: NodePath) -> ChildIndex:
        found = super().cell(path)
        self._original[found] = self._outer.cell(path)
        return found

    def bind(self, function: Callable[..., Any], names: tuple[str, ...]) -> Callable[..., Any]:
        current = self._current

        def call(argument: Any) -> Any:
            return function(argument, **current.call.resources.given(names))

        return call

    def suspends(
        self,
        function: Callable[..., Any],
        names: tuple[str, ...],
        resume: Callable[..., None],
        fail: Callable[..., None],
        above: Ancestors,
    ) -> Suspend:
        current, cells = self._current, above.cells
        step = AsyncStep(function if iscoroutinefunction(function) else _awaiting(function), names, resume, fail, cells)

        def suspend(argument: Any, *state: Any) -> None:
            indexes = tuple([cell.at for cell in cells]) if cells else ()
            call, suspended = current.call, Suspension(step, argument, state, indexes)
            if call.pending is None:
                call.pending = [suspended]
            else:
                call.pending.append(suspended)

        return suspend

    def fail(
        self,
        step_id: StepId,
        path: NodePath,
        above: Ancestors,
        *,
        kind: ErrorKind | None = None,
        attempts: Attempts | None = None,
    ) -> Fail:
        place = self.original(above)
        real = self._outer.fail(step_id, path, place, kind=kind, attempts=attempts or self._attempts)
        current, cells, originals = self._current, above.cells, place.cells

        def fail(error: BaseException, payload: Any, origin: Any, meta: MessageMeta | None) -> None:
            outcome = current.call.noted()
            outcome.errors += (error,)
            indexes = tuple([cell.at for cell in cells])
            outcome.exits.append((originals, indexes, real, (error, payload, origin, meta)))

        return fail

    def output(self, output: CompiledTopic, path: NodePath, above: Ancestors) -> NodeInput:
        return self.noted(self._outer.output(output, path, self.original(above)), above)

    def hosted(self, path: NodePath, above: Ancestors) -> NodeInput:
        return self.noted(self._outer.hosted(path, self.original(above)), above)

    def noted(self, real: NodeInput, above: Ancestors) -> NodeInput:
        """A way out of the scope: what takes it is noted with the call."""
        current, cells, originals = self._current, above.cells, self.original(above).cells

        def noting(take: Receive) -> Receive:
            def note(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
                indexes = tuple([cell.at for cell in cells]) if cells else ()
                current.call.noted().exits.append((originals, indexes, take, (payload, origin, meta)))

            return note

        def batch(items: list[Item]) -> None:
            current.call.noted().exits.append(((), (), real.batch, (items,)))

        return NodeInput(noting(real.record), noting(real.tombstone), batch)


def _awaiting(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """A coroutine function for one that returns something else to be awaited."""

    async def awaiting(argument: Any, **given: Any) -> Any:
        return await function(argument, **given)

    return awaiting


def build_inner(
    outer: StageBuilder,
    scope: CompiledNode,
    after: NodeInput | None,
    above: Ancestors,
    attempts: Attempts | None = None,
) -> InnerProcess:
    """Build the inner process of a scope once more, for calls of one thread or event loop.

    Args:
        outer: builds the stage.
        scope: the scope.
        after: the node behind it.
        above: the ancestors of the scope.
        attempts: says how many attempts there were, where calls are repeated.
    """
    current = _Current()
    build = _InnerBuilder(outer, current, attempts)
    inside = build.mirror(above)
    places = build.inside(scope, inside)
    end = build.noted(after, places[-1]) if after is not None and scope.continues else None
    entry = build.chain(scope.inside, end, places[0])
    return InnerProcess(current, entry, inside.cells, build.fail(scope.step_id, scope.path, places[0]))
