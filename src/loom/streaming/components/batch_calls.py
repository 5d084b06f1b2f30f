"""What surrounds the call of an async batch step: the messages it is given, and where its entries go. Hot path of such steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loom.streaming.compiler.model import StepKind
from loom.streaming.components.batch_steps import Leaving, whole_entry
from loom.streaming.kafka.record_accessor import UnreadableHeadersError
from loom.streaming.message import TOMBSTONE, Message
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.node_input import NO_CHILD, Ancestors, ChildIndex, Item, NodeInput
from loom.streaming.runtime.stages.result_check import WrongCountError, classify_result, entries_of

if TYPE_CHECKING:
    from loom.streaming.components.step import CompiledStep

__all__ = ["BatchCall"]


class BatchCall:
    """One async batch step.

    A tombstone keeps its place among the items, also if the step is not asked about it. The entries go into `leaving`.
    """

    def __init__(
        self,
        build: StageBuilder,
        step: CompiledStep,
        after: NodeInput,
        above: Ancestors,
    ) -> None:
        self._name = step.name
        self._message = build.message
        self._takes_tombstones = step.takes_tombstones
        self._can_lose, self._has_lost = build.view.set_headers is not None, build.view.has_lost
        self._cells = above.cells
        self._fail = build.fail(step.step_id, step.path, above)
        self._expands = step.kind is StepKind.BATCH_EXPAND
        self._cell = build.cell(step.path) if self._expands else ChildIndex()
        below = above.below(self._cell) if self._expands else above
        self.leaving = Leaving(below)
        leaving = self.leaving.take
        into = NodeInput(leaving, leaving, after.batch)
        drops = build.counts.drops if step.may_drop else None
        one_of_many = build.fail(step.step_id, step.path, below) if self._expands else self._fail
        self._plain, self._odd = classify_result(
            step.returns, into, one_of_many, build.view, drops, step.step_id, step.name
        )
        self._straight, self._tombstone = into.record, into.tombstone

    def asked(self, items: list[Item]) -> list[Item]:
        """The items that the step is asked about."""
        return [item for item in items if self._takes_tombstones or item[0] is not TOMBSTONE]

    def messages(self, items: list[Item]) -> tuple[list[Message[Any]], frozenset[int]]:
        """The messages of the items that the step is asked about, and which of these are left out.

        One record whose headers cannot be read must not fail its batch.
        """
        asked, lost = self.asked(items), frozenset[int]()
        if self._can_lose:
            lost = frozenset(at for at, item in enumerate(asked) if item[2] is None and self._has_lost(item[1]))
        make = self._message
        return [
            make(payload, origin) if meta is None else Message(payload, meta)
            for at, (payload, origin, meta, _) in enumerate(asked)
            if at not in lost
        ], lost

    def entries(self, found: Any, items: list[Item], lost: frozenset[int]) -> list[Any]:
        """One entry for each item that the step was asked about, an exception where it failed."""
        count = len(self.asked(items))
        if count == len(lost):
            return self.spread(None, items, lost)
        try:
            results = entries_of(found, self._name)
            if len(results) != count - len(lost):
                raise WrongCountError(f"{self._name} returned {len(results)} entries for {count - len(lost)} messages")
            results = iter(list(results))
        except BaseException as error:
            return self.spread(error, items, lost)
        return [UnreadableHeadersError() if at in lost else next(results) for at in range(count)]

    def spread(self, error: BaseException | None, items: list[Item], lost: frozenset[int]) -> list[Any]:
        """The same error for each of them."""
        return [UnreadableHeadersError() if at in lost else error for at in range(len(self.asked(items)))]

    def deal_out(self, items: list[Item], entries: list[Any]) -> None:
        """Send each entry on, each item with the child indexes that it had."""
        found, plain, straight = iter(entries), self._plain, self._straight
        for payload, origin, meta, indexes in items:
            for cell, index in zip(self._cells, indexes, strict=True):
                cell.at = index
            if payload is TOMBSTONE and not self._takes_tombstones:
                self._cell.at = NO_CHILD
                self._tombstone(payload, origin, meta)
                continue
            entry = next(found)
            if self._expands:
                for number, result in enumerate(whole_entry(entry, self._name, self._fail, payload, origin, meta)):
                    self._cell.at = number
                    if type(result) in plain:
                        straight(result, origin, meta)
                    else:
                        self._odd(result, payload, origin, meta)
            elif type(entry) in plain:
                straight(entry, origin, meta)
            elif issubclass(type(entry), BaseException):
                self._fail(entry, payload, origin, meta)
            else:
                self._odd(entry, payload, origin, meta)
