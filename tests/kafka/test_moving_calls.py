"""Calls in progress for partitions that are given to another member, on Apache Kafka."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import pytest

from loom.streaming import Process, StreamingRunner, WithAsync, failpoints, step
from loom.streaming.failpoints import Failpoint
from tests.support.kafka_io import produce_numbered
from tests.support.one_way import Number, OneWay, accounted, running
from tests.support.running import positions
from tests.support.waiting import LONG_S, until

#: milliseconds; a revocation awaits calls for a quarter of it
SESSION, LONG_SESSION = 12_000, 120_000
COUNT = 40
REVOKED = re.compile(r"partitions_revoked .*revoked=1 .*ms=(\d+)")
#: a member keeps the partition that it has
KEPT = re.compile(r"partitions_assigned .*added=0 now=1 ")
#: of each partition, how many calls end while they are awaited
IN_TIME = 5


class Service:
    """Calls of one member: which have begun, ended and been cancelled; each waits until it is let go."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()
        self.ended: set[int] = set()
        self.cancelled: set[int] = set()
        self._let_go: set[int] = set()
        self._waiting: dict[int, Callable[[], object]] = {}

    def let_go(self, *numbers: int) -> None:
        self._let_go.update(numbers)
        for n in self._waiting.keys() & set(numbers):
            self._waiting[n]()

    async def ask(self, n: int) -> None:
        event, loop = asyncio.Event(), asyncio.get_running_loop()
        self._waiting[n] = partial(loop.call_soon_threadsafe, event.set)
        self.begun[n] += 1
        try:
            if n not in self._let_go:
                await event.wait()
        except asyncio.CancelledError:
            self.cancelled.add(n)
            raise
        self.ended.add(n)


@step
async def ask(number: Number, service: Service) -> Number:
    await service.ask(number.n)
    return number


def member(
    one_way: OneWay, service: Service, delivery: str, session_ms: int = SESSION, at_once: int = COUNT
) -> StreamingRunner:
    scope = WithAsync(process=Process(ask), max_concurrency=at_once, service=service)
    return one_way.runner(scope, delivery=delivery, membership="group", session_timeout_ms=session_ms)


@contextmanager
def reached(expected: Failpoint) -> Iterator[threading.Event]:
    """Set when any member comes to this point."""
    told = threading.Event()
    before = failpoints.install(lambda point: told.set() if point is expected else None)
    yield told
    failpoints.install(before)


def revocations() -> AbstractContextManager[threading.Event]:
    """Set when partitions are to be given up, and their worker has been told."""
    return reached(Failpoint.REVOKING)


@pytest.fixture
def two_partitions(one_way: OneWay) -> OneWay:
    one_way.source = one_way.fresh.create("in", 2)
    write(one_way, COUNT)
    return one_way


def write(one_way: OneWay, count: int, start: int = 0) -> None:
    produce_numbered(
        one_way.bootstrap, one_way.source, count, start=start, partitions=2, value=lambda n: b'{"n":%d}' % n
    )


def test_a_partition_moves_when_its_calls_have_ended_and_none_is_made_twice(
    two_partitions: OneWay, capfd: pytest.CaptureFixture[str]
) -> None:
    delivery = "at_least_once"
    one_way, old, new = two_partitions, Service(), Service()
    printed: list[str] = []

    def revoked() -> bool:
        printed.append(capfd.readouterr().err)
        return REVOKED.search("".join(printed)) is not None

    new.let_go(*range(COUNT))
    with running(member(one_way, old, delivery, LONG_SESSION)) as raised, revocations() as told:
        until(lambda: len(old.begun) == COUNT)
        with running(member(one_way, new, delivery, LONG_SESSION)) as none_raised:
            assert told.wait(LONG_S)
            old.let_go(*range(COUNT))
            until(lambda: positions(one_way.bootstrap, one_way.source, one_way.group) == {0: 20, 1: 20})
            # The offsets are committed before the line that tells of it is written.
            until(revoked)
    assert (raised, none_raised) == ([], [])
    assert old.ended == set(range(COUNT))
    assert new.begun == {}
    assert sorted(one_way.written()) == list(range(COUNT))


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_calls_that_outlast_a_revocation_are_cancelled_and_made_by_the_new_owner_and_no_others(
    two_partitions: OneWay, delivery: str
) -> None:
    one_way, old, new = two_partitions, Service(), Service()
    first = {n for n in range(COUNT) if n // 2 < IN_TIME}
    new.let_go(*range(COUNT))
    with running(member(one_way, old, delivery)) as raised, revocations() as told:
        until(lambda: len(old.begun) == COUNT)
        runner = member(one_way, new, delivery)
        with running(runner) as none_raised:
            assert told.wait(LONG_S)
            old.let_go(*first)
            until(accounted(runner, COUNT // 2 - IN_TIME))
            moved = set(new.begun)
            # The calls of the other partition have not been touched.
            until(lambda: old.cancelled >= moved)
            assert old.cancelled == moved
            assert len(old.begun) == COUNT
            old.let_go(*range(COUNT))
            until(lambda: positions(one_way.bootstrap, one_way.source, one_way.group) == {0: 20, 1: 20})
    assert (raised, none_raised) == ([], [])
    assert len({n % 2 for n in moved}) == 1
    # What had ended in time was committed by its old owner.
    assert moved == {n for n in range(COUNT) if n % 2 == min(moved) % 2} - first
    assert old.ended == set(range(COUNT)) - moved
    assert set(old.begun.values()) == set(new.begun.values()) == {1}
    assert sorted(one_way.written()) == list(range(COUNT))


def test_a_rebalance_aborts_no_transaction_that_has_nothing_new_of_a_partition(
    two_partitions: OneWay, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each transaction named all partitions, so that one which met a rebalance was aborted, and every call made again."""
    one_way, old, first, new = two_partitions, Service(), Service(), Service()
    old.let_go(*range(COUNT))
    first.let_go(*range(COUNT, 2 * COUNT))
    new.let_go(*range(3 * COUNT))
    told, held, release = threading.Event(), threading.Event(), threading.Event()

    def hold(point: Failpoint) -> None:
        """Hold a transaction between its results and its offsets, from the revocation on."""
        if point is Failpoint.REVOKING:
            told.set()
        elif point is Failpoint.FLUSHED and told.is_set() and not held.is_set():
            held.set()
            assert release.wait(LONG_S)

    def log() -> str:
        printed.append(capfd.readouterr().err)
        return "".join(printed)

    def was_aborted() -> bool:
        return "run_taken_up_again" in log()

    def knows_the_new_owner() -> bool:
        """The old member has been told of both generations: the broker refuses the offsets of one that lags behind."""
        return len(KEPT.findall(log().rpartition("partitions_revoked")[2])) >= 2

    printed: list[str] = []
    runner = member(one_way, old, "exactly_once", at_once=3 * COUNT)
    with running(runner) as raised:
        until(accounted(runner, COUNT))
        # Which partition a second member is given; the next one is given the same.
        with reached(Failpoint.ASSIGNED) as given, running(member(one_way, first, "exactly_once")) as first_raised:
            assert given.wait(LONG_S)
            write(one_way, COUNT, start=COUNT)
            until(lambda: len(first.ended) == COUNT // 2)
        moving = min(first.begun) % 2
        staying = [n for n in range(COUNT, 3 * COUNT) if n % 2 != moving]
        moved = set(range(2 * COUNT, 3 * COUNT)) - set(staying)
        write(one_way, COUNT, start=2 * COUNT)
        until(lambda: moved.union(staying) <= set(old.begun))
        before = failpoints.install(hold)
        try:
            with running(member(one_way, new, "exactly_once")) as new_raised:
                assert told.wait(LONG_S)
                old.let_go(*staying[:IN_TIME])
                assert held.wait(LONG_S)
                until(lambda: set(new.begun) == moved)
                until(knows_the_new_owner)
                release.set()
                old.let_go(*staying)
                until(lambda: was_aborted() or len(one_way.written()) == 3 * COUNT)
                assert not was_aborted(), log()
        finally:
            release.set()
            failpoints.install(before)
    assert (raised, first_raised, new_raised) == ([], [], [])
    assert {old.begun[n] for n in staying} == {1}
    assert (old.ended & moved, set(new.begun)) == (set(), moved)
    assert sorted(one_way.written()) == list(range(3 * COUNT))
    # What an aborted transaction has written can be read, too, by who asks for it.
    assert sorted(one_way.written("read_uncommitted")) == list(range(3 * COUNT))
