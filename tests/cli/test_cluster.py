"""A cluster of the engine: `process_id` and `addresses` in the config, each process started by a command of its own."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loom.cli.exit_codes import Exit
from loom.streaming.kafka import EmbeddedBroker
from tests.cli.supervised import Supervised, written
from tests.cli.test_processes import await_all, write_everywhere
from tests.support.apache_kafka import free_port
from tests.support.fork_server import ForkServer
from tests.support.running import positions
from tests.support.waiting import LONG_S

#: a cluster is one of Bytewax
pytestmark = pytest.mark.bytewax

Cluster = list[Supervised]
Start = Callable[..., Cluster]


@pytest.fixture
def served(broker: EmbeddedBroker) -> EmbeddedBroker:
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    return broker


@pytest.fixture
def start(served: EmbeddedBroker, tmp_path: Path, fork_server: ForkServer) -> Iterator[Start]:
    started: Cluster = []

    def begin(
        size: int = 2, *, runtime: dict[str, Any] | None = None, only: int | None = None, **settings: Any
    ) -> Cluster:
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(size)]
        cluster = []
        for index in range(size) if only is None else [only]:
            directory = tmp_path / str(index)
            directory.mkdir()
            given = {"process_id": index, "addresses": addresses, **(runtime or {})}
            cluster.append(Supervised(served.bootstrap, directory, server=fork_server, runtime=given, **settings))
        started.extend(cluster)
        for flow in cluster:
            flow.start()
        return cluster

    yield begin
    for flow in started:
        flow.kill_all()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_partitions_are_shared_and_a_stop_of_one_stops_all(
    served: EmbeddedBroker, start: Start, workers: int
) -> None:
    write_everywhere(served, *range(8))
    cluster = start(restarts=0, runtime={"workers_per_process": workers, "force_shutdown_timeout_ms": 60_000})
    await_all(cluster[0], served, 2)
    assert sorted(written(served)) == list(range(8))
    cluster[1].sigterm()
    assert [flow.wait(LONG_S) for flow in cluster] == [Exit.DONE, Exit.DONE], cluster[0].output() + cluster[1].output()
    assert "reason='process 1 of the cluster stops: SIGTERM'" in cluster[0].output()
    # Half of the records each: what a process reads it also writes.
    assert [int(re.findall(r"flow_totals .*read=(\d+) written=\1", flow.output())[0]) for flow in cluster] == [4, 4]


def test_when_one_is_killed_all_are_restarted_together(served: EmbeddedBroker, start: Start) -> None:
    write_everywhere(served, *range(4))
    cluster = start(restarts=2)
    await_all(cluster[0], served, 1)
    os.kill(cluster[0].child, signal.SIGKILL)
    for flow in cluster:
        flow.await_starts(2)
    write_everywhere(served, *range(4, 12))
    await_all(cluster[0], served, 3)
    cluster[0].sigterm()
    assert [flow.wait(LONG_S) for flow in cluster] == [Exit.DONE, Exit.DONE]
    assert "killed by SIGKILL" in cluster[0].output()
    assert "another process of the cluster has ended" in cluster[1].output()
    assert "exit code 7" in cluster[1].output()
    assert set(written(served)) == set(range(12))


def test_a_fault_of_one_ends_all_and_names_itself_where_it_happened(served: EmbeddedBroker, start: Start) -> None:
    write_everywhere(served, *range(4))
    cluster = start(restarts=0)
    await_all(cluster[0], served, 1)
    write_everywhere(served, 5, ends="raise")
    assert [flow.wait(LONG_S) for flow in cluster] == [Exit.RESTART, Exit.FAILED], cluster[0].output()
    assert "a bad number" in cluster[1].output()
    assert "another process of the cluster has ended" in cluster[0].output()
    assert positions(served.bootstrap, "numbers") == {0: 1, 1: 1, 2: 1, 3: 1}


def test_a_cluster_that_is_not_complete_gives_up_in_time(start: Start) -> None:
    (alone,) = start(only=0, restarts=0, consumer={"start_timeout_ms": 500})
    assert alone.wait(LONG_S) == Exit.RESTART
    assert "the cluster was not complete within 0.5 s" in alone.output()


def test_a_stop_while_the_others_are_missing_is_quick(served: EmbeddedBroker, start: Start) -> None:
    (alone,) = start(only=0, restarts=0)
    alone.await_line("flow_started")
    alone.sigterm()
    assert alone.wait(LONG_S) == Exit.DONE, alone.output()
    assert "while waiting for the peers" in alone.output()
