"""A record that kills the process: found by working on one record at a time, named, and let past where the config says so."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loom.cli.exit_codes import Exit
from loom.streaming.kafka import EmbeddedBroker, Headers
from tests.cli.supervised import Supervised, write, written
from tests.support.fork_server import ForkServer
from tests.support.running import content, positions
from tests.support.waiting import LONG_S

Start = Callable[..., Supervised]

#: seconds for four starts and more, with the pauses between them
FOUND_WITHIN = 400.0


@pytest.fixture
def served(broker: EmbeddedBroker) -> EmbeddedBroker:
    for topic in ("numbers", "out", "bad"):
        broker.create_topic(topic)
    return broker


@pytest.fixture
def supervised(served: EmbeddedBroker, tmp_path: Path, fork_server: ForkServer) -> Iterator[Start]:
    started: list[Supervised] = []

    def start(on_poison: str = "dead_letter", **settings: Any) -> Supervised:
        flow = Supervised(
            served.bootstrap,
            tmp_path,
            # Not written where it is the default, which must be what a config without the key means.
            supervision={} if on_poison == "fail" else {"on_poison": on_poison},
            consumer={"batch_size": 100},
            flow=settings.pop("flow", "routed"),
            server=fork_server,
            **settings,
        )
        started.append(flow)
        flow.start()
        return flow

    yield start
    for flow in started:
        flow.kill_all()


def killed_by(served: EmbeddedBroker) -> list[tuple[bytes | None, bytes, bytes]]:
    """The dead letters: value, type of the error, offset in the source."""
    return [
        (record.value, headers["x-error-type"], headers["x-error-offset"])
        for record in content(served.bootstrap, "bad")["bad"]
        if (headers := Headers(record.headers))
    ]


def test_a_record_that_kills_the_process_goes_to_the_error_route_and_its_neighbours_are_delivered(
    served: EmbeddedBroker, supervised: Start
) -> None:
    write(served, "", "", "", "abort", "", "")
    run = supervised()
    run.await_confirmed(served.bootstrap, 6, FOUND_WITHIN)
    write(served, "", start=6)
    run.await_confirmed(served.bootstrap, 7)
    run.sigterm()
    assert run.wait(LONG_S) == Exit.DONE, run.output()
    assert set(written(served)) == {0, 1, 2, 4, 5, 6}
    assert killed_by(served) == [(b'{"n":3,"end":"abort"}', b"loom.ProcessKilled", b"3")]
    assert run.output().count("end='killed by SIGABRT'") == 4, "twice, and twice alone"
    assert "poison_record" in run.output()
    assert "record=numbers[0]@3" in run.output()


def test_two_such_records_are_both_found_where_a_node_keeps_them_together_with_others(
    served: EmbeddedBroker, supervised: Start
) -> None:
    write(served, "abort", "", "quit", "")
    run = supervised(flow="collecting")
    run.await_confirmed(served.bootstrap, 4, FOUND_WITHIN)
    # Without a key they may stand in any partitions.
    assert sorted(offset for _, _, offset in killed_by(served)) == [b"0", b"2"]
    assert set(written(served)) == {1, 3}


def test_by_default_the_flow_stays_down_and_the_record_is_named(served: EmbeddedBroker, supervised: Start) -> None:
    write(served, "", "abort", "", "")
    run = supervised("fail", flow="flow", restarts=5)
    assert run.wait(FOUND_WITHIN) == 128 + signal.SIGABRT, run.output()
    last = run.output().splitlines()[-1]
    assert "the record numbers[0]@1 kills the process whenever it is processed" in last
    assert "on_poison: dead_letter" in last
    assert positions(served.bootstrap, "numbers")[0] == 1


def test_an_exit_in_a_step_is_no_end_in_order(served: EmbeddedBroker, supervised: Start) -> None:
    write(served, "", "quit")
    run = supervised("fail", flow="flow", restarts=1)
    assert run.wait(LONG_S) == Exit.FAILED, run.output()
    assert "2 times without advancing (exit code 0, not by the runner, exit code 0, not by the runner)" in run.output()


def test_kills_from_the_second_at_one_position_on_are_about_a_record_and_spend_nothing(
    served: EmbeddedBroker, supervised: Start
) -> None:
    write(served, "kill", "", "")
    run = supervised()
    run.await_confirmed(served.bootstrap, 3, FOUND_WITHIN)
    assert killed_by(served) == [(b'{"n":0,"end":"kill"}', b"loom.ProcessKilled", b"0")]
    assert set(written(served)) == {1, 2}
    assert set(run.restarts_left()) == {2}
    assert run.output().count("end='killed by SIGKILL'") == 5, "one that was an operator's, twice, and twice alone"


def test_a_flow_that_has_no_error_route_for_such_a_record_is_refused(supervised: Start) -> None:
    run = supervised(flow="flow")
    assert run.wait(LONG_S) == Exit.CONFIG, run.output()
    assert "streaming.supervision.on_poison" in run.output()
    assert "no route for task errors" in run.output()
