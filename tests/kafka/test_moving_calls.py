"""Calls in progress for partitions that are given to another member, on Apache Kafka."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def member(one_way: OneWay, service: Service, delivery: str, session_ms: int = SESSION) -> StreamingRunner:
    scope = WithAsync(process=Process(ask), max_concurrency=COUNT, service=service)
    return one_way.runner(scope, delivery=delivery, membership="group", session_timeout_ms=session_ms)


@contextmanager
def revocations() -> Iterator[threading.Event]:
    """Set when partitions are to be given up, and their worker has been told."""
    told = threading.Event()
    before = failpoints.install(lambda point: told.set() if point is Failpoint.REVOKING else None)
    yield told
    failpoints.install(before)


@pytest.fixture
def two_partitions(one_way: OneWay) -> OneWay:
    one_way.source = one_way.fresh.create("in", 2)
    produce_numbered(one_way.bootstrap, one_way.source, COUNT, partitions=2, value=lambda n: b'{"n":%d}' % n)
    return one_way


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
