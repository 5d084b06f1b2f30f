"""An engine's cluster of two processes with a recovery store, on Apache Kafka: killed as a whole by one, and resumed."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kafka.test_processes import RATE, await_moving, layouts
from tests.support.apache_kafka import free_port
from tests.support.broker import Broker
from tests.support.load import Load
from tests.support.numbers_run import PARTITIONS, NumbersRun
from tests.support.waiting import LONG_S

PROGRAM = str(Path(__file__).with_name("cluster_program.py"))


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_one_is_killed_all_end_and_all_resume(kafka: Broker, tmp_path: Path, delivery: str) -> None:
    run = NumbersRun(kafka, tmp_path, delivery=delivery, process={"program": (PROGRAM,)})
    addresses = ",".join(f"127.0.0.1:{free_port()}" for _ in range(2))
    state = tmp_path / "state"
    members = [
        run.flow.twin(f"{index}.log").variant(
            CLUSTER_INDEX=str(index), CLUSTER_ADDRESSES=addresses, CLUSTER_STATE=str(state)
        )
        for index in range(2)
    ]
    load = Load(run.bootstrap, run.source, rate=RATE, partitions=PARTITIONS)
    with ExitStack() as stack:
        for member in members:
            stack.enter_context(member)
            member.start()
        load.start()
        try:
            await_moving(run, members[0])
            members[1].sigkill()
            assert members[0].wait(LONG_S) == 7, members[0].tail()
            for member in members:
                member.start()
            await_moving(run, members[0])
        finally:
            count = load.finish()
        members[0].await_positions(run.bootstrap, run.group, run.source, run.ends())
        members[1].sigterm()
        assert [member.wait(LONG_S) for member in members] == [0, 0], members[0].tail() + members[1].tail()
    assert layouts(run) == {("fixed", 2)}
    assert {path.name for path in state.glob("part-*")} >= {"part-0.sqlite3", "part-1.sqlite3"}
    run.assert_promise_kept(count)
