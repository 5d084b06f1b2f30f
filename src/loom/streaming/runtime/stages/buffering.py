"""Records that wait: what a node that keeps records beyond their batch must tell, and what follows from it.

Positions before the oldest kept record are safe; a full node takes the source's credit away; a node is woken by ticks and
told of the end. The stage asks once per batch, never per record.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from loom.streaming.record import TopicPartition
from loom.streaming.runtime.stages.stage_io import EndMark, Positions
from loom.streaming.runtime.waker import Waker

__all__ = ["BufferingNode", "BufferingNodes"]


class BufferingNode(Protocol):
    """A node that keeps records."""

    def kept(self) -> int:
        """How many records it keeps now."""

    def oldest(self) -> Iterable[tuple[TopicPartition, int]]:
        """The offset of the oldest record it keeps, or has discarded, for each partition it did so with.

        A discarded record stays here permanently: its offset must not be committed.
        """

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """The logs of these partitions are gone: what is kept of them holds up no position any more."""

    def discard(self, partitions: Collection[TopicPartition]) -> None:
        """These partitions are another's now: what is kept of them is dropped, and holds up no position any more."""

    def credit(self) -> int | None:
        """How many more records it can take; `None` where it sets no bound."""

    def due(self) -> float | None:
        """The monotonic time, in seconds, at which it wants a tick; `None` while nothing waits."""

    def tick(self, now: float) -> None:
        """Let go what is due."""

    def end(self, mark: EndMark) -> None:
        """The stream ends: emit what waits, or discard it, as the mark says."""


class BufferingNodes:
    """The waiting nodes of one stage, in the order in which records meet them."""

    def __init__(self, nodes: Iterable[BufferingNode] = ()) -> None:
        self._nodes = list(nodes)
        #: the step id of each, where it was added with one
        self._steps = [""] * len(self._nodes)
        #: the time of the current batch, in monotonic seconds
        self.now = 0.0
        #: the time at this moment, on the same clock; within a batch, `now` is how late it was at its beginning
        self.clock: Callable[[], float] = lambda: self.now
        #: a number from 0 to 1, for waits with a random part
        self.random: Callable[[], float] = random.random
        #: the offsets up to which the source has read
        self._read: dict[TopicPartition, int] = {}
        #: the safe positions that were last returned
        self._said: dict[TopicPartition, int] = {}
        self._mark: EndMark | None = None
        #: how many nodes have been told of the end
        self._told = 0
        #: how many calls are in progress on other threads; their ends set `wake`
        self.elsewhere = 0
        self.wake = Waker()
        #: let such calls go on as far as they can without waiting; for a clock that does not move by itself
        self.settles: list[Callable[[], None]] = []
        #: nodes that make calls: another member is to have these partitions, so begin nothing with them that may take long
        self.leaves: list[Callable[[Collection[TopicPartition]], None]] = []
        #: whether a call is in progress for a record of these partitions
        self.calls: list[Callable[[Collection[TopicPartition]], bool]] = []
        #: what nodes wait for, for people
        self.tells: list[Callable[[], str | None]] = []

    def add(self, node: BufferingNode, step_id: str) -> None:
        """Add a node after those already here."""
        self._nodes.append(node)
        self._steps.append(step_id)

    def reverse(self) -> None:
        """Turn the order around, for who builds from the tail."""
        self._nodes.reverse()
        self._steps.reverse()
        self.tells.reverse()

    def wait(self, seconds: float) -> None:
        """Wait until a call elsewhere has ended, at most so long."""
        self.wake.wait(seconds)

    def settle(self) -> None:
        """Return when calls elsewhere cannot go on by themselves."""
        for settle in self.settles:
            settle()

    def waiting_for(self) -> str:
        """What a stop waits for."""
        told = [said for tell in self.tells if (said := tell()) is not None]
        return "; ".join(told) or "records that a node of the flow still keeps"

    def kept(self) -> int:
        """How many records wait."""
        return sum(node.kept() for node in self._nodes)

    def kept_by(self) -> dict[str, int]:
        """How many records wait at each node that may keep some, by step id; from any thread."""
        found: dict[str, int] = {}
        for step_id, node in zip(self._steps, self._nodes, strict=True):
            found[step_id] = found.get(step_id, 0) + node.kept()
        return found

    def credit(self, most: int) -> int:
        """How many records the source may return, at most `most`; 0 while a node is full."""
        for node in self._nodes:
            room = node.credit()
            if room is not None and room < most:
                most = max(room, 0)
        return most

    def due(self) -> float | None:
        """The earliest time at which a node wants a tick."""
        return min((at for node in self._nodes if (at := node.due()) is not None), default=None)

    @property
    def keeps(self) -> bool:
        """Whether any node may keep records at all."""
        return bool(self._nodes)

    def kept_until(self) -> dict[TopicPartition, tuple[int, float]]:
        """For each partition whose oldest kept record is kept until a time: its offset, and that monotonic time."""
        oldest: dict[TopicPartition, tuple[int, float | None]] = {}
        for node in self._nodes:
            until = node.due()
            for partition, offset in node.oldest():
                if partition not in oldest or offset < oldest[partition][0]:
                    oldest[partition] = (offset, until)
        return {p: (offset, until) for p, (offset, until) in oldest.items() if until is not None}

    def tick(self, now: float) -> None:
        """Wake the nodes that are due."""
        for node in self._nodes:
            at = node.due()
            if at is not None and at <= now:
                node.tick(now)

    def end(self, mark: EndMark) -> None:
        """Tell the nodes of the end, upstream first."""
        self._mark = mark
        self.end_on()

    def end_on(self) -> None:
        """Tell those of the end to which nothing more can come, now that the nodes before them keep less."""
        if self._mark is None:
            return
        while self._told < len(self._nodes) and not any(node.kept() for node in self._nodes[: self._told]):
            node = self._nodes[self._told]
            self._told += 1
            node.end(self._mark)

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """The logs of these partitions are gone, and with them every position in them."""
        self._drop(partitions)
        for node in self._nodes:
            node.forget(partitions)

    def leave(self, partitions: Collection[TopicPartition]) -> None:
        """Another member is to have these partitions: what waits for a policy is dropped, calls in progress go on."""
        for leave in self.leaves:
            leave(partitions)

    def in_progress(self, partitions: Collection[TopicPartition]) -> bool:
        """Whether calls are in progress for records of these partitions."""
        return any(calls(partitions) for calls in self.calls)

    @property
    def makes_calls(self) -> bool:
        """Whether any node makes calls that a revocation awaits."""
        return bool(self.calls)

    def discard(self, partitions: Collection[TopicPartition]) -> None:
        """These partitions are another's now."""
        self._drop(partitions)
        for node in self._nodes:
            node.discard(partitions)

    def _drop(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            self._read.pop(partition, None)
            self._said.pop(partition, None)

    def safe(self, positions: Positions) -> Positions:
        """The positions that are safe now that the source has moved on to these: theirs, and those that have changed.

        What has not moved is not said again: a transaction that names a partition fails when that is given to another member.
        """
        if not self._nodes:
            return positions
        self._read.update(positions)
        safe = dict(self._read)
        for node in self._nodes:
            for partition, offset in node.oldest():
                if offset < safe.get(partition, offset + 1):
                    safe[partition] = offset
        said = self._said
        found = {p: offset for p, offset in safe.items() if p in positions or said.get(p) != offset}
        said.update(found)
        return found
