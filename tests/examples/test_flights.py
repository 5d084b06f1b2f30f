"""The demo: its flow against a second, obvious computation over the same data, and the command itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from bytewax.testing import TestingSink, TestingSource, run_main

from loom.examples.flights.data import CORRUPTED_EVERY, raw_flights
from loom.examples.flights.flow import flow
from loom.streaming import ErrorEnvelope, ErrorKind, Message, compile_flow
from loom.streaming.bytewax import build_dataflow
from loom.streaming.kafka import KafkaRecord
from tests.support.waiting import LONG_S

CONFIG = {
    "kafka": {
        "consumer": {"brokers": ["nowhere:1"], "group_id": "flights", "delivery": "at_least_once"},
        "producer": {"brokers": ["nowhere:1"]},
    },
    "delays": {"late_after": 15},
}


def test_the_flow_gives_what_a_plain_loop_over_the_sample_gives() -> None:
    records = [KafkaRecord("flights.raw", key, value, offset=at) for at, (key, value) in enumerate(raw_flights())]
    outputs: dict[str, list[Message[Any]]] = {"EWR": [], "JFK": [], "LGA": []}
    errors: dict[ErrorKind, list[ErrorEnvelope[Any]]] = {kind: [] for kind in ErrorKind}
    plan = compile_flow(flow, config=CONFIG)
    paths = {"EWR": (2, 0, 1), "JFK": (2, 1, 1), "LGA": (2, 2, 0)}

    run_main(
        build_dataflow(
            plan,
            source=TestingSource(records, batch_size=500),
            terminal_sinks={path: TestingSink(outputs[airport]) for airport, path in paths.items()},
            error_sinks={kind: TestingSink(errors[kind]) for kind in ErrorKind},
        )
    )

    expected: dict[str, list[tuple[str, int]]] = {"EWR": [], "JFK": [], "LGA": []}
    failed: Counter[str] = Counter()
    for record in records:
        try:
            row = json.loads(record.value or b"")
        except ValueError:
            failed["wire"] += 1
            continue
        if row["dep_time"] is None or row["arr_delay"] is None:
            failed["business"] += 1
        elif row["distance"] >= 200:
            number = f"{row['carrier']}{row['flight']}"
            if row["origin"] == "LGA":
                expected["LGA"].append((number, row["arr_delay"]))
            else:
                expected[row["origin"]] += [(number, row["dep_delay"]), (number, row["arr_delay"])]
    assert len(records) >= 20_000
    assert {kind.value: len(found) for kind, found in errors.items() if found} == dict(failed)
    assert failed["wire"] == len(records) // CORRUPTED_EVERY
    for airport in ("EWR", "JFK"):
        assert [(m.payload.number, m.payload.delay) for m in outputs[airport]] == expected[airport]
    assert [(m.payload.number, m.payload.arrived_late) for m in outputs["LGA"]] == expected["LGA"]


def test_the_demo_ends_by_itself_with_numbers_that_add_up(tmp_path: Path) -> None:
    demo = subprocess.run(
        [sys.executable, "-m", "loom.cli.main", "demo", "--records", "6000"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
    )

    assert demo.returncode == 0, demo.stdout + demo.stderr
    cells = dict(re.findall(r"│ ([a-z. ]+?)(?: \([^)]*\))? +│ +([\d,]+) │", demo.stdout))
    numbers = {name: int(value.replace(",", "")) for name, value in cells.items()}
    ended = ("written", "dropped on purpose", "wire error", "routing error", "task error", "business error")
    assert numbers["read"] == 6000 == sum(numbers[name] for name in ended)
    assert min(numbers[name] for name in ("written", "dropped on purpose", "wire error", "business error")) > 0
    assert numbers["total"] == sum(count for name, count in numbers.items() if name.startswith("flights."))
    assert "Traceback" not in demo.stderr
