"""A transaction that is aborted: the run goes on in place, with steps that have seen nothing, and nothing is doubled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from loom.cli.exit_codes import Exit, exit_for
from loom.streaming import Message, RecordStep, StreamingRunner
from loom.streaming.kafka import TopicPartition, TransactionAbortedError
from loom.streaming.kafka.transactions import Transactions
from tests.support.one_way import Number, OneWay, running, until


class FirstTime(RecordStep[Number, Number]):
    """Drops what it has seen: a record that comes again after an abort would be lost with it."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def execute(self, message: Message[Number]) -> Number | None:
        if message.payload.n in self.seen:
            return None
        self.seen.add(message.payload.n)
        return message.payload


class Endless(RecordStep[Number, Number]):
    """Holds what nobody can put back."""

    def __init__(self) -> None:
        self.numbers = iter(range(1_000_000))

    def execute(self, message: Message[Number]) -> Number:
        return message.payload


@contextmanager
def aborting(times: int, patch: pytest.MonkeyPatch) -> Iterator[list[Mapping[TopicPartition, int]]]:
    """So many transactions with results are aborted, really, at the moment of their commit; the list holds their offsets."""
    aborted: list[Mapping[TopicPartition, int]] = []
    commit = Transactions.commit

    def abort(self: Transactions, positions: Mapping[TopicPartition, int], group: Any) -> None:
        if any(positions.values()) and len(aborted) < times:
            aborted.append(positions)
            raise self.given_up("the test says so")
        commit(self, positions, group)

    with patch.context() as patched:
        patched.setattr(Transactions, "commit", abort)
        yield aborted


def runner(one_way: OneWay, node: Any, *, recoveries: int = 10, workers: int = 1, **consumer: Any) -> StreamingRunner:
    config = one_way.config(delivery="exactly_once", **consumer)
    config["streaming"]["supervision"] = {"recoveries": recoveries}
    config["streaming"]["runtime"]["workers_per_process"] = workers
    return StreamingRunner.from_dict(one_way.flow(node), config)


@pytest.mark.parametrize("membership", ["fixed", "group"])
@pytest.mark.parametrize("as_instance", [False, True])
def test_a_run_goes_on_with_steps_that_have_seen_nothing(
    one_way: OneWay, monkeypatch: pytest.MonkeyPatch, membership: str, *, as_instance: bool
) -> None:
    one_way.write(3)
    run = runner(one_way, FirstTime() if as_instance else FirstTime, membership=membership)
    with aborting(2, monkeypatch) as aborted, running(run) as raised:
        until(lambda: one_way.position() == 3)
        one_way.write(3, start=3)
        until(lambda: one_way.position() == 6)
    assert (len(aborted), raised) == (2, [])
    assert one_way.written() == list(range(6))


def test_without_progress_the_run_ends_to_be_restarted(one_way: OneWay, monkeypatch: pytest.MonkeyPatch) -> None:
    one_way.write(3)
    with aborting(10, monkeypatch) as aborted, running(runner(one_way, FirstTime, recoveries=2)) as raised:
        until(lambda: bool(raised))
    assert len(aborted) == 3
    assert isinstance(raised[0], TransactionAbortedError)
    assert exit_for(raised[0]) is Exit.RESTART
    assert (one_way.written(), one_way.position()) == ([], 0)


@pytest.mark.parametrize(("node", "recoveries"), [(FirstTime, 0), (Endless(), 10)], ids=["off", "cannot forget"])
def test_where_it_is_off_or_a_step_cannot_forget_the_first_abort_ends_the_run(
    one_way: OneWay, monkeypatch: pytest.MonkeyPatch, node: Any, recoveries: int
) -> None:
    one_way.write(3)
    with aborting(10, monkeypatch) as aborted, running(runner(one_way, node, recoveries=recoveries)) as raised:
        until(lambda: bool(raised))
    assert len(aborted) == 1
    assert exit_for(raised[0]) is Exit.RESTART


def test_all_workers_of_a_process_begin_again(one_way: OneWay, monkeypatch: pytest.MonkeyPatch) -> None:
    one_way.write(3)
    run = runner(one_way, FirstTime, workers=2, membership="group")
    with aborting(1, monkeypatch) as aborted, running(run) as raised:
        until(lambda: one_way.position() == 3)
    assert (len(aborted), raised) == (1, [])
    assert one_way.written() == [0, 1, 2]
