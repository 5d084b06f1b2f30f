"""The crash matrix: every fault under every guarantee, as often as the table says. `make crash` runs what is missing.

`make crash ARGS="-k 'SIGSTOP and exactly_once'"` chooses; results are appended to docs/results/crash-matrix.jsonl.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kafka.crash.broker_faults import ALL_FAULTS
from tests.kafka.crash.cell import run_cell
from tests.kafka.crash.faults import Cell, matrix
from tests.kafka.crash.results import append, broken_promises, missing
from tests.kafka.crash.stands import BrokerOf

pytestmark = [pytest.mark.crash, pytest.mark.timeout(900)]


@pytest.mark.parametrize("cell", missing(matrix(ALL_FAULTS)), ids=str)
def test_the_promise_is_kept(cell: Cell, broker_of: BrokerOf, tmp_path: Path) -> None:
    result = run_cell(cell, broker_of(cell.fault.act), tmp_path)
    append(result)
    if result.impossible is not None:
        pytest.skip(f"not possible here: {result.impossible}")
    fault = cell.fault
    broken = broken_promises(result, overlap=fault.overlap, graceful=fault.graceful, exit_codes=fault.exit_codes)
    assert not broken, f"{broken}: {result}"
