"""Partitions that a group has no position in: new ones, those whose position was lost, and those of a new group."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from loom.cli.exit_codes import Exit, exit_for
from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, failpoints, step
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord, OffsetOutOfRangeError, SecondInstanceError
from loom.streaming.kafka.group_offsets import GroupOffsets
from loom.streaming.kafka.group_snapshot import GroupSnapshot
from loom.streaming.kafka.offset_metadata import OffsetMetadata
from tests.support.running import all_done, config_for, content, positions, produce, run_all, run_until
from tests.support.snapshots import see_otherwise
from tests.support.waiting import LONG_S


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


FLOW = StreamFlow("starting", FromTopic("numbers", Number), Process(same), IntoTopic("out"))
RENAMED = StreamFlow("renamed", FromTopic("numbers", Number), Process(same), IntoTopic("out"))

EVERY_DELIVERY = pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once", None])
WORKERS = pytest.mark.parametrize("workers", [1, 2])


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    return broker.bootstrap


def config(bootstrap: str, *, workers: int = 1, **consumer: Any) -> dict[str, Any]:
    return config_for(
        bootstrap, consumer={"delivery": "at_least_once", **consumer}, runtime={"workers_per_process": workers}
    )


def write(bootstrap: str, *values: int) -> None:
    produce(bootstrap, "numbers", *(KafkaRecord("numbers", None, b'{"n":%d}' % n, partition=n % 4) for n in values))


def written(bootstrap: str) -> list[int]:
    return sorted(int((record.value or b"")[5:-1]) for record in content(bootstrap, "out")["out"])


def confirm(bootstrap: str, offsets: Mapping[int, int], *, partitions: int | None) -> None:
    """As a run that knew so many partitions left the group."""
    metadata = OffsetMetadata("starting", "earlier", "fixed", 1, partitions).render()
    client = Consumer({"bootstrap.servers": bootstrap, "group.id": "readers", "enable.auto.commit": False})
    where = [TopicPartition("numbers", number, offset, metadata) for number, offset in offsets.items()]
    client.commit(offsets=where, asynchronous=False)
    client.close()


def beside(bootstrap: str) -> dict[int, OffsetMetadata]:
    """The metadata of the group's positions."""
    client = Consumer({"bootstrap.servers": bootstrap, "group.id": "readers"})
    found = client.committed([TopicPartition("numbers", number) for number in range(4)], timeout=LONG_S)
    client.close()
    return {p.partition: OffsetMetadata.parse(p.metadata or "") for p in found if p.offset >= 0}


@WORKERS
@EVERY_DELIVERY
def test_a_partition_that_was_added_is_read_from_its_beginning_though_new_groups_begin_at_the_end(
    bootstrap: str, capsys: pytest.CaptureFixture[str], delivery: str | None, workers: int
) -> None:
    write(bootstrap, *range(8))
    confirm(bootstrap, {0: 2, 1: 2}, partitions=2)
    run_all(FLOW, config(bootstrap, workers=workers, delivery=delivery, auto_offset_reset="latest"), 4)
    assert written(bootstrap) == [2, 3, 6, 7]
    told = capsys.readouterr().err
    assert [f"partition=numbers[{n}] partitions_before=2" in told for n in range(4)] == [False, False, True, True]


@EVERY_DELIVERY
def test_a_position_that_was_lost_is_no_new_partition(bootstrap: str, delivery: str | None) -> None:
    write(bootstrap, *range(8))
    confirm(bootstrap, {0: 2, 1: 2, 3: 2}, partitions=4)
    with pytest.raises(
        OffsetOutOfRangeError, match=r"no longer has an offset in numbers\[2\].*0 to 2.*on_out_of_range"
    ) as e:
        StreamingRunner.from_dict(FLOW, config(bootstrap, delivery=delivery, auto_offset_reset="latest")).run()
    assert exit_for(e.value) is Exit.ENVIRONMENT
    assert positions(bootstrap, "numbers") == {0: 2, 1: 2, 3: 2}


@pytest.mark.parametrize(("policy", "expected"), [("earliest", [2, 6]), ("latest", [])])
def test_a_position_that_was_lost_is_begun_anew_where_the_config_says(
    bootstrap: str, capsys: pytest.CaptureFixture[str], policy: str, expected: list[int]
) -> None:
    write(bootstrap, *range(8))
    confirm(bootstrap, {0: 2, 1: 2, 3: 2}, partitions=4)
    run_until(
        StreamingRunner.from_dict(FLOW, config(bootstrap, on_out_of_range=policy)),
        lambda _: positions(bootstrap, "numbers") == dict.fromkeys(range(4), 2),
    )
    assert written(bootstrap) == expected
    assert f"records_skipped={0 if policy == 'earliest' else 2}" in capsys.readouterr().err


def test_a_group_whose_positions_name_no_count_begins_where_the_config_says(bootstrap: str) -> None:
    write(bootstrap, *range(8))
    confirm(bootstrap, {0: 2, 1: 1}, partitions=None)
    run_all(FLOW, config(bootstrap, auto_offset_reset="latest"), 1)
    assert written(bootstrap) == [5]
    assert positions(bootstrap, "numbers") == dict.fromkeys(range(4), 2)


@WORKERS
@EVERY_DELIVERY
def test_a_first_start_keeps_a_position_of_every_partition_and_says_how_many_there_are(
    bootstrap: str, delivery: str | None, workers: int
) -> None:
    write(bootstrap, 0, 4)
    chosen = config(bootstrap, workers=workers, delivery=delivery)
    run_until(
        StreamingRunner.from_dict(FLOW, chosen), lambda counts: all_done(2)(counts) and len(beside(bootstrap)) == 4
    )
    found = beside(bootstrap)
    assert max(metadata.partitions or 0 for metadata in found.values()) == 4
    # What was committed while it ran says the same as what was committed at the start.
    assert {(m.flow, m.mode, m.writers) for m in found.values()} == {("starting", "fixed", 1)}
    assert len({m.run for m in found.values()}) == 1
    assert positions(bootstrap, "numbers") == {0: 2, 1: 0, 2: 0, 3: 0}


def test_a_flow_of_another_name_takes_the_group_over_and_says_so(
    bootstrap: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(bootstrap, 0)
    run_all(FLOW, config(bootstrap), 1)
    assert "flow_renamed" not in capsys.readouterr().err
    write(bootstrap, 1)
    run_all(RENAMED, config(bootstrap), 1)
    told = capsys.readouterr().err
    assert told.count("flow_renamed") == 1
    assert "was=starting now=renamed" in " ".join(told.split())
    assert written(bootstrap) == [0, 1]


@pytest.mark.parametrize("successor", [FLOW, RENAMED], ids=["the same flow", "a flow of another name"])
def test_a_run_whose_group_was_taken_over_ends_though_the_positions_are_where_it_left_them(
    bootstrap: str, successor: StreamFlow[Any, Any]
) -> None:
    write(bootstrap, 0)
    began = threading.Event()
    raised: list[BaseException] = []
    first = StreamingRunner.from_dict(FLOW, config(bootstrap))

    def run() -> None:
        try:
            first.run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        while first.metrics is None or not all_done(1)(first.metrics.read()) or positions(bootstrap, "numbers")[0] != 1:
            assert not began.wait(0.02)
        mine = {metadata.run for metadata in beside(bootstrap).values()}
        done = run_until(
            StreamingRunner.from_dict(successor, config(bootstrap)),
            lambda _: len(beside(bootstrap)) == 4 and not mine & {m.run for m in beside(bootstrap).values()},
        )
        assert done.read == 0
        write(bootstrap, 4)
        thread.join(LONG_S)
    finally:
        first.shutdown()
        thread.join(LONG_S)
    (error,) = raised
    assert isinstance(error, SecondInstanceError)
    assert f"committed by the flow '{successor.name}'" in str(error)
    assert exit_for(error) is Exit.REPLACED


def test_the_position_of_an_idle_partition_is_confirmed_again_as_often_as_the_broker_wants(
    bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits: list[dict[Any, int]] = []
    commit = GroupOffsets.commit

    def noted(group: GroupOffsets, offsets: Mapping[Any, int]) -> None:
        commits.append({partition.partition: offset for partition, offset in offsets.items()})
        commit(group, offsets)

    monkeypatch.setattr(GroupOffsets, "commit", noted)
    see_otherwise(monkeypatch, group=GroupSnapshot((), 0.1))
    write(bootstrap, 1)
    run_until(StreamingRunner.from_dict(FLOW, config(bootstrap)), lambda _: commits.count({1: 1}) >= 3)


@EVERY_DELIVERY
def test_a_start_goes_on_where_another_instance_has_moved_the_group_meanwhile(
    bootstrap: str, delivery: str | None
) -> None:
    """The older of two instances commits while the newer one starts: the newer one does not begin behind it, nor end."""
    write(bootstrap, *range(0, 40, 4))  # all in partition 0
    confirm(bootstrap, {0: 2, 1: 0, 2: 0, 3: 0}, partitions=4)

    def move(point: failpoints.Failpoint) -> None:
        if point is failpoints.Failpoint.POSITIONED:
            confirm(bootstrap, {0: 5}, partitions=4)

    before = failpoints.install(move)
    try:
        run_all(FLOW, config(bootstrap, delivery=delivery), 5)
    finally:
        failpoints.install(before)
    assert written(bootstrap) == [20, 24, 28, 32, 36]
    assert positions(bootstrap, "numbers")[0] == 10
