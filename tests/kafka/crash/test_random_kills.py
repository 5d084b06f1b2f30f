"""The long run: SIGKILL every few seconds while half a million records arrive. `make crash` runs it and keeps the result."""

from __future__ import annotations

import json
import os
import platform
import random
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.numbers_run import NumbersRun

pytestmark = pytest.mark.crash

RESULTS = Path(__file__).resolve().parents[3] / "docs" / "results" / "random-kills.json"
COUNT = int(os.environ.get("LOOM_CRASH_RECORDS", "500000"))
RATE = 5_000
KILLS = 20


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_half_a_million_records_survive_being_killed_every_one_to_four_seconds(
    kafka: Broker, tmp_path: Path, delivery: str, workers: int
) -> None:
    run = NumbersRun(kafka, tmp_path, runtime={"workers_per_process": workers}, delivery=delivery)
    seed = int(time.time())
    rng = random.Random(seed)
    kills = 0
    with run.flow, run.producing(COUNT, rate=RATE) as producer:
        while producer.is_alive():
            run.flow.start()
            producer.join(rng.uniform(1, 4))
            if producer.is_alive():
                assert run.flow.alive, run.flow.tail()
                run.flow.sigkill()
                kills += 1
        if not run.flow.alive:
            run.flow.start()
        run.await_all_confirmed(120)
        stopped_in = run.stop(within=10)
    verdict = run.verdict(COUNT)
    _keep(
        {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": _commit(),
            "python": platform.python_version(),
            "seed": seed,
            "delivery": delivery,
            "workers": workers,
            "records": COUNT,
            "records_per_second": RATE,
            "kills": kills,
            "lost": len(verdict.lost),
            "duplicates": verdict.duplicates,
            "out_of_order": sum(verdict.disorder.values()),
            "last_stop_seconds": round(stopped_in, 2),
        }
    )
    assert kills >= KILLS or COUNT < 500_000
    assert verdict.at_least_once, verdict.describe()
    assert not verdict.disorder, verdict.describe()
    if delivery == "exactly_once":
        assert verdict.exactly_once, verdict.describe()


def _keep(result: dict[str, object]) -> None:
    """Append to the results, so that a run that was cut short loses nothing and the next one adds to it."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    RESULTS.write_text(json.dumps([*results, result], indent=2) + "\n")


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RESULTS.parents[2], check=False
    )
    return found.stdout.strip() or "unknown"
