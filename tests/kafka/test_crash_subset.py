"""The most telling cells of the crash matrix, once each; `make crash` runs all of it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from tests.kafka.crash.broker_faults import ALL_FAULTS
from tests.kafka.crash.cell import run_cell
from tests.kafka.crash.faults import Cell, Delivery, matrix
from tests.kafka.crash.results import Result, broken_promises
from tests.kafka.crash.stands import BrokerOf, has_own_broker
from tests.support.apache_kafka import ApacheKafka
from tests.support.engines import chosen_engine
from tests.support.kafka_cluster import KafkaCluster

TELLING = {
    ("SIGKILL between durable and the answer to the mark", Delivery.AT_LEAST_ONCE, 1),
    ("SIGKILL between the answer to the mark and the commit", Delivery.AT_LEAST_ONCE, 1),
    ("SIGTERM inside a step", Delivery.AT_LEAST_ONCE, 1),
    ("SIGKILL between fencing and reading positions", Delivery.EXACTLY_ONCE, 1),
    ("SIGKILL inside the transaction", Delivery.EXACTLY_ONCE, 1),
    ("SIGKILL between flush and commit", Delivery.EXACTLY_ONCE, 1),
    ("SIGKILL between durable and the answer to the mark", Delivery.EXACTLY_ONCE, 2),
    ("SIGSTOP and successor, between the answer to the mark and the commit", Delivery.AT_LEAST_ONCE, 1),
    ("SIGSTOP and successor, after produce", Delivery.EXACTLY_ONCE, 1),
    ("SIGSTOP and successor, between positions and commit of the transaction", Delivery.EXACTLY_ONCE, 1),
    ("SIGKILL of one of several processes as it takes another layout over, N changed", Delivery.EXACTLY_ONCE, 1),
    ("SIGKILL of one of 2 members after poll", Delivery.AT_LEAST_ONCE, 1),
    ("the broker's answers lost for 3 s, then a reset", Delivery.EXACTLY_ONCE, 1),
}
#: they share a cluster, so that one test runs them all
ON_THREE_BROKERS = {
    ("three brokers: group coordinator killed for 9 s", Delivery.AT_LEAST_ONCE, 1),
    ("three brokers: group coordinator killed for 9 s", Delivery.EXACTLY_ONCE, 1),
    ("three brokers: transaction coordinator killed for 9 s", Delivery.EXACTLY_ONCE, 1),
}
#: those that tell most of what an engine adds: its order of calls, its threads, its stop
ON_THE_LOOP = {
    ("SIGKILL between durable and the answer to the mark", Delivery.AT_LEAST_ONCE, 1),
    ("SIGTERM inside a step", Delivery.AT_LEAST_ONCE, 1),
    ("SIGKILL inside the transaction", Delivery.EXACTLY_ONCE, 1),
    ("SIGKILL between durable and the answer to the mark", Delivery.EXACTLY_ONCE, 2),
}


def first_of(named: Collection[tuple[str, Delivery, int]]) -> list[Cell]:
    found = [cell for cell in matrix(ALL_FAULTS) if (cell.fault.name, cell.delivery, cell.workers) in named]
    return [cell for cell in found if not cell.repetition]


CELLS = first_of(TELLING)


def test_each_of_them_is_in_the_matrix() -> None:
    assert len(CELLS) == len(TELLING)
    assert len(first_of(ON_THREE_BROKERS)) == len(ON_THREE_BROKERS)
    assert ON_THE_LOOP < TELLING


def runs() -> list[Any]:
    engine = chosen_engine()
    usual = [pytest.param(engine, cell, id=f"{cell}") for cell in CELLS]
    if engine == "loop":
        return usual
    loop = [cell for cell in CELLS if (cell.fault.name, cell.delivery, cell.workers) in ON_THE_LOOP]
    return usual + [pytest.param("loop", cell, id=f"{cell}-loop") for cell in loop]


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize(("engine", "cell"), runs(), indirect=["engine"])
def test_the_promise_is_kept(engine: str, cell: Cell, broker_of: BrokerOf, tmp_path: Path) -> None:
    broker = broker_of(cell.fault.act)
    if has_own_broker(cell.fault.act) and not isinstance(broker, ApacheKafka):
        pytest.skip("starts a broker of its own")
    assert kept(run_cell(cell, broker, tmp_path), cell)


@pytest.mark.timeout(1_200)
def test_a_flow_outlives_the_coordinators_of_a_cluster(kafka_cluster: KafkaCluster, tmp_path: Path) -> None:
    for number, cell in enumerate(first_of(ON_THREE_BROKERS)):
        directory = tmp_path / str(number)
        directory.mkdir()
        assert kept(run_cell(cell, kafka_cluster, directory), cell)


def kept(result: Result, cell: Cell) -> bool:
    """Whether the promise was; fails with what was not."""
    fault = cell.fault
    broken = broken_promises(result, overlap=fault.overlap, graceful=fault.graceful, exit_codes=fault.exit_codes)
    assert not broken, f"{broken}: {result}"
    return True
