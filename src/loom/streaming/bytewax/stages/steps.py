"""User code as closures, one builder per kind of step. Hot path: these run once per record.

A result of exactly a declared payload class goes straight on; everything else (`None`, a whole `Message`, a tombstone,
a subclass) is looked at by `_odd`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from loom.streaming.bytewax.stages.entry import Entry, Take
from loom.streaming.bytewax.stages.failures import Fail, UndeclaredNoneError
from loom.streaming.compiler.plan import CompiledStep, StepKind
from loom.streaming.message import TOMBSTONE, Message, MessageMeta
from loom.streaming.metrics import Counts

__all__ = ["BatchBuffer", "SingleStep", "build_batch", "build_expand", "build_single"]

#: in the place of a child's index: the record has passed an expansion by
_NO_CHILD = -1

#: (result, payload the step was given, origin, meta)
Odd = Callable[[Any, Any, Any, MessageMeta | None], None]
_MessageClass = Callable[[Any, Any], Message[Any]]


class SingleStep(NamedTuple):
    """A step with one result for one record, in the parts that a closure or the straight loop calls."""

    #: the function, or the bound `execute`
    call: Callable[[Any], Any]
    #: `call` is handed a message, else the payload
    takes_message: bool
    #: the classes of results that need no second look
    plain: frozenset[type]
    odd: Odd
    fail: Fail


def build_single(
    step: CompiledStep, after: Entry, fail: Fail, counts: Counts, lazy_message: _MessageClass
) -> tuple[Entry, SingleStep]:
    """A `@step` function, which is handed the payload, or a `RecordStep`, which is handed a message."""
    takes_message = step.kind is StepKind.RECORD
    call = step.bound.instance.execute if takes_message else step.bound.instance
    parts = SingleStep(call, takes_message, _plain_classes(step), _odd(step, after, fail, counts), fail)
    run = (
        _record_closure(parts, after.record, lazy_message) if takes_message else _function_closure(parts, after.record)
    )
    return Entry(run, run if step.takes_tombstones else after.tombstone), parts


def _function_closure(parts: SingleStep, straight: Take) -> Take:
    call, _, plain, odd, fail = parts

    def run(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        try:
            result = call(payload)
        except Exception as error:
            fail(error, payload, origin, meta)
            return
        if result.__class__ in plain:
            straight(result, origin, meta)
        else:
            odd(result, payload, origin, meta)

    return run


def _record_closure(parts: SingleStep, straight: Take, lazy_message: _MessageClass) -> Take:
    call, _, plain, odd, fail = parts

    def run(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        message = lazy_message(payload, origin) if meta is None else Message(payload, meta)
        try:
            result = call(message)
        except Exception as error:
            fail(error, payload, origin, meta)
            return
        if result.__class__ in plain:
            straight(result, origin, meta)
        else:
            odd(result, payload, origin, meta)

    return run


def build_expand(
    step: CompiledStep,
    after: Entry,
    fail: Fail,
    counts: Counts,
    lazy_message: _MessageClass,
    child: list[int],
) -> Entry:
    """An `ExpandStep`: its results go on one by one, `child[0]` telling errors further on which one is at work."""
    execute, plain, straight = step.bound.instance.execute, _plain_classes(step), after.record
    odd = _odd(step, after, fail, counts)

    def run(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        message = lazy_message(payload, origin) if meta is None else Message(payload, meta)
        try:
            # Taken whole inside the boundary: an expansion that raises part-way emits nothing.
            results = list(execute(message))
        except Exception as error:
            fail(error, payload, origin, meta)
            return
        for index, result in enumerate(results):
            child[0] = index
            if result.__class__ in plain:
                straight(result, origin, meta)
            else:
                odd(result, payload, origin, meta)

    def pass_by(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        child[0] = _NO_CHILD
        after.tombstone(payload, origin, meta)

    return Entry(run, run if step.takes_tombstones else pass_by)


class BatchBuffer:
    """Records that a batch step is handed together, at the end of the engine's batch that brought them."""

    __slots__ = ("flush", "items")

    def __init__(self) -> None:
        #: (payload, origin, meta, the child indexes it came with)
        self.items: list[tuple[Any, Any, MessageMeta | None, tuple[int, ...]]] = []
        self.flush: Callable[[], None] = lambda: None


def build_batch(
    step: CompiledStep,
    after: Entry,
    fail: Fail,
    counts: Counts,
    lazy_message: _MessageClass,
    children: tuple[list[int], ...],
    buffer: BatchBuffer,
) -> Entry:
    """A `BatchStep`: records gather in `buffer`; its `flush` runs the step once and sends each entry on."""
    execute, plain, straight = step.bound.instance.execute, _plain_classes(step), after.record
    odd = _odd(step, after, fail, counts)
    name = step.name

    def gather(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        buffer.items.append((payload, origin, meta, tuple(cell[0] for cell in children)))

    def flush() -> None:
        items, buffer.items = buffer.items, []
        if not items:
            return
        messages = [
            lazy_message(payload, origin) if meta is None else Message(payload, meta)
            for payload, origin, meta, _ in items
        ]
        try:
            results = execute(messages)
            if len(results) != len(items):
                raise ValueError(f"{name} returned {len(results)} entries for {len(items)} messages")
        except Exception as error:
            # Nothing is run twice: which item is to blame is not known, so each gets its own envelope.
            results = [error] * len(items)
        for (payload, origin, meta, indexes), result in zip(items, results, strict=True):
            for cell, index in zip(children, indexes, strict=True):
                cell[0] = index
            if result.__class__ in plain:
                straight(result, origin, meta)
            elif isinstance(result, Exception):
                fail(result, payload, origin, meta)
            else:
                odd(result, payload, origin, meta)

    buffer.flush = flush
    return Entry(gather, gather if step.takes_tombstones else after.tombstone)


def _plain_classes(step: CompiledStep) -> frozenset[type]:
    """The classes of results that need no second look. Empty where the author left the type open."""
    if not step.returns.known:
        return frozenset()
    classes = (getattr(t, "__origin__", t) for t in step.returns.types)
    return frozenset(c for c in classes if isinstance(c, type) and c not in (object, Message, type(TOMBSTONE)))


def _odd(step: CompiledStep, after: Entry, fail: Fail, counts: Counts) -> Odd:
    """What becomes of a result that is not exactly a declared payload."""
    record: Take
    record, tombstone = after
    drops, step_id, name, may_drop = counts.drops, step.step_id, step.name, step.may_drop

    def look(result: Any, payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        if isinstance(result, Message):
            # The message replaces payload, key and headers. Where it was read stays with the origin.
            result, meta = result.payload, result.meta
        if result is None:
            if may_drop:
                drops[step_id] += 1
            else:
                reason = (
                    f"{name} returned None, which its return type does not say; write `-> … | None` to drop records"
                )
                fail(UndeclaredNoneError(reason), payload, origin, meta)
        elif result is TOMBSTONE:
            tombstone(result, origin, meta)
        else:
            record(result, origin, meta)

    return look
