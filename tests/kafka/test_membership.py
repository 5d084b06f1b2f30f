"""Processes that share a group, on Apache Kafka: they join, leave, are killed and frozen, and nothing is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from loom.cli.exit_codes import Exit, exit_for
from loom.streaming import step
from loom.streaming.kafka import SecondInstanceError, TopicPartition
from tests.support.broker import Broker
from tests.support.flow_process import FlowProcess
from tests.support.group_member import SESSION, Heard, joined
from tests.support.kafka_io import group_positions, produce_numbered
from tests.support.load import Load
from tests.support.numbers_run import PARTITIONS, NumbersRun
from tests.support.one_way import Number, OneWay, accounted, running
from tests.support.running import positions
from tests.support.waiting import LONG_S, until

RATE = 400.0


@contextmanager
def members(run: NumbersRun, count: int) -> Iterator[list[FlowProcess]]:
    """So many processes of one flow, which have joined."""
    with ExitStack() as stack:
        found = [stack.enter_context(run.flow.twin(f"member-{index}.log")) for index in range(count)]
        for one in found:
            one.start()
        for one in found:
            one.await_line("partitions_assigned")
        yield found


def numbers(kafka: Broker, directory: Path, *, session_ms: int = SESSION, **consumer: Any) -> NumbersRun:
    return NumbersRun(
        kafka,
        directory,
        runtime={"epoch_interval_ms": 200},
        membership="group",
        session_timeout_ms=session_ms,
        **consumer,
    )


def members_of(run: NumbersRun | OneWay) -> list[Any]:
    admin = AdminClient({"bootstrap.servers": run.bootstrap})
    return list(admin.describe_consumer_groups([run.group])[run.group].result(LONG_S).members)


def finish(run: NumbersRun, load: Load, one: FlowProcess, *others: FlowProcess) -> None:
    """See everything through, stop in order, and look at the books."""
    count = load.finish()
    one.await_positions(run.bootstrap, run.group, run.source, run.ends())
    for member in (one, *others):
        member.sigterm()
    for member in (one, *others):
        assert member.wait(LONG_S) == 0, member.tail()
    run.assert_promise_kept(count)


def test_members_join_leave_are_killed_and_frozen_and_nothing_is_lost(kafka: Broker, tmp_path: Path) -> None:
    run = numbers(kafka, tmp_path, delivery="exactly_once")
    load = Load(run.bootstrap, run.source, rate=RATE, partitions=PARTITIONS)
    with members(run, 2) as (one, two), run.flow.twin("member-late.log") as late:
        load.start()
        load.run_on(2)
        late.start()
        late.await_line("partitions_assigned.*added=[1-9]")
        load.run_on(1)
        two.sigterm()
        assert two.wait(LONG_S) == 0, two.tail()
        two.start()
        two.await_line("partitions_assigned.*added=[1-9]")
        two.sigkill()
        load.run_on(1)
        late.send(signal.SIGSTOP)
        load.run_on(SESSION / 1000 + 1)
        late.send(signal.SIGCONT)
        late.await_line("partitions_lost|partitions_assigned.*added=[1-9]")
        load.run_on(2)
        finish(run, load, one, late)


def test_only_what_is_of_a_current_tenure_is_committed(one_way: OneWay) -> None:
    partition = TopicPartition(one_way.source, 0)
    heard = Heard()
    one_way.write(5)
    with joined(one_way, heard) as member:
        until(lambda: partition in heard.has)
        tenure = heard.has[partition]
        assert member.commit({partition: 4}, {partition: tenure - 1}).answer.result(LONG_S) == {}
        assert one_way.position() is None
        assert member.commit({partition: 3}, {partition: tenure}).answer.result(LONG_S) == {partition: 3}
    assert one_way.position() == 3
    assert member.commit({partition: 5}, {partition: tenure}).answer.result(0) == {}


def test_a_revocation_that_does_not_end_takes_the_partition_away_before_another_member_has_it(one_way: OneWay) -> None:
    partition = TopicPartition(one_way.source, 0)
    stubborn, other = Heard(gives_up=False), Heard()
    with joined(one_way, stubborn):
        until(lambda: partition in stubborn.has)
        # The assignor gives the only partition to whichever member has the lower id: look from both sides.
        with joined(one_way, other, group_instance_id="other"):
            until(lambda: partition in other.has or partition in stubborn.has)
        until(lambda: partition in stubborn.has)
    told = [what for what, partitions in stubborn.told if partition in partitions]
    assert told[-2:] == ["revoking", "withdraw"]
    assert stubborn.has == {}


def test_a_partition_is_read_and_committed_until_the_others_are_able_to_take_it(one_way: OneWay) -> None:
    source = one_way.fresh.create("two", 2)
    partitions = [TopicPartition(source, number) for number in range(2)]
    older, newer = Heard(), Heard()
    with joined(one_way, older, source=source) as member:
        until(lambda: len(older.has) == 2)
        tenures = dict(older.has)
        with joined(one_way, newer, source=source):
            until(lambda: newer.rebalances > 0)
            offsets, committed = dict.fromkeys(partitions, 0), list[object]()
            # The client of the newer member cannot join again earlier than a second after it did so.
            while not older.told:
                committed.append(member.commit(offsets, tenures).answer.result(LONG_S))
            assert [answer for answer in committed if answer not in (offsets, {})] == []
            assert offsets in committed
            until(lambda: len(newer.has) == 1)
            assert [what for what, _ in older.told] == ["revoking", "withdraw"]


def test_a_worker_that_does_not_come_back_makes_the_member_leave_and_join_again(one_way: OneWay) -> None:
    partition = TopicPartition(one_way.source, 0)
    heard = Heard()
    with joined(one_way, heard, max_poll_interval_ms=SESSION) as member:
        until(lambda: partition in heard.has)
        heard.stuck = SESSION / 1000 + 1
        until(lambda: heard.has == {})
        assert member.metadata is None
        heard.stuck = 0.0
        until(lambda: partition in heard.has)


def test_of_two_processes_with_one_name_the_older_one_ends(one_way: OneWay) -> None:
    partition = TopicPartition(one_way.source, 0)
    older, newer = Heard(), Heard()
    with joined(one_way, older, group_instance_id="orders-0"):
        until(lambda: partition in older.has)
        with joined(one_way, newer, group_instance_id="orders-0"):
            until(lambda: older.fault is not None and partition in newer.has)
    assert isinstance(older.fault, SecondInstanceError)
    assert "'orders-0'" in str(older.fault)
    assert exit_for(older.fault) is Exit.REPLACED


@pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once", None])
def test_what_a_member_has_committed_is_not_read_again(one_way: OneWay, delivery: str | None) -> None:
    for start in (0, 3):
        one_way.write(3, start=start)
        runner = one_way.runner(delivery=delivery, membership="group")
        with running(runner) as raised:
            until(accounted(runner, 3))
        assert raised == []
        assert one_way.position() == start + 3
    assert one_way.written() == list(range(6))


def test_a_fixed_process_ends_when_members_join_its_group_and_members_keep_a_fixed_one_out(one_way: OneWay) -> None:
    one_way.write(1)
    fixed, member = one_way.runner(), one_way.runner(membership="group")
    with running(fixed) as raised:
        until(lambda: one_way.position() == 1)
        with running(member) as none_raised:
            # Only a commit tells the fixed one of it.
            until(lambda: members_of(one_way))
            one_way.write(2, start=1)
            until(lambda: bool(raised))
            assert isinstance(raised[0], SecondInstanceError)
            until(lambda: one_way.position() == 3)
            with pytest.raises(SecondInstanceError, match="other consumers are subscribed"):
                one_way.runner().run()
    assert none_raised == []
    with running(one_way.runner()) as raised:
        one_way.write(1, start=3)
        until(lambda: one_way.position() == 4)
    assert raised == []
    assert set(one_way.written()) == {0, 1, 2, 3}


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_worker_that_is_busy_for_longer_than_a_revocation_may_take_loses_and_doubles_nothing(
    one_way: OneWay, capfd: pytest.CaptureFixture[str], delivery: str
) -> None:
    one_way.source = one_way.fresh.create("in", 2)
    produce_numbered(one_way.bootstrap, one_way.source, 40, partitions=2, value=lambda n: b'{"n":%d}' % n)
    at_work, over = Event(), Event()

    @step
    def slow(number: Number) -> Number:
        if number.n == 10 and not over.is_set():
            at_work.set()
            over.wait(LONG_S)
        return number

    settings = {"delivery": delivery, "membership": "group", "session_timeout_ms": SESSION}
    busy, other = one_way.runner(slow, **settings), one_way.runner(**settings)
    with running(busy) as raised:
        assert at_work.wait(LONG_S)
        with running(other) as none_raised:
            # The group gives the other one a partition of which the busy one has records at work.
            until(accounted(other, 20))
            assert "revocation_overdue" in capfd.readouterr().err
            over.set()
            until(lambda: positions(one_way.bootstrap, one_way.source, one_way.group) == {0: 20, 1: 20})
    assert (raised, none_raised) == ([], [])
    found = one_way.written()
    assert set(found) == set(range(40))
    if delivery == "exactly_once":
        assert len(found) == 40


def test_a_killed_member_with_a_name_comes_back_to_its_partitions_and_nothing_moves(
    kafka: Broker, tmp_path: Path
) -> None:
    # It is back before its session is over, also where its start takes long.
    run = numbers(kafka, tmp_path, delivery="exactly_once", session_ms=60_000)
    load = Load(run.bootstrap, run.source, rate=RATE, partitions=PARTITIONS)
    with run.flow.twin("a.log") as one, run.flow.twin("b.log") as two:
        one.start(LOOM_GROUP_INSTANCE_ID="numbers-a")
        two.start(LOOM_GROUP_INSTANCE_ID="numbers-b")
        for member in (one, two):
            member.await_line("partitions_assigned.*now=2")
        load.start()
        load.run_on(1.5)
        moved = one.output().count("partitions_revoked")
        two.sigkill()
        two.start(LOOM_GROUP_INSTANCE_ID="numbers-b")
        two.await_line("partitions_assigned.*added=2")
        load.run_on(2)
        assert one.output().count("partitions_revoked") == moved
        finish(run, load, one, two)


def test_from_fixed_to_group_and_back_with_predecessors_that_stand_still_meanwhile(
    kafka: Broker, tmp_path: Path
) -> None:
    run = NumbersRun(
        kafka, tmp_path, runtime={"epoch_interval_ms": 200}, delivery="exactly_once", session_timeout_ms=SESSION
    )
    load = Load(run.bootstrap, run.source, rate=RATE, partitions=PARTITIONS)
    group = {"LOOM__KAFKA__CONSUMER__MEMBERSHIP": "group"}
    with run.flow.twin("fixed.log") as frozen, run.flow.twin("member.log") as member, run.flow as fixed:
        load.start()
        frozen.start()
        frozen.await_positions(run.bootstrap, run.group, run.source, 100)
        frozen.send(signal.SIGSTOP)
        member.start(**group)
        member.await_line("partitions_assigned.*added=4")
        moved = sum(group_positions(run.bootstrap, run.group, run.source).values())
        member.await_positions(run.bootstrap, run.group, run.source, moved + 200)
        frozen.send(signal.SIGCONT)
        assert frozen.wait(LONG_S) == Exit.REPLACED, frozen.tail()
        # And back; now it is the member that wakes. It shuts out the new holder of an id that it has fenced before.
        member.send(signal.SIGSTOP)
        until(lambda: not members_of(run))
        fixed.start()
        moved = sum(group_positions(run.bootstrap, run.group, run.source).values())
        fixed.await_positions(run.bootstrap, run.group, run.source, moved + 200)
        member.send(signal.SIGCONT)
        assert fixed.wait(LONG_S) == Exit.REPLACED, fixed.tail()
        assert member.output().count("writers_fenced") == 2
        member.await_line("partitions_lost")
        finish(run, load, member)


def test_a_member_with_a_name_leaves_for_good_only_where_it_is_told_to(one_way: OneWay) -> None:
    for leaves in (False, True):
        runner = one_way.runner(membership="group", group_instance_id="orders-0")
        runner.leaves_group = leaves
        one_way.write(1)
        with running(runner) as raised:
            until(accounted(runner, 1))
        assert raised == []
        assert [one.group_instance_id for one in members_of(one_way)] == ([] if leaves else ["orders-0"])


def test_partitions_that_are_added_are_read_from_their_beginning_without_a_restart(
    one_way: OneWay, capfd: pytest.CaptureFixture[str]
) -> None:
    admin = AdminClient({"bootstrap.servers": one_way.bootstrap})
    runner = one_way.runner(membership="group", topic_check_interval_ms=300)
    with running(runner) as raised:
        one_way.write(1)
        until(accounted(runner, 1))
        admin.create_partitions([NewPartitions(one_way.source, 3)])[one_way.source].result(LONG_S)
        produce_numbered(one_way.bootstrap, one_way.source, 3, start=1, partitions=3, value=lambda n: b'{"n":%d}' % n)
        until(accounted(runner, 4))
        until(lambda: "the group deals the new ones out" in capfd.readouterr().err)
        until(lambda: sum(positions(one_way.bootstrap, one_way.source, one_way.group).values()) == 4)
    assert raised == []
    assert sorted(one_way.written()) == [0, 1, 2, 3]
