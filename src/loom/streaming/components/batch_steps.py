"""User code that takes a batch: what was read at once, or what a node has collected. Hot path."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from loom.streaming.components.retried import boundaries, retry_queue
from loom.streaming.kafka.record_accessor import UnreadableHeadersError
from loom.streaming.message import TOMBSTONE, Message, MessageMeta
from loom.streaming.nodes.shape import StreamShape
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.failures import Fail
from loom.streaming.runtime.stages.node_input import NO_CHILD, Ancestors, Item, NodeInput
from loom.streaming.runtime.stages.result_check import WrongCountError, classify_result, entries_of, several
from loom.streaming.runtime.stages.retrying import RetryQueue

if TYPE_CHECKING:
    from loom.streaming.components.step import CompiledStep

__all__ = ["Leaving", "build_batch", "build_batch_expand", "of_batches", "whole_entry"]


def build_batch(build: StageBuilder, step: CompiledStep, after: NodeInput, above: Ancestors) -> NodeInput:
    """A `BatchStep`: on batches it makes batches, on records it gathers what the engine's batch brings."""
    if step.in_shape is StreamShape.BATCH:
        return _on_batches(build, step, after, above)
    return _on_records(build, step, after, above)


def _on_batches(build: StageBuilder, step: CompiledStep, after: NodeInput, above: Ancestors) -> NodeInput:
    leaving = Leaving(above)
    queue = retry_queue(build, step, above)
    run = _work(build, step, NodeInput(leaving.take, leaving.take, after.batch), above, queue)

    def batch(items: list[Item]) -> None:
        run(items)
        if leaving.items:
            after.batch(leaving.taken())

    return _again(of_batches(batch, above), queue)


def _on_records(build: StageBuilder, step: CompiledStep, after: NodeInput, above: Ancestors) -> NodeInput:
    queue = retry_queue(build, step, above)
    run = _work(build, step, after, above, queue)
    waiting: list[Item] = []

    def gather(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        waiting.append((payload, origin, meta, above.indexes()))

    def flush() -> None:
        if waiting:
            items = waiting.copy()
            waiting.clear()
            run(items)

    build.stage.flushes.append(flush)
    # Tombstones wait too, though the step may not be asked about them: one that overtakes would change the order.
    return _again(build.entry(gather, gather, above), queue)


def _work(
    build: StageBuilder, step: CompiledStep, after: NodeInput, above: Ancestors, queue: RetryQueue | None
) -> Callable[[list[Item]], None]:
    """Runs the step once on the items and sends each of its entries on; a tombstone keeps its place among them."""
    ask = _asking(build, step)
    fail, refused = boundaries(build, step, above, queue)
    drops = build.counts.drops if step.may_drop else None
    plain, odd = classify_result(step.returns, after, refused, build.view, drops, step.step_id, step.name)
    straight, tombstone, cells, takes_tombstones = after.record, after.tombstone, above.cells, step.takes_tombstones

    def run(items: list[Item]) -> None:
        asked = [item for item in items if takes_tombstones or item[0] is not TOMBSTONE]
        entries = iter(ask(asked) if asked else ())
        for payload, origin, meta, indexes in items:
            for cell, index in zip(cells, indexes, strict=True):
                cell.at = index
            if payload is TOMBSTONE and not takes_tombstones:
                tombstone(payload, origin, meta)
                continue
            result = next(entries)
            if type(result) in plain:
                straight(result, origin, meta)
            elif issubclass(type(result), BaseException):
                fail(result, payload, origin, meta)
            else:
                odd(result, payload, origin, meta)

    tracer = build.stage.tracer
    return run if tracer is None else tracer.batch(step.step_id, run)


def build_batch_expand(build: StageBuilder, step: CompiledStep, after: NodeInput, above: Ancestors) -> NodeInput:
    """A `BatchExpandStep`: for each item any number of results, all of them one batch again."""
    ask = _asking(build, step)
    cell = build.cell(step.path)
    below = above.below(cell)
    queue = retry_queue(build, step, above)
    fail, _ = boundaries(build, step, above, queue)
    drops = build.counts.drops if step.may_drop else None
    leaving = Leaving(below)
    behind = above if queue is None else above.behind(step.path)
    one_of_many = build.fail(step.step_id, step.path, behind.below(cell))
    inner = NodeInput(leaving.take, leaving.take, after.batch)
    plain, odd = classify_result(step.returns, inner, one_of_many, build.view, drops, step.step_id, step.name)
    cells, takes_tombstones = above.cells, step.takes_tombstones

    def batch(items: list[Item]) -> None:
        asked = [item for item in items if takes_tombstones or item[0] is not TOMBSTONE]
        entries = iter(ask(asked) if asked else ())
        for payload, origin, meta, indexes in items:
            for above_cell, index in zip(cells, indexes, strict=True):
                above_cell.at = index
            if payload is TOMBSTONE and not takes_tombstones:
                cell.at = NO_CHILD
                leaving.take(payload, origin, meta)
                continue
            results = whole_entry(next(entries), step.name, fail, payload, origin, meta)
            for number, result in enumerate(results):
                cell.at = number
                if type(result) in plain:
                    leaving.take(result, origin, meta)
                else:
                    odd(result, payload, origin, meta)
        if leaving.items:
            after.batch(leaving.taken())

    tracer = build.stage.tracer
    return _again(of_batches(batch if tracer is None else tracer.batch(step.step_id, batch), above), queue)


def _again(entry: NodeInput, queue: RetryQueue | None) -> NodeInput:
    return entry if queue is None else queue.calls(entry)


def whole_entry(entry: Any, name: str, fail: Fail, payload: Any, origin: Any, meta: MessageMeta | None) -> list[Any]:
    """An entry's results, taken whole: one that raises part-way emits nothing."""
    try:
        if isinstance(entry, BaseException):
            raise entry
        return list(several(entry, name))
    except BaseException as error:
        fail(error, payload, origin, meta)
        return []


def _asking(build: StageBuilder, step: CompiledStep) -> Callable[[list[Item]], list[Any]]:
    """Calls the step once with the messages of a batch; one entry for each, an exception where it failed."""
    execute = build.bound(step.bound.instance.execute, step.takes)
    lazy_message, name = build.message, step.name
    can_lose, has_lost = build.view.set_headers is not None, build.view.has_lost

    def ask(items: list[Item]) -> list[Any]:
        if not can_lose:
            return ask_all(items)
        # One record whose headers cannot be read must not fail its batch.
        lost = {at for at, item in enumerate(items) if item[2] is None and has_lost(item[1])}
        if not lost:
            return ask_all(items)
        readable = [item for at, item in enumerate(items) if at not in lost]
        results = iter(ask_all(readable) if readable else ())
        return [UnreadableHeadersError() if at in lost else next(results) for at in range(len(items))]

    def ask_all(items: list[Item]) -> list[Any]:
        messages = [
            lazy_message(payload, origin) if meta is None else Message(payload, meta)
            for payload, origin, meta, _ in items
        ]
        try:
            results = entries_of(execute(messages), name)
            if len(results) != len(items):
                raise WrongCountError(f"{name} returned {len(results)} entries for {len(items)} messages")
        except BaseException as error:
            # Nothing is run twice: which item is to blame is not known, so each gets its own envelope.
            return [error] * len(items)
        return list(results)

    return ask


class Leaving:
    """The batch that is about to leave a node."""

    def __init__(self, above: Ancestors) -> None:
        self._above = above
        self.items: list[Item] = []

    def take(self, payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        self.items.append((payload, origin, meta, self._above.indexes()))

    def taken(self) -> list[Item]:
        items, self.items = self.items, []
        return items


def of_batches(batch: Callable[[list[Item]], None], above: Ancestors) -> NodeInput:
    """The entry of a node that takes batches; a single record is a batch of one."""

    def single(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        batch([(payload, origin, meta, above.indexes())])

    return NodeInput(single, single, batch)
