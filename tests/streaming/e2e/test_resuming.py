"""Stopped or killed and started again with a recovery store: a file that a hosted sink writes is whole in the end."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from bytewax.recovery import init_db_dir

from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from tests.support.flow_process import FlowProcess
from tests.support.fork_server import ForkServer
from tests.support.running import QUICK, produce
from tests.support.waiting import LONG_S

HERE = Path(__file__).parent
PARTITIONS = 4


def lines(directory: Path) -> list[int]:
    file = directory / "numbers.txt"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def await_lines(directory: Path, least: int, flow: FlowProcess) -> None:
    deadline = time.monotonic() + LONG_S
    while len(lines(directory)) < least:
        assert flow.alive or len(lines(directory)) >= least, flow.tail()
        assert time.monotonic() < deadline, flow.tail()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServer]:
    with ForkServer() as server:
        yield server


@pytest.fixture
def served(broker: EmbeddedBroker) -> EmbeddedBroker:
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    return broker


def flow_into_a_file(
    broker: EmbeddedBroker, directory: Path, server: ForkServer, target: str, **recovery: Any
) -> FlowProcess:
    client = {"brokers": [broker.bootstrap]}
    consumer = {**client, "group_id": "readers", "delivery": "at_least_once", "batch_size": 5}
    config = {
        "kafka": {"consumer": consumer, "producer": {**client, "extra": QUICK}},
        "streaming": {
            "runtime": {"epoch_interval_ms": 20, "recovery": {"db_dir": str(directory / "state"), **recovery}},
            "sinks": {"file": {"type": "number-file", "path": str(directory / "numbers.txt")}},
        },
    }
    file = directory / "loom.yaml"
    file.write_text(yaml.safe_dump(config))
    return FlowProcess(
        f"resuming_program:{target}",
        config=file,
        directory=directory,
        arguments=["--sink", "resuming_program:RegisteredFile"],
        pythonpath=[HERE],
        server=server,
    )


def write(broker: EmbeddedBroker, start: int, end: int) -> None:
    produce(
        broker.bootstrap,
        "numbers",
        *(KafkaRecord("numbers", None, b'{"n":%d}' % n, partition=n % PARTITIONS) for n in range(start, end)),
    )


@pytest.mark.parametrize("target", ["flow", "collecting"])
def test_the_file_of_a_flow_that_is_killed_and_stopped_is_whole(
    served: EmbeddedBroker, tmp_path: Path, fork_server: ForkServer, target: str
) -> None:
    """Ours is the source: a resume begins at the store's offsets, which may be behind the group's. Under at-least-once an
    epoch may be written again, and what is written again keeps its order.
    """
    written = 0
    with flow_into_a_file(served, tmp_path, fork_server, target) as flow:
        for end in (signal.SIGKILL, signal.SIGTERM):
            flow.start()
            write(served, written, written + 150)
            await_lines(tmp_path, written + 40, flow)
            os.kill(flow.pid, end)
            assert flow.wait(LONG_S) == (0 if end == signal.SIGTERM else -end), flow.tail()
            written += 150
        flow.start()
        # The stop may have committed everything already, and a signal that comes before the flow hears it kills.
        flow.await_starts(1)
        flow.await_positions(served.bootstrap, "readers", "numbers", written)
        flow.sigterm()
        assert flow.wait(LONG_S) == 0, flow.tail()
    found = lines(tmp_path)
    assert set(found) == set(range(written))
    for partition in range(PARTITIONS):
        # The first of each comes in the order of its partition.
        firsts = dict.fromkeys(n for n in found if n % PARTITIONS == partition)
        assert list(firsts) == list(range(partition, written, PARTITIONS))


def test_the_file_of_an_overridden_stateful_source_is_whole(tmp_path: Path, fork_server: ForkServer) -> None:
    """With records that a node keeps between source and file, on an engine of the caller's own."""
    (tmp_path / "state").mkdir()
    init_db_dir(tmp_path / "state", 1)
    flow = FlowProcess(
        "400",
        config=tmp_path,
        directory=tmp_path,
        pythonpath=[HERE],
        program=("-m", "resuming_program"),
        server=fork_server,
    )
    with flow:
        for end in (signal.SIGKILL, signal.SIGTERM):
            before = len(lines(tmp_path))
            flow.start()
            await_lines(tmp_path, before + 50, flow)
            os.kill(flow.pid, end)
            flow.wait(LONG_S)
        flow.start()
        assert flow.wait(LONG_S) == 0, flow.tail()
        (resumed,) = re.findall(r"resumed at (\d+)", flow.output())
    assert int(resumed) > 0
    # What had not left the stage for certain when the state was kept may come twice; nothing is missing, or out of order.
    assert list(dict.fromkeys(lines(tmp_path))) == list(range(400))


@pytest.mark.parametrize(("interval_ms", "kept"), [(0, False), (3_600_000, True)])
def test_old_snapshots_are_kept_for_as_long_as_the_backup_interval_says(
    served: EmbeddedBroker, tmp_path: Path, fork_server: ForkServer, interval_ms: int, kept: bool
) -> None:
    with flow_into_a_file(served, tmp_path, fork_server, "flow", backup_interval_ms=interval_ms) as flow:
        flow.start()
        for part in range(4):
            write(served, part * 10, part * 10 + 10)
            flow.await_positions(served.bootstrap, "readers", "numbers", part * 10 + 10)
        flow.sigterm()
        assert flow.wait(LONG_S) == 0, flow.tail()
    with closing(sqlite3.connect(tmp_path / "state" / "part-0.sqlite3")) as store:
        counts = store.execute("SELECT COUNT(*) FROM snaps WHERE step_id LIKE '%.source' GROUP BY state_key").fetchall()
    assert len(counts) == PARTITIONS
    assert (max(count for (count,) in counts) > 2) is kept
