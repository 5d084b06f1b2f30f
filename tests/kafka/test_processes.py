"""Several processes of one flow on Apache Kafka: killed, stopped, and started again as another number of processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from loom.streaming.kafka import TopicPartition
from loom.streaming.kafka.consumer import ConsumerClient
from loom.streaming.kafka.offset_metadata import OffsetMetadata
from loom.streaming.kafka.settings import ConsumerSettings
from tests.support.broker import Broker
from tests.support.flow_process import FlowProcess
from tests.support.kafka_io import group_positions, produce_numbered
from tests.support.load import Load
from tests.support.numbers_run import PARTITIONS, NumbersRun
from tests.support.processes import gone_within
from tests.support.waiting import LONG_S

RATE = 2_000


@pytest.fixture(params=["at_least_once", "exactly_once"])
def run(kafka: Broker, tmp_path: Path, request: pytest.FixtureRequest) -> NumbersRun:
    return NumbersRun(kafka, tmp_path, delivery=request.param, runtime={"epoch_interval_ms": 200})


def processes(run: NumbersRun, count: int) -> FlowProcess:
    return run.flow.variant("--processes", str(count))


def layouts(run: NumbersRun) -> set[tuple[str | None, int | None]]:
    """What the group's offsets name."""
    reader = ConsumerClient(ConsumerSettings((run.bootstrap,), run.group))
    try:
        committed = reader.group.committed([TopicPartition(run.source, number) for number in range(PARTITIONS)])
    finally:
        reader.close()
    said = [OffsetMetadata.parse(had.metadata) for had in committed.values()]
    return {(one.mode, one.writers) for one in said}


def await_moving(run: NumbersRun, flow: FlowProcess, by: int = 1_000) -> None:
    now = sum(max(0, at) for at in group_positions(run.bootstrap, run.group, run.source).values())
    flow.await_positions(run.bootstrap, run.group, run.source, now + by)


def test_the_number_of_processes_changes_under_load_and_nothing_is_lost(run: NumbersRun) -> None:
    """2, one of which is killed; 3, whose supervisor is killed; and 1."""
    load = Load(run.bootstrap, run.source, rate=RATE, partitions=PARTITIONS)
    load.start()
    try:
        with processes(run, 2) as flow:
            flow.start()
            await_moving(run, flow)
            assert layouts(run) == {("fixed", 2)}
            os.kill(flow.children()[0], signal.SIGKILL)
            flow.await_line("flow_restarting")
            flow.await_starts(3)
            await_moving(run, flow)
            flow.sigterm()
            assert flow.wait(LONG_S) == 0, flow.tail()
        with processes(run, 3) as flow:
            flow.start()
            await_moving(run, flow)
            children = flow.children()
            flow.sigkill()
            assert all(gone_within(LONG_S, child) for child in children)
        with run.flow as flow:
            flow.start()
            count = load.finish()
            run.await_all_confirmed()
            assert layouts(run) == {("fixed", 1)}
            run.stop()
    finally:
        load.finish()
    run.assert_promise_kept(count)


def test_a_frozen_process_of_a_larger_layout_is_shut_out(kafka: Broker, tmp_path: Path) -> None:
    """Process 2 of 3 stands still while the flow goes on as one process; when it wakes it may not write."""
    run = NumbersRun(kafka, tmp_path, delivery="exactly_once", runtime={"epoch_interval_ms": 200})
    members = [
        run.flow.twin(f"{index}.log").variant(LOOM_PROCESS_ID=str(index), LOOM_PROCESSES="3") for index in range(3)
    ]
    load = Load(run.bootstrap, run.source, rate=RATE, partitions=PARTITIONS)
    with members[0], members[1], members[2], run.flow:
        load.start()
        for member in members:
            member.start()
        await_moving(run, members[0])
        # Its own partition: it is not frozen while it starts.
        members[2].await_positions(run.bootstrap, run.group, run.source, {2: 1})
        members[2].send(signal.SIGSTOP)
        for member in members[:2]:
            member.sigkill()
        run.flow.start()
        await_moving(run, run.flow)
        members[2].send(signal.SIGCONT)
        assert members[2].wait(LONG_S) == 8, members[2].tail()
        count = load.finish()
        run.await_all_confirmed()
        assert layouts(run) == {("fixed", 1)}
        run.stop()
    run.assert_promise_kept(count)


def test_a_process_that_starts_alone_reads_partitions_that_were_added_meanwhile(kafka: Broker, tmp_path: Path) -> None:
    """It does not wait for process 0, which takes over only what no process of this layout has had."""
    run = NumbersRun(
        kafka, tmp_path, delivery="exactly_once", start_timeout_ms=60_000, runtime={"epoch_interval_ms": 100}
    )
    run.produce(40)
    with processes(run, 2) as flow:
        flow.start()
        flow.await_positions(run.bootstrap, run.group, run.source, run.ends())
        flow.sigterm()
        assert flow.wait(LONG_S) == 0, flow.tail()
    admin = AdminClient({"bootstrap.servers": run.bootstrap})
    admin.create_partitions([NewPartitions(run.source, PARTITIONS + 2)])[run.source].result(LONG_S)
    produce_numbered(
        run.bootstrap, run.source, 1, start=PARTITIONS + 1, partitions=PARTITIONS + 2, value=lambda n: b'{"n":%d}' % n
    )
    with run.flow.variant(LOOM_PROCESS_ID="1", LOOM_PROCESSES="2") as alone:
        alone.start()
        alone.await_positions(run.bootstrap, run.group, run.source, {PARTITIONS + 1: 1})
        alone.sigterm()
        assert alone.wait(LONG_S) == 0, alone.tail()
