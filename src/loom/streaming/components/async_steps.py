"""Async steps: what they are called with, and how a call continues when they are done. Hot path inside an async scope."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from loom.streaming.compiler.callables import is_async_generator
from loom.streaming.compiler.model import StepKind
from loom.streaming.components.batch_calls import BatchCall
from loom.streaming.components.batch_steps import Leaving, of_batches
from loom.streaming.message import Message, MessageMeta
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.node_input import NO_CHILD, Ancestors, Item, NodeInput
from loom.streaming.runtime.stages.result_check import classify_result, several

if TYPE_CHECKING:
    from loom.streaming.components.step import CompiledStep

__all__ = ["build_async"]


def build_async(build: StageBuilder, step: CompiledStep, after: NodeInput, above: Ancestors) -> NodeInput:
    """An async step of any kind."""
    if step.kind in (StepKind.BATCH, StepKind.BATCH_EXPAND):
        return _of_batch(build, step, after, above)
    return _of_one(build, step, after, above)


def _of_one(build: StageBuilder, step: CompiledStep, after: NodeInput, above: Ancestors) -> NodeInput:
    """A function, a `RecordStep` or an `ExpandStep`."""
    fail = build.fail(step.step_id, step.path, above)
    drops = build.counts.drops if step.may_drop else None
    lazy_message = build.message
    resume = _expanding if step.kind is StepKind.EXPAND else _single
    suspend = build.suspends(_function_of(step), step.takes, resume(build, step, after, above, drops), fail, above)

    def take_payload(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        suspend(payload, payload, origin, meta)

    def take_whole(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        try:
            message = lazy_message(payload, origin) if meta is None else Message(payload, meta)
        except BaseException as error:
            fail(error, payload, origin, meta)
            return
        suspend(message, payload, origin, meta)

    take = take_whole if step.kind is not StepKind.FUNCTION else take_payload
    if step.takes_tombstones:
        return build.entry(take, take, above)
    if step.kind is not StepKind.EXPAND:
        return build.entry(take, after.tombstone, above)
    cell = build.cell(step.path)

    def pass_by(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        cell.at = NO_CHILD
        after.tombstone(payload, origin, meta)

    return build.entry(take, pass_by, above)


def _single(
    build: StageBuilder, step: CompiledStep, after: NodeInput, above: Ancestors, drops: Any
) -> Callable[..., None]:
    fail = build.fail(step.step_id, step.path, above)
    plain, odd = classify_result(step.returns, after, fail, build.view, drops, step.step_id, step.name)
    straight = after.record

    def resume(result: Any, payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        if type(result) in plain:
            straight(result, origin, meta)
        else:
            odd(result, payload, origin, meta)

    return resume


def _expanding(
    build: StageBuilder, step: CompiledStep, after: NodeInput, above: Ancestors, drops: Any
) -> Callable[..., None]:
    cell, name = build.cell(step.path), step.name
    fail = build.fail(step.step_id, step.path, above)
    one_of_many = build.fail(step.step_id, step.path, above.below(cell))
    plain, odd = classify_result(step.returns, after, one_of_many, build.view, drops, step.step_id, name)
    straight = after.record

    def resume(found: Any, payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        try:
            # Taken whole: an expansion that raises part-way emits nothing.
            results = list(several(found, name))
        except BaseException as error:
            fail(error, payload, origin, meta)
            return
        for number, result in enumerate(results):
            cell.at = number
            if type(result) in plain:
                straight(result, origin, meta)
            else:
                odd(result, payload, origin, meta)

    return resume


def _of_batch(build: StageBuilder, step: CompiledStep, after: NodeInput, above: Ancestors) -> NodeInput:
    """A `BatchStep` or a `BatchExpandStep`, which takes a whole batch."""
    work = BatchCall(build, step, after, above)
    leaving: Leaving = work.leaving

    def leave() -> None:
        if leaving.items:
            after.batch(leaving.taken())

    def resume(found: Any, items: list[Item], lost: frozenset[int]) -> None:
        work.deal_out(items, work.entries(found, items, lost))
        leave()

    def fail(error: BaseException, items: list[Item], lost: frozenset[int]) -> None:
        # Nothing is run twice: which item is to blame is not known, so each gets its own envelope.
        work.deal_out(items, work.spread(error, items, lost))
        leave()

    suspend = build.suspends(_function_of(step), step.takes, resume, fail, above)

    def batch(items: list[Item]) -> None:
        messages, lost = work.messages(items)
        if messages:
            suspend(messages, items, lost)
        else:
            work.deal_out(items, work.entries([], items, lost))
            leave()

    return of_batches(batch, above)


def _function_of(step: CompiledStep) -> Callable[..., Any]:
    """What is awaited; the results of an async generator are gathered."""
    function = step.bound.instance if step.kind is StepKind.FUNCTION else step.bound.instance.execute
    if not is_async_generator(function):
        return function  # type: ignore[no-any-return]

    async def gathered(argument: Any, **given: Any) -> list[Any]:
        return [result async for result in function(argument, **given)]

    return gathered
