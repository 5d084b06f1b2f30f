"""A transaction that is aborted: the run goes on in place, with steps that have seen nothing, and nothing is doubled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from confluent_kafka import KafkaError, Producer
from msgspec.structs import replace

from loom.cli.exit_codes import Exit, exit_for
from loom.streaming import Message, RecordStep, StreamingRunner
from loom.streaming.kafka import SecondInstanceError, TopicPartition, TransactionAbortedError
from loom.streaming.kafka import consumer as consumer_module
from loom.streaming.kafka import transactions as transactions_module
from loom.streaming.kafka.consumer import ConsumerClient
from loom.streaming.kafka.offset_metadata import OffsetMetadata
from loom.streaming.kafka.settings import ConsumerSettings
from loom.streaming.kafka.start_offsets import StartPositions
from loom.streaming.kafka.transactions import Transactions
from loom.streaming.runtime import refencing
from tests.support.one_way import Number, OneWay, running
from tests.support.waiting import LONG_S, until


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
def aborting(times: int, patch: pytest.MonkeyPatch, behind: int = 0) -> Iterator[list[Mapping[TopicPartition, int]]]:
    """So many transactions with results are aborted, really, at the moment of their commit; the list holds their offsets.

    Those that bring no position beyond `behind` are committed before.
    """
    aborted: list[Mapping[TopicPartition, int]] = []
    commit = Transactions.commit

    def abort(self: Transactions, positions: Mapping[TopicPartition, int], group: Any) -> None:
        if any(offset > behind for offset in positions.values()) and len(aborted) < times:
            aborted.append(positions)
            raise self.given_up("the test says so")
        commit(self, positions, group)

    with patch.context() as patched:
        patched.setattr(Transactions, "commit", abort)
        yield aborted


class TimedOut:
    """The first transaction with results is ended by the broker at its commit, which waits until it is let go."""

    def __init__(self, one_way: OneWay, patch: pytest.MonkeyPatch) -> None:
        self.go_on = threading.Event()
        self._ended = threading.Event()
        commit = Transactions.commit

        def end(transactions: Transactions, positions: Mapping[TopicPartition, int], group: Any) -> None:
            if any(positions.values()) and not self._ended.is_set():
                # What the broker does when the time is up: it raises the epoch of the id, and aborts what is open.
                other = Producer(
                    {
                        "bootstrap.servers": one_way.bootstrap,
                        "log_level": 0,
                        "transactional.id": f"{one_way.group}@standing@0",
                    }
                )
                other.init_transactions(LONG_S)
                self._ended.set()
                assert self.go_on.wait(LONG_S)
            commit(transactions, positions, group)

        patch.setattr(Transactions, "commit", end)
        patch.setattr(Transactions, "_outlasted", lambda _: True)
        patch.setattr(refencing, "_LEAST_S", 0.5)

    def wait_for_it(self) -> None:
        assert self._ended.wait(LONG_S)


@contextmanager
def timing_out(one_way: OneWay, patch: pytest.MonkeyPatch) -> Iterator[TimedOut]:
    with patch.context() as patched:
        timed_out = TimedOut(one_way, patched)
        try:
            yield timed_out
        finally:
            timed_out.go_on.set()


@contextmanager
def aborting_next_start(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """The first commit of the next producer is aborted."""
    fence, commit = Transactions.fence, Transactions.commit
    fenced = list[Transactions]()

    def note(self: Transactions) -> None:
        fence(self)
        fenced.append(self)

    def abort(self: Transactions, positions: Mapping[TopicPartition, int], group: Any) -> None:
        if fenced == [self]:
            raise self.given_up("the test says so")
        commit(self, positions, group)

    with patch.context() as patched:
        patched.setattr(Transactions, "fence", note)
        patched.setattr(Transactions, "commit", abort)
        yield
    assert len(fenced) == 2


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


@pytest.mark.parametrize("membership", ["fixed", "group"])
def test_a_run_goes_on_behind_what_it_has_committed_before_the_abort(
    one_way: OneWay, monkeypatch: pytest.MonkeyPatch, membership: str
) -> None:
    one_way.write(3)
    run = runner(one_way, FirstTime, membership=membership)
    with aborting(1, monkeypatch, behind=3) as aborted, running(run) as raised:
        until(lambda: one_way.position() == 3)
        one_way.write(3, start=3)
        until(lambda: one_way.position() == 6)
        one_way.write(3, start=6)
        until(lambda: one_way.position() == 9)
    assert (len(aborted), raised) == (1, [])
    assert one_way.written() == list(range(9))


@pytest.mark.parametrize("membership", ["fixed", "group"])
def test_a_run_never_goes_on_before_what_it_has_committed_whatever_a_broker_says(
    one_way: OneWay, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], membership: str
) -> None:
    one_way.write(3)
    run = runner(one_way, FirstTime, membership=membership)
    with aborting(1, monkeypatch, behind=3) as aborted, running(run) as raised:
        until(lambda: one_way.position() == 3)
        for name in ("resolve_start", "start_in"):
            found = getattr(consumer_module, name)
            monkeypatch.setattr(consumer_module, name, lambda *given, found=found, **more: stale(found(*given, **more)))
        one_way.write(3, start=3)
        until(lambda: one_way.position() == 6)
    assert (len(aborted), raised) == (1, [])
    assert one_way.written() == list(range(6))
    assert "positions_behind" in capsys.readouterr().err


def stale(found: StartPositions) -> StartPositions:
    """What a coordinator would say that knows nothing of the last transaction."""
    return replace(found, offsets={partition: max(offset - 3, 0) for partition, offset in found.offsets.items()})


def run_id(one_way: OneWay) -> str | None:
    reader = ConsumerClient(ConsumerSettings((one_way.bootstrap,), one_way.group))
    try:
        (found,) = reader.group.committed([TopicPartition(one_way.source, 0)]).values()
        return OffsetMetadata.parse(found.metadata).run
    finally:
        reader.close()


@pytest.mark.parametrize("spoilt", [False, True], ids=["at once", "its first commit fails"])
def test_a_transaction_that_outlasted_its_time_out_is_taken_up_again_in_place_under_another_run_id(
    one_way: OneWay, monkeypatch: pytest.MonkeyPatch, *, spoilt: bool
) -> None:
    one_way.write(3)
    with timing_out(one_way, monkeypatch) as timed_out, running(runner(one_way, FirstTime)) as raised:
        timed_out.wait_for_it()
        before = run_id(one_way)
        with aborting_next_start(monkeypatch) if spoilt else nullcontext():
            timed_out.go_on.set()
            until(lambda: one_way.position() == 3)
        assert run_id(one_way) not in (None, before)
        one_way.write(3, start=3)
        until(lambda: one_way.position() == 6)
    assert raised == []
    assert one_way.written() == list(range(6))


class HeldUp(RecordStep[Number, Number]):
    """No record passes before it is let go."""

    at_work = threading.Event()
    go_on = threading.Event()

    def execute(self, message: Message[Number]) -> Number:
        self.at_work.set()
        assert self.go_on.wait(LONG_S)
        return message.payload


def test_a_transaction_that_outlasted_its_time_out_beside_a_successor_ends_this_run_and_not_that_one(
    one_way: OneWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_way.write(3)
    HeldUp.at_work.clear()
    HeldUp.go_on.clear()
    with timing_out(one_way, monkeypatch) as timed_out, running(runner(one_way, FirstTime)) as raised:
        timed_out.wait_for_it()
        # It has committed nothing beyond its start, so only its run id tells of it.
        with running(runner(one_way, HeldUp)) as successor:
            assert HeldUp.at_work.wait(LONG_S)
            timed_out.go_on.set()
            until(lambda: bool(raised))
            HeldUp.go_on.set()
            until(lambda: one_way.position() == 3)
    assert isinstance(raised[0], SecondInstanceError)
    assert exit_for(raised[0]) is Exit.REPLACED
    assert successor == []
    assert one_way.written() == [0, 1, 2]


def test_a_producer_that_failed_for_good_is_replaced_in_place(one_way: OneWay, monkeypatch: pytest.MonkeyPatch) -> None:
    one_way.write(3)
    commit, failed = Transactions.commit, list[int]()

    def fail(self: Transactions, positions: Mapping[TopicPartition, int], group: Any) -> None:
        if any(positions.values()) and not failed:
            failed.append(1)
            raise self.failed(KafkaError(KafkaError.INVALID_PRODUCER_ID_MAPPING, "the test says so", fatal=True))
        commit(self, positions, group)

    monkeypatch.setattr(Transactions, "commit", fail)
    with running(runner(one_way, FirstTime)) as raised:
        until(lambda: one_way.position() == 3)
    assert (failed, raised) == ([1], [])
    assert one_way.written() == [0, 1, 2]


@contextmanager
def losing(call: str, patch: pytest.MonkeyPatch) -> Iterator[list[Mapping[TopicPartition, int]]]:
    """The first transaction with results makes one call that does not return, whatever its limit; see `_LOST_S`.

    A commit has been made by then, positions have not been sent. The list holds the offsets of that transaction.
    """
    over, asked = threading.Event(), list[Mapping[TopicPartition, int]]()
    commit = Transactions.commit

    class Lossy(Producer):
        lost = False

        def send_offsets_to_transaction(self, *given: Any) -> None:
            self._lose("positions", lambda: None)
            super().send_offsets_to_transaction(*given)

        def commit_transaction(self, *given: Any) -> None:
            self._lose("commit", lambda: super(Lossy, self).commit_transaction(*given))
            super().commit_transaction(*given)

        def _lose(self, what: str, before: Callable[[], None]) -> None:
            if what == call and asked and not Lossy.lost:
                Lossy.lost = True
                before()
                over.wait()

    def note(self: Transactions, positions: Mapping[TopicPartition, int], group: Any) -> None:
        if any(positions.values()):
            asked.append(positions)
        commit(self, positions, group)

    with patch.context() as patched:
        patched.setattr(transactions_module, "Producer", Lossy)
        patched.setattr(transactions_module, "_LOST_S", 1.0)
        patched.setattr(Transactions, "commit", note)
        try:
            yield asked
        finally:
            over.set()


@pytest.mark.parametrize("membership", ["fixed", "group"])
@pytest.mark.parametrize("call", ["positions", "commit"])
def test_a_call_that_does_not_return_is_given_up_and_the_run_goes_on_with_another_client(
    one_way: OneWay, monkeypatch: pytest.MonkeyPatch, membership: str, call: str
) -> None:
    one_way.write(3)
    run = runner(one_way, FirstTime, membership=membership)
    with losing(call, monkeypatch) as asked, running(run) as raised:
        until(lambda: one_way.position() == 3)
        one_way.write(3, start=3)
        until(lambda: one_way.position() == 6)
    assert raised == []
    assert len(asked) > 1
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
