"""Calls that end in any order, fail, hang, are cancelled, repeated, stopped or revoked: order, conservation and balance hold.

The stage, the event loop and the calls are real. Each call waits until the generated schedule lets it go, and time is the
schedule's own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from loom.core.async_bridge import AsyncBridge
from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    ContextFactory,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RecordStep,
    ResourceScope,
    Retry,
    StreamFlow,
    WithAsync,
    compile_flow,
)
from loom.streaming.kafka import KafkaRecord, TopicPartition
from loom.streaming.kafka.record_accessor import RECORDS
from loom.streaming.metrics import Counts
from loom.streaming.runtime.output_table import output_table_of
from loom.streaming.runtime.stages.fuse import build_stage
from loom.streaming.runtime.stages.services import StageServices
from loom.streaming.runtime.stages.stage_io import EndMark, SourceBatch
from tests.support.running import config_for
from tests.support.waiting import LONG_S

LIMIT = 3
TIMEOUT_S = 10.0
#: attempts of a call that fails, and the seconds between two
ATTEMPTS, WAIT_S = 3, 1.0


class Number(LoomFrozenStruct):
    n: int


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def bridge(request: pytest.FixtureRequest) -> Iterator[AsyncBridge]:
    pytest.importorskip(request.param)
    made = AsyncBridge(request.param)
    yield made
    assert made.shutdown(LONG_S)


class World:
    """One stage, its calls, and what a bookkeeper knows of them."""

    def __init__(
        self, bridge: AsyncBridge, ordering: str, delivery: str, *, per_batch: bool, repeats: bool = False
    ) -> None:
        self.bridge = bridge
        self.ordering = ordering
        self.transaction = delivery == "exactly_once"
        self.repeats, self.per_batch = repeats, per_batch
        self.opened = self.closed = 0
        #: numbers that were dropped, and those whose calls were cancelled from outside, by time or by a revocation
        self.dropped: set[int] = set()
        self.cut_off: set[int] = set()
        #: the calls that wait, by number, each with what lets it go
        self.waiting: dict[int, tuple[anyio.Event, list[str]]] = {}
        self.most = 0
        self.keys_at_work: Counter[bytes] = Counter()
        world = self

        class Call(RecordStep[Number, Number | None]):
            async def execute(self, message: Message[Number], client: str) -> Number | None:
                n, key = message.payload.n, message.meta.key
                if key is not None:
                    assert isinstance(key, bytes)
                    world.keys_at_work[key] += 1
                    assert world.ordering != "key" or world.keys_at_work[key] == 1
                event, outcome = anyio.Event(), list[str]()
                world.waiting[n] = (event, outcome)
                world.most = max(world.most, len(world.waiting))
                try:
                    await event.wait()
                except anyio.get_cancelled_exc_class():
                    world.cut_off.add(n)
                    raise
                finally:
                    world.waiting.pop(n, None)
                    if isinstance(key, bytes):
                        world.keys_at_work[key] -= 1
                if outcome[0] == "task":
                    raise ValueError(str(n))
                if outcome[0] == "business":
                    raise RuleViolation(str(n))
                if outcome[0] == "cancelled":
                    # As a library does that has lost its own task: no cancellation of the call.
                    raise asyncio.CancelledError
                if outcome[0] == "drop":
                    world.dropped.add(n)
                    return None
                return message.payload

        @asynccontextmanager
        async def client() -> AsyncIterator[str]:
            await anyio.lowlevel.checkpoint()
            world.opened += 1
            try:
                yield "client"
            finally:
                world.closed += 1

        scope = WithAsync(
            ResourceScope.BATCH if per_batch else ResourceScope.WORKER,
            LIMIT,
            int(TIMEOUT_S * 1000) * 1_000,  # by the clock of the schedule, never by that of the machine
            process=Process(Call),
            ordering=ordering,  # type: ignore[arg-type]
            retry=Retry(ATTEMPTS, wait_initial_ms=int(WAIT_S * 1000), wait_jitter_ms=0) if repeats else None,
            client=ContextFactory(client),
        )
        self.timeout_s = TIMEOUT_S * 1_000
        flow = StreamFlow("f", FromTopic("numbers", Number), Process(scope), IntoTopic("out"), IntoTopic("errors"))
        plan = compile_flow(flow, config=config_for(consumer={"delivery": delivery}))
        slots = output_table_of(plan, sink=None, terminal_sinks=None, error_sinks=None).slots
        self.names = slots.names
        self.counts = Counts()
        self.stage = build_stage(
            plan, slots, RECORDS, self.counts, lambda envelope: None, services=StageServices(None, bridge)
        )
        self.now = 1.0
        self.read: dict[TopicPartition, int] = {}
        self.safe: dict[TopicPartition, int] = {}
        #: (slot, record) in the order of leaving
        self.left: list[tuple[str, KafkaRecord]] = []
        self.taken: list[KafkaRecord] = []
        self.revoked: set[int] = set()
        #: partitions whose calls are awaited before they are another's
        self.leaving: set[int] = set()
        self.held: list[KafkaRecord] = []
        self.number = 0

    def run(
        self,
        records: list[KafkaRecord],
        end: EndMark | None = None,
        discarded: frozenset[TopicPartition] = frozenset(),
        leaving: frozenset[TopicPartition] = frozenset(),
    ) -> None:
        for record in records:
            self.read[TopicPartition("numbers", record.partition or 0)] = (record.offset or 0) + 1
        moved = dict(self.read) if records else {}
        batch = SourceBatch(self.stage, records, moved, self.now, end)
        batch.discarded, batch.leaving = discarded, leaving
        before = dict(self.safe)
        results = self.stage.run(batch)
        self.left += [(self.names[result[0]], result[5]) for result in results.results]
        for _, record in self.left[len(self.left) - len(results.results) :]:
            assert id(record) not in self.revoked, "something of a revoked partition has left"
        self.safe.update(results.safe)
        for partition, offset in results.safe.items():
            assert offset >= before.get(partition, 0), "a position went back"

    def settle(self) -> None:
        """Let the loop go round, and the stage see what came of it, until nothing moves."""
        for _ in range(20):
            self.stage.room.settle()
            due = self.stage.room.due()
            if due is None or due > self.now:
                return
            self.run([])
        raise AssertionError("it never settles")

    def take(self, places: list[tuple[int, bytes | None]]) -> None:
        room = self.stage.room.credit(len(places))
        records = []
        for partition, key in places[:room]:
            if partition in self.leaving:
                continue
            where = TopicPartition("numbers", partition)
            offset = self.read.get(where, 0) + sum(1 for r in records if r.partition == partition)
            records.append(KafkaRecord("numbers", key, b'{"n":%d}' % self.number, {}, partition, offset))
            self.number += 1
        if records:
            self.taken += records
            self.run(records)
            self.settle()

    def let_go(self, which: int, outcome: str) -> None:
        if not self.waiting:
            return
        number = sorted(self.waiting)[which % len(self.waiting)]
        event, told = self.waiting[number]
        told.append(outcome)
        self.bridge.run(lambda: _set(event))
        self.settle()

    def pass_time(self, seconds: float | None = None) -> None:
        self.now += self.timeout_s if seconds is None else seconds
        self.run([])
        self.settle()

    def leave(self, partition: int) -> None:
        """The partition is to be another's: nothing more is read of it, and its calls in progress are awaited."""
        cut_off, waiting = set(self.cut_off), self.waiting_of(partition)
        self.leaving.add(partition)
        self.run([], leaving=frozenset({TopicPartition("numbers", partition)}))
        self.settle()
        assert (self.cut_off, self.waiting_of(partition) >= waiting) == (cut_off, True)
        if self.repeats and not self.per_batch:
            # Nothing is begun any more of what a policy may delay.
            assert self.stage.room.in_progress({TopicPartition("numbers", partition)}) == bool(waiting)

    def waiting_of(self, partition: int) -> set[int]:
        return {n for n in self.waiting if (origin := self.origin(n)) is not None and origin.partition == partition}

    def revoke(self, partition: int) -> None:
        where = TopicPartition("numbers", partition)
        others = self.cut_off | {n for n in self.waiting if n not in self.waiting_of(partition)}
        self.leaving.discard(partition)
        self.held += self.taken  # so that an id stays one record's
        self.revoked |= {id(record) for record in self.taken if record.partition == partition}
        self.taken = [record for record in self.taken if record.partition != partition]
        self.left = [(slot, record) for slot, record in self.left if record.partition != partition]
        self.safe.pop(where, None)
        self.read.pop(where, None)
        self.run([], discarded=frozenset({where}))
        self.settle()
        # Calls of other partitions go on.
        assert others - self.cut_off <= self.waiting.keys()

    def check(self) -> None:
        """What holds at every moment."""
        assert self.most <= LIMIT
        gone = {id(record) for _, record in self.left}
        for where, offset in self.safe.items():
            kept = {id(self.origin(n)) for n in self.waiting}
            for record in self.taken:
                if record.partition == where.partition and (record.offset or 0) < offset:
                    assert id(record) not in kept, "a position passed a call in progress"
                    assert id(record) in gone or self.number_of(record) in self.dropped, "a position passed a record"
                if self.transaction and record.partition == where.partition and (record.offset or 0) >= offset:
                    assert id(record) not in gone, "what has left is no prefix"
        for ordered in self.orders():
            offsets = [record.offset for record in ordered]
            assert offsets == sorted(offsets)  # type: ignore[type-var]

    @staticmethod
    def number_of(record: KafkaRecord) -> int:
        return int((record.value or b"")[5:-1])

    def origin(self, n: int) -> KafkaRecord | None:
        return next((record for record in self.taken if record.value == b'{"n":%d}' % n), None)

    def orders(self) -> Iterator[list[KafkaRecord]]:
        if self.ordering == "partition" or self.transaction:
            for slot in ("out", "errors"):
                for partition in range(3):
                    yield [r for name, r in self.left if name == slot and r.partition == partition]
        elif self.ordering == "key":
            for slot in ("out", "errors"):
                for key in (b"a", b"b"):
                    for partition in range(3):
                        yield [r for name, r in self.left if name == slot and (r.key, r.partition) == (key, partition)]

    def finish(self, mark: EndMark) -> None:
        """End the input or stop, and let every call go."""
        for partition in sorted(self.leaving):
            self.revoke(partition)
        self.run([], mark)
        self.settle()
        while self.waiting or not self.stage.ended:
            if self.waiting:
                self.let_go(0, "out")
            else:
                self.pass_time(WAIT_S * ATTEMPTS)
            self.check()
        self.settle()
        self.run([])
        assert self.stage.ended
        self.check()
        # Every record in one place; nothing is kept, nothing is waited for.
        found = Counter(id(record) for _, record in self.left)
        assert all(count == 1 for count in found.values())
        assert set(found) <= {id(record) for record in self.taken}
        if not self.revoked and not (self.repeats and mark is EndMark.STOP):
            counts = self.counts
            assert counts.read == len(self.taken)
            assert counts.read == counts.inputs_written + counts.inputs_dropped + sum(counts.inputs_failed.values())
            assert counts.inputs_dropped == len(self.taken) - len(found)
            assert self.safe == self.read
        self.stage.close()
        assert self.opened == self.closed
        assert self.opened >= bool(self.taken)


async def _set(event: anyio.Event) -> None:
    event.set()


PLACES = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([None, b"a", b"b"])), min_size=1, max_size=6)
OUTCOMES = st.sampled_from(["out", "out", "task", "task", "business", "drop", "cancelled"])
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), PLACES),
        st.tuples(st.just("take"), PLACES),
        st.tuples(st.just("let go"), st.integers(0, 5), OUTCOMES),
        st.tuples(st.just("let go"), st.integers(0, 5), OUTCOMES),
        st.tuples(st.just("time")),
        st.tuples(st.just("wait")),
        st.tuples(st.just("leave"), st.integers(0, 2)),
        st.tuples(st.just("revoke"), st.integers(0, 2)),
    ),
    max_size=14,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@example(
    # The second call of a key is done, and its batch closed, before another call lets the batch of the first one close.
    acts=[("take", [(0, None), (2, b"b")]), ("let go", 1, "out"), ("take", [(2, b"b")]), ("let go", 1, "out")],
    ordering="key",
    delivery="at_least_once",
    mark=EndMark.INPUT,
    per_batch=True,
    repeats=False,
)
@given(
    acts=ACTS,
    ordering=st.sampled_from(["partition", "key", "none"]),
    delivery=st.sampled_from(["at_least_once", "exactly_once"]),
    mark=st.sampled_from(EndMark),
    per_batch=st.booleans(),
    repeats=st.booleans(),
)
def test_order_conservation_and_balance_hold_on_any_schedule(
    bridge: AsyncBridge, acts: list[Any], ordering: str, delivery: str, mark: EndMark, per_batch: bool, repeats: bool
) -> None:
    world = World(bridge, ordering, delivery, per_batch=per_batch, repeats=repeats)
    try:
        for act, *how in acts:
            match act:
                case "take":
                    world.take(*how)
                case "let go":
                    world.let_go(*how)
                case "time":
                    world.pass_time()
                case "wait":
                    world.pass_time(WAIT_S)
                case "leave":
                    world.leave(*how)
                case "revoke":
                    world.revoke(*how)
            world.check()
        world.finish(mark)
    finally:
        world.stage.close()


@pytest.mark.parametrize("per_batch", [False, True])
def test_calls_whose_partition_is_anothers_before_they_begin_are_not_made(bridge: AsyncBridge, per_batch: bool) -> None:
    """The task that was to make the first of them once went round for ever."""
    world = World(bridge, "none", "at_least_once", per_batch=per_batch)
    world.take([(2, None)] * 2 * LIMIT)
    assert set(world.waiting) == set(range(LIMIT))
    world.revoke(2)
    assert world.cut_off == set(range(LIMIT))
    world.take([(0, None)])
    world.let_go(0, "out")
    world.finish(EndMark.INPUT)
    assert [record.partition for _, record in world.left] == [0]


@pytest.mark.parametrize("per_batch", [False, True])
def test_closing_a_stage_cancels_its_calls_and_closes_their_resources(bridge: AsyncBridge, per_batch: bool) -> None:
    world = World(bridge, "partition", "at_least_once", per_batch=per_batch)
    world.take([(0, None), (1, None)])
    assert (len(world.waiting), world.opened, world.closed) == (2, 1, 0)
    world.stage.close()
    assert (world.waiting, world.opened, world.closed) == ({}, 1, 1)
    assert world.left == []
    world.stage.close()
