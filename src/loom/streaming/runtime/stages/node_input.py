"""The ways into a built node: one callable for payloads, one for tombstones and one for batches, so that none asks which it has.

Hot path: `Receive` is called once per record and node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from loom.streaming.compiler.model import NodePath
from loom.streaming.message import TOMBSTONE, MessageMeta

__all__ = [
    "NOWHERE",
    "NO_CHILD",
    "Ancestors",
    "ChildIndex",
    "Indexes",
    "Item",
    "NodeInput",
    "Receive",
    "TakeBatch",
    "node_input",
]

#: (payload, origin, meta). The origin is the record as its source handed it over; meta is `None` until a step or the
#: wire format gives the record one that is not simply the origin's.
Receive: TypeAlias = Callable[[Any, Any, MessageMeta | None], None]
#: which child of each expansion above a record is
Indexes: TypeAlias = tuple[int, ...]
#: a record in a batch: (payload, origin, meta, indexes)
Item: TypeAlias = tuple[Any, Any, MessageMeta | None, Indexes]
TakeBatch: TypeAlias = Callable[[list[Item]], None]

#: in place of a child's index: the record has bypassed an expansion
NO_CHILD = -1


class ChildIndex:
    """Where an expansion (or a broadcast) says which child is at work, for errors and for the order of results."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = 0


class Ancestors(NamedTuple):
    """What comes before a place in the flow.

    `cells` are the expansions on the way here, with those of branches that were not taken, which then say `NO_CHILD`:
    so the children of one record can be put in order wherever they are. `waits` are the ways here, each by the nodes on
    it that hold records until others have arrived. `told` are the expansions whose index an error tells: those that a record
    here may have passed. A broadcast is none of them, since the step id tells its branch.
    """

    cells: tuple[ChildIndex, ...] = ()
    waits: frozenset[tuple[NodePath, ...]] = frozenset({()})
    told: tuple[ChildIndex, ...] = ()

    def below(self, cell: ChildIndex, *, told: bool = True) -> Ancestors:
        """Below an expansion here; one inside a branch has its place in the order already."""
        cells = self.cells if cell in self.cells else (*self.cells, cell)
        return Ancestors(cells, self.waits, (*self.told, cell) if told else self.told)

    def behind(self, path: NodePath) -> Ancestors:
        """Behind a node that holds records until others have come."""
        return Ancestors(self.cells, frozenset((*way, path) for way in self.waits), self.told)

    def indexes(self) -> Indexes:
        """Which child is at work now."""
        return tuple([cell.at for cell in self.cells])


NOWHERE = Ancestors()


class NodeInput(NamedTuple):
    """Where a record, or a batch of them, goes next."""

    record: Receive
    tombstone: Receive
    batch: TakeBatch


def node_input(record: Receive, tombstone: Receive, above: Ancestors) -> NodeInput:
    """The entry of a node that takes records one by one; a batch is taken apart."""
    cells = above.cells

    def batch(items: list[Item]) -> None:
        for payload, origin, meta, indexes in items:
            for cell, index in zip(cells, indexes, strict=True):
                cell.at = index
            (tombstone if payload is TOMBSTONE else record)(payload, origin, meta)

    return NodeInput(record, tombstone, batch)
