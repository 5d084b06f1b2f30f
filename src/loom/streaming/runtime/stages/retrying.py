"""Records that wait for another call of a step with a retry policy. Nothing here runs for a record that does not fail.

The step stays where it is in the loop. Only what it raises comes here, in place of the error boundary, and what is due is
handed to the same step again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from heapq import heappop, heappush
from typing import Any

from loom.streaming.compiler.exactly_once import longest_wait_ms
from loom.streaming.compiler.model import NodePath, StepId
from loom.streaming.kafka.record_accessor import UnreadableHeadersError
from loom.streaming.message import MessageMeta
from loom.streaming.nodes.retry import Retry
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.scopes.retry import RetrySchedule
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.failures import Attempts
from loom.streaming.runtime.stages.node_input import Ancestors, Item, NodeInput
from loom.streaming.runtime.stages.reorder_buffer import NO_PARTITION, InFlightInput
from loom.streaming.runtime.stages.result_check import NotSeveralError, WrongCountError
from loom.streaming.runtime.stages.stage_io import EndMark

__all__ = ["RetryQueue"]

#: Records that wait at one place; beyond it the source is given no credit. They hold their payloads in memory.
_MOST_KEPT = 10_000
#: Calls in one tick, so that a batch does not take arbitrarily long; what is left is still due at the next one.
_MOST_AT_ONCE = 500
#: what another call would not change
_NEVER = (UnreadableHeadersError, NotSeveralError, WrongCountError)


class _Waiting:
    """A record that waits for its next call."""

    __slots__ = ("attempts", "flight", "item", "left", "since")

    def __init__(self, item: Item, flight: InFlightInput, attempts: int, since: float) -> None:
        self.item = item
        self.flight = flight
        #: how many calls have failed
        self.attempts = attempts
        #: when the first of them did
        self.since = since
        self.left = False


class RetryQueue:
    """The records that wait at one step; a node that keeps records (`BufferingNode`)."""

    def __init__(
        self,
        build: StageBuilder,
        policy: Retry,
        step_id: StepId,
        path: NodePath,
        above: Ancestors,
        *,
        together: bool = False,
    ) -> None:
        """`together`: one call takes several records, so those that fail in one batch wait equally long."""
        stage = build.stage
        assert stage.gate is not None
        self._room, self._gate, self._flush = stage.room, stage.gate, stage.flush
        self._above = above
        self._step_id = step_id
        self._counts = build.counts.retries
        self._notice = build.notice_retry
        limit_ms = longest_wait_ms(build.plan) if build.plan.source.mode.transaction else None
        self._schedule = RetrySchedule(policy, self._chance, limit_ms)
        self._emits_on_stop = build.emits_on_stop()
        self._together = together
        #: the batch in which a random number was last needed, by its time, and that number
        self._drawn: tuple[float, float] | None = None
        self._attempts = Attempts()
        # Later records may have become errors meanwhile, so an error from here waits for its turn as a result would.
        self._fail = build.fail(step_id, path, above.behind(path), attempts=self._attempts)
        self._entry: NodeInput | None = None
        self._number = 0
        #: by the time of the next call
        self._due: list[tuple[float, int, _Waiting]] = []
        #: by partition, and there by offset
        self._kept: dict[TopicPartition, list[tuple[int, int, _Waiting]]] = {}
        self._count = 0
        #: by partition, the offset of the oldest record that is kept, or was discarded
        self._oldest: dict[TopicPartition, int] = {}
        #: what is being called again, by record and child
        self._called: dict[tuple[int, Any], _Waiting] = {}
        self._stopped: EndMark | None = None
        stage.gate.watch(self._oldest)
        stage.room.add(self, step_id)

    def calls(self, entry: NodeInput) -> NodeInput:
        """The way into the step, by which it is called again."""
        self._entry = entry
        return entry

    def failed(self, error: BaseException, payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        """The step has raised: keep the record until its next call, or make it an error."""
        indexes = self._above.indexes()
        called = self._called.get((id(origin), indexes))
        attempts, now = (1, self._room.clock()) if called is None else (called.attempts + 1, self._room.clock())
        since = now if called is None else called.since
        at = None if self._is_final(error) else self._schedule.next_call(error, attempts, since, now)
        if at is None:
            self._attempts.made = attempts
            self._fail(error, payload, origin, meta)
            return
        self._notice(self._step_id, error, origin, attempts)
        waiting = _Waiting((payload, origin, meta, indexes), self._gate.keep(origin), attempts, since)
        self._hold(waiting)
        if self._stopped is None:
            self._number += 1
            heappush(self._due, (at, self._number, waiting))
            self._count += 1

    def refused(self, error: BaseException, payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        """The step has returned what it may not: another call would not change that."""
        called = self._called.get((id(origin), self._above.indexes()))
        self._attempts.made = 1 if called is None else called.attempts + 1
        self._fail(error, payload, origin, meta)

    def kept(self) -> int:
        return self._count

    def oldest(self) -> Iterable[tuple[TopicPartition, int]]:
        return [(partition, offset) for partition, offset in self._oldest.items() if partition != NO_PARTITION]

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            self._oldest.pop(partition, None)
        # The gate has given them another place by now, by which they still keep their order.
        for partition in partitions:
            for _, _, waiting in self._kept.pop(partition, ()):
                if not waiting.left:
                    self._hold(waiting)

    def discard(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            self._oldest.pop(partition, None)
            self._kept.pop(partition, None)
        self._due = sorted(entry for entry in self._due if entry[2].flight.partition not in partitions)
        self._count = len(self._due)

    def credit(self) -> int | None:
        return min(self._gate.credit(), _MOST_KEPT - self._count)

    def due(self) -> float | None:
        return self._due[0][0] if self._due else None

    def tick(self, now: float) -> None:
        due: list[_Waiting] = []
        while self._due and self._due[0][0] <= now and len(due) < _MOST_AT_ONCE:
            due.append(heappop(self._due)[2])
        self._call(due)

    def end(self, mark: EndMark) -> None:
        if mark is EndMark.INPUT:
            # No reason to hurry a system that is in trouble: the stream ends when the last attempt is made.
            return
        self._stopped = mark
        waiting, self._due = [waiting for _, _, waiting in sorted(self._due)], []
        if self._emits_on_stop:
            # Their offsets are committed, so this is the last chance.
            self._call(waiting)
        # Otherwise discarded, not released: the offsets stay where they are, so that these records are read again.
        self._count = 0

    def _is_final(self, error: BaseException) -> bool:
        """Whether there is no other call, whatever the policy says."""
        return isinstance(error, _NEVER) or (self._stopped is not None and self._emits_on_stop)

    def _chance(self) -> float:
        now = self._room.now
        if not self._together or self._drawn is None or self._drawn[0] != now:
            self._drawn = (now, self._room.random())
        return self._drawn[1]

    def _call(self, due: list[_Waiting]) -> None:
        if not due:
            return
        assert self._entry is not None
        self._count -= len(due)
        self._counts[self._step_id] += len(due)
        self._called = {(id(waiting.item[1]), waiting.item[3]): waiting for waiting in due}
        self._entry.batch([waiting.item for waiting in due])
        self._flush()
        self._called = {}
        release = self._gate.release
        for waiting in due:
            waiting.left = True
            release(waiting.flight)
        for partition in {waiting.flight.partition for waiting in due}:
            self._lift(partition)

    def _hold(self, waiting: _Waiting) -> None:
        """Positions and later results must not pass it from now on."""
        partition, offset = waiting.flight.partition, waiting.flight.offset
        self._number += 1
        heappush(self._kept.setdefault(partition, []), (offset, self._number, waiting))
        if offset < self._oldest.get(partition, offset + 1):
            self._oldest[partition] = offset

    def _lift(self, partition: TopicPartition) -> None:
        """Some of its records have left."""
        kept = self._kept[partition]
        while kept and kept[0][2].left:
            heappop(kept)
        if kept:
            self._oldest[partition] = kept[0][0]
        else:
            del self._kept[partition]
            del self._oldest[partition]
