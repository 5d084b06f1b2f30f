"""A scope whose calls overlap, on the worker's side: takes records, starts calls, commits what comes of them. Hot path.

A `BufferingNode`: the offset of a record is kept until its call is committed, a full scope takes the source's credit away, and
a finished call wakes the worker. A runner does the work elsewhere.

One call goes: `take` → `CallSchedule` → `CallPolicy.before` → runner → `CallPolicy.after` → commit. What a policy decides there
(start later, do it again later) is all that retries, rate limits and circuit breakers need; see `policy.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from math import inf
from typing import Any

from loom.streaming.message import MessageMeta
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.scopes.batches import CallBatches
from loom.streaming.runtime.scopes.call import Call, exits_left
from loom.streaming.runtime.scopes.call_keys import keys_of
from loom.streaming.runtime.scopes.call_runner import CallBatch, CallRunner
from loom.streaming.runtime.scopes.kept_offsets import KeptOffsets
from loom.streaming.runtime.scopes.policy import NO_POLICY, CallPolicy
from loom.streaming.runtime.scopes.schedule import CallSchedule, waiting_beside
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.node_input import Ancestors, Item, NodeInput
from loom.streaming.runtime.stages.reorder_buffer import NO_PARTITION, ReorderBuffer
from loom.streaming.runtime.stages.stage_io import EndMark

__all__ = ["CallingScope"]

#: The source is given credit again when so large a part of the places is free, so that it reads no single records.
_FREE = 4
#: how many calls a message about a stop names
_NAMED = 5


class CallingScope:
    """The calls of one scope of one stage.

    Args:
        limit: the most calls in progress at once.
        lead: how many more the runner is given, to begin them when others have ended. None where a policy decides about each.
    """

    def __init__(
        self,
        build: StageBuilder,
        step_id: str,
        above: Ancestors,
        runner: CallRunner,
        *,
        limit: int,
        lead: int = 0,
        timeout_s: float | None,
        by_key: bool,
        watched: bool,
        per_batch: bool,
        policy: CallPolicy = NO_POLICY,
    ) -> None:
        stage = build.stage
        assert stage.gate is not None
        self._stage = stage
        self._is_held = self._stopped = False
        self._gate: ReorderBuffer = stage.gate
        self._room = stage.room
        self._flush = stage.flush
        self._counts = build.counts
        self._key = build.view.key
        self._place = build.view.place
        self._keep, self._release = stage.gate.keep, stage.gate.release_all
        self._indexes = above.indexes if above.cells else None
        self._step_id = step_id
        self._runner = runner
        self._schedule = CallSchedule(limit + lead)
        self._policy = policy
        self._timeout = timeout_s
        self._by_key = by_key
        self._emits_on_stop = build.emits_on_stop()
        self._capacity = limit + waiting_beside(limit)
        self._kept = KeptOffsets()
        self._keep_offset, self._add_to_schedule = self._kept.add, self._schedule.add
        #: what was discarded holds its place for good
        self._discarded: list[Call] = []
        self._calls: dict[Call, None] = {}
        #: in progress, in the order of their deadlines
        self._deadlines: deque[Call] = deque()
        #: no call starts before this time, by the policy
        self._not_before = 0.0
        #: partitions that are to be another's: nothing that a policy delays is begun or repeated for them
        self._leaving: set[TopicPartition] = set()
        self._shared = None if per_batch else runner.resources()
        self._batch: CallBatch | None = None
        self._batches = CallBatches()
        if watched:
            self._gate.watch(self._kept.lowest)
        stage.room.add(self, step_id)
        stage.room.settles.append(runner.settle)
        stage.room.tells.append(self._told)
        stage.room.leaves.append(self._leave)
        stage.room.calls.append(self._has_calls)
        stage.flushes.append(self.start)
        if per_batch:
            stage.batch_ends.append(self._seal)

    def input(self) -> NodeInput:
        """The way in for records; each is a call."""
        return NodeInput(self.take, self.take, self._take_each)

    def batch_input(self) -> NodeInput:
        """The way in for batches; each is a call."""
        return NodeInput(self._take_one, self._take_one, self._take_batch)

    def take(self, payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        """Keep a record until its call is done."""
        items = ((payload, origin, meta, self._indexes() if self._indexes is not None else ()),)
        keys = keys_of(items, self._key) if self._by_key else ()
        shared = self._shared
        call = Call(items, (self._keep(origin),), keys, False, shared)
        if shared is None:
            self._add(call)
            return
        self._keep_offset(call)
        self._calls[call] = None
        self._add_to_schedule(call)

    def _take_each(self, items: list[Item]) -> None:
        for item in items:
            keys = keys_of((item,), self._key) if self._by_key else ()
            self._add(Call((item,), (self._keep(item[1]),), keys, False, self._shared))

    def _take_one(self, payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        self._take_batch([(payload, origin, meta, self._indexes() if self._indexes is not None else ())])

    def _take_batch(self, items: list[Item]) -> None:
        keep = self._keep
        flights = [keep(item[1]) for item in items]
        self._add(Call(items, flights, keys_of(items, self._key) if self._by_key else (), True, self._shared))

    def _add(self, call: Call) -> None:
        self._kept.add(call)
        self._calls[call] = None
        if self._shared is None:
            batch = self._batch
            if batch is None:
                batch = self._batch = CallBatch(self._runner.resources())
                self._batches.add(batch)
            call.batch, call.resources = batch, batch.resources
            batch.calls.append(call)
            batch.left += 1
        self._schedule.add(call)

    def start(self) -> None:
        """Start what may start."""
        now = self._room.now
        if self._policy is NO_POLICY:
            started = self._schedule.take()
        elif now >= self._not_before:
            started = self._allowed(now)
        else:
            return
        beginning = []
        for call in started:
            if not call.flights:
                # All of its records have become another's while it waited.
                self._schedule.done(call)
                self._finish(call)
                continue
            attempt = call.attempt = call.attempt + 1
            if attempt > 1:
                call.outcome, call.done, call.cancelled = None, False, False
            beginning.append(call)
        if beginning:
            if not self._is_held:
                self._is_held = True
                self._stage.hold(self, f"what waits in {self._step_id}", self._close)
            self._room.elsewhere += len(beginning)
            self._runner.submit(beginning)

    def _allowed(self, now: float) -> list[Call]:
        """The calls that the policy lets start now."""
        schedule, policy, allowed = self._schedule, self._policy, []
        while (call := schedule.next(now, untried_first=policy.is_paused)) is not None:
            wait = policy.before(call, now) if call.flights else None
            if wait is not None and wait > now:
                self._not_before = wait
                schedule.put_back(call)
                break
            allowed.append(call)
        return allowed

    # ---- what a node that keeps records offers

    def kept(self) -> int:
        return len(self._calls)

    def oldest(self) -> Iterable[tuple[TopicPartition, int]]:
        self._kept.settle()
        return [(partition, offset) for partition, offset in self._kept.lowest.items() if partition != NO_PARTITION]

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        self._discarded = [c for c in self._discarded if not any(f.partition == NO_PARTITION for f in c.flights)]
        self._kept.renew([*self._discarded, *self._calls])

    def _leave(self, partitions: Collection[TopicPartition]) -> None:
        if self._policy is not NO_POLICY:
            self._leaving.update(partitions)
            for call in self._schedule.discard_waiting(self._is_left):
                self._discard(call)

    def _is_left(self, call: Call) -> bool:
        """Whether all its records are of partitions that are to be another's."""
        return bool(self._leaving) and all(flight.partition in self._leaving for flight in call.flights)

    def _has_calls(self, partitions: Collection[TopicPartition]) -> bool:
        return any(flight.partition in partitions for call in self._calls for flight in call.flights)

    def discard(self, partitions: Collection[TopicPartition]) -> None:
        self._leaving.difference_update(partitions)
        self._discarded = [c for c in self._discarded if not any(f.partition in partitions for f in c.flights)]
        gone: list[Call] = []
        for call in self._calls:
            lost = [flight for flight in call.flights if flight.partition in partitions]
            if not lost:
                continue
            call.lost |= {id(flight.origin) for flight in lost}
            call.flights = [flight for flight in call.flights if flight.partition not in partitions]
            if not call.flights:
                # Whatever comes of it is another's business now; until it ends it still counts as in progress.
                call.cancelled = True
                gone.append(call)
        # Behind the loop: the place of one that is cancelled is for none that is gone as well.
        for call in gone:
            self._runner.cancel(call)
        self._kept.renew([*self._discarded, *self._calls])

    def credit(self) -> int | None:
        limit = self._policy.credit(len(self._calls))
        if limit is not None:
            return min(limit, self._gate.credit())
        free = self._capacity - len(self._calls)
        return min(free if free * _FREE >= self._capacity else 0, self._gate.credit())

    def due(self) -> float | None:
        if self._runner.completed or self._runner.begun:
            return 0.0
        deadlines = self._deadlines
        while deadlines and (deadlines[0].done or deadlines[0].cancelled):
            deadlines.popleft()
        times = [deadlines[0].deadline] if deadlines else []
        if self._not_before < inf:
            earliest = self._schedule.earliest()
            if earliest is not None:
                times.append(max(earliest, self._not_before))
            if self._schedule.has_next():
                times.append(self._not_before)
        return min(times, default=None)

    def tick(self, now: float) -> None:
        """Commit what is done, cancel what has had its time, start what may start."""
        if self._runner.completed:
            self._take_back(now)
        deadlines, begun = self._deadlines, self._runner.begun
        while begun and self._timeout is not None:
            call = begun.popleft()
            if not call.done:
                call.deadline = now + self._timeout
                deadlines.append(call)
        while deadlines and (deadlines[0].done or deadlines[0].deadline <= now):
            call = deadlines.popleft()
            if not call.done and not call.cancelled:
                call.cancelled = True
                self._runner.cancel(call)
        self._flush()
        self._kept.settle()

    def _take_back(self, now: float) -> None:
        """Commit what the runner has completed."""
        completed, room, schedule = self._runner.completed, self._room, self._schedule
        is_final = self._policy is NO_POLICY
        while completed:
            found = completed.popleft()
            room.elsewhere -= 1
            if isinstance(found, CallBatch):
                self._commit_batch(found)
                continue
            found.done = True
            if found.ends_run is not None:
                raise found.ends_run
            if is_final or not self._is_repeated(found, now):
                schedule.done(found)
                self._finish(found)

    def end(self, mark: EndMark) -> None:
        """Calls in progress are awaited, and at the end of the input all others. A stop waits for none that a policy delays."""
        self._runner.expect_no_more()
        if mark is EndMark.INPUT:
            self._policy.input_over()
        elif self._emits_on_stop:
            # Their offsets are committed, so this is the last chance of each.
            self._policy.end()
            self._schedule.hurry()
            self._not_before = 0.0
        else:
            self._stopped = True
            if self._policy is not NO_POLICY:
                for call in self._schedule.discard_waiting():
                    self._discard(call)

    def _discard(self, call: Call) -> None:
        """Kept among the offsets, so that its records are read again."""
        self._discarded.append(call)
        del self._calls[call]
        self._policy.forget(call, self._room.now)
        if call.batch is not None:
            call.batch.calls.remove(call)
            call.batch.left -= 1
            self._close_if_done(call.batch)
        call.drop_outcome()

    def _is_repeated(self, call: Call, now: float) -> bool:
        """Whether the policy lets a call that has ended wait for another attempt, or a stop has discarded it for that."""
        # Whatever kept calls back may have changed.
        self._not_before = 0.0
        again = self._policy.after(call, now) if call.flights else None
        if again is None:
            return False
        if self._stopped or self._is_left(call):
            self._schedule.done(call)
            self._discard(call)
        else:
            self._schedule.again(call, again)
        return True

    def _finish(self, call: Call) -> None:
        """Its outcome is final."""
        if call.batch is None:
            self._commit(call)
        else:
            call.batch.left -= 1
            self._close_if_done(call.batch)

    def _commit(self, call: Call) -> None:
        """Let out what came of a call, and let go of its records."""
        outcome, policy = call.outcome, self._policy
        if policy is not NO_POLICY:
            policy.leaving(call)
        if outcome is not None:
            exits = exits_left(outcome.exits, call.lost) if call.lost else outcome.exits
            for cells, indexes, function, arguments in exits:
                if cells:
                    for cell, index in zip(cells, indexes, strict=True):
                        cell.at = index
                function(*arguments)
            for step in outcome.drops:
                self._counts.drops[step] += 1
        call.is_kept = False
        del self._calls[call]
        if policy is not NO_POLICY:
            policy.forget(call, self._room.now)
        self._release(call.flights)
        call.drop_outcome()

    def _seal(self) -> None:
        """The stage's batch is over, and with it the calls that share its resources."""
        batch, self._batch = self._batch, None
        if batch is not None:
            batch.sealed = True
            self._close_if_done(batch)

    def _close_if_done(self, batch: CallBatch) -> None:
        if batch.sealed and not batch.left:
            self._room.elsewhere += 1
            self._runner.close_batch(batch)

    def _commit_batch(self, batch: CallBatch) -> None:
        if batch.error is not None:
            raise batch.error
        for ready in self._batches.closed(batch):
            for call in ready.calls:
                self._commit(call)

    def _close(self) -> None:
        """The runner is closed, and nothing is committed any more. Calls that have not ended may still write to theirs."""
        for call in self._calls:
            call.drop_outcome()

    def _told(self) -> str | None:
        """What a stop waits for."""
        if not self._calls:
            return None
        places = [str(self._place(call.items[0][1])) for call in list(self._calls)[:_NAMED]]
        more = f" and {len(self._calls) - _NAMED} more" if len(self._calls) > _NAMED else ""
        return f"calls of {self._step_id} for {', '.join(places)}{more}"
