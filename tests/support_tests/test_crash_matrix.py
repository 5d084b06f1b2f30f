"""The crash matrix's own parts: its table of faults, its results and what is said of them. Needs no broker."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from loom.streaming.failpoints import Failpoint
from tests.kafka.crash import table
from tests.kafka.crash.books import FlowKind
from tests.kafka.crash.broker_acts import BrokerAct, NetworkAct
from tests.kafka.crash.broker_faults import ALL_FAULTS
from tests.kafka.crash.crash_hook import IN_STEP
from tests.kafka.crash.faults import (
    FAULTS,
    NAMED_REPETITIONS,
    RANDOM_REPETITIONS,
    VERSION,
    Act,
    AnyAct,
    Delivery,
    matrix,
)
from tests.kafka.crash.results import Result, append, broken_promises, load, missing
from tests.kafka.crash.summary import render_summary
from tests.support.engines import chosen_engine

CLEAN = Result(
    version=VERSION,
    fault=FAULTS[0].name,
    delivery=Delivery.AT_LEAST_ONCE,
    workers=1,
    repetition=0,
    seed=7,
    commit="abc",
    date="2026-01-01T00:00:00+00:00",
    records=10_000,
    seconds_to_read=1.0,
    seconds_to_resume=1.25,
    exit_codes=(-9, 0),
)


def test_every_point_is_struck_by_sigkill_and_by_sigterm() -> None:
    for signal in ("SIGKILL", "SIGTERM"):
        struck = {fault.at for fault in ALL_FAULTS if fault.signal.name == signal and fault.name.startswith(signal)}
        assert struck >= {*Failpoint, IN_STEP}


def test_every_act_is_in_the_table_and_every_cell_has_a_name_of_its_own() -> None:
    assert {fault.act for fault in ALL_FAULTS} == {*Act, *BrokerAct, *NetworkAct}
    names = [str(cell) for cell in matrix(ALL_FAULTS)]
    assert len(names) == len(set(names)) > 700


def test_random_times_are_repeated_more_often_than_named_points() -> None:
    for fault in ALL_FAULTS:
        if fault.grouped or fault.flow is not FlowKind.PLAIN:
            assert fault.repetitions >= NAMED_REPETITIONS  # the same again, in another setting
            continue
        at_random = fault.at is None and ("random" in fault.name or fault.act in {Act.FREEZE, Act.SECOND_INSTANCE})
        assert fault.repetitions >= (RANDOM_REPETITIONS if at_random else NAMED_REPETITIONS)


def test_what_has_a_result_is_not_run_again(tmp_path: Path) -> None:
    path = tmp_path / "results" / "matrix.jsonl"
    cells = list(matrix(ALL_FAULTS))
    assert missing(cells, path) == cells
    result = replace(CLEAN, engine=chosen_engine())
    append(result, path)
    append(replace(result, repetition=1, version=VERSION + 1), path)
    assert load(path) == [result]
    assert len(missing(cells, path)) == len(cells) - 1


@pytest.mark.parametrize(
    ("delivery", "found", "said"),
    [
        (Delivery.AT_LEAST_ONCE, {"duplicated": 5}, []),
        (Delivery.AT_LEAST_ONCE, {"lost": 5}, ["5 records lost"]),
        (Delivery.AT_LEAST_ONCE, {"out_of_order": 5}, ["5 records out of order"]),
        (Delivery.EXACTLY_ONCE, {"duplicated": 5}, ["5 duplicates"]),
        (Delivery.EXACTLY_ONCE, {"lost": 1, "invented": 1}, ["1 records came from nowhere", "1 records lost"]),
        (Delivery.AT_MOST_ONCE, {"lost": 5}, []),
        (Delivery.AT_MOST_ONCE, {"duplicated": 5}, ["5 duplicates"]),
        (Delivery.AUTO_COMMIT, {"lost": 5, "duplicated": 5}, []),
        (Delivery.AUTO_COMMIT, {"overdue": "it hangs"}, ["it hangs"]),
    ],
)
def test_each_delivery_is_held_to_what_it_promises(delivery: Delivery, found: dict[str, int], said: list[str]) -> None:
    assert broken_promises(replace(CLEAN, delivery=delivery, **found)) == said


def test_two_instances_may_repeat_under_at_most_once_and_a_graceful_stop_may_not_under_at_least_once() -> None:
    repeated = replace(CLEAN, duplicated=5)
    assert broken_promises(replace(repeated, delivery=Delivery.AT_MOST_ONCE), overlap=True) == []
    assert broken_promises(repeated, graceful=True) == ["5 duplicates"]


def test_of_two_instances_one_goes_on() -> None:
    assert broken_promises(replace(CLEAN, exit_codes=(8, 0)), overlap=True) == []
    (said,) = broken_promises(replace(CLEAN, exit_codes=(8, 8, 0)), overlap=True)
    assert "the other to go on" in said


@pytest.mark.parametrize(
    ("act", "codes", "kept"),
    [
        (Act.SIGNAL, (-9, 0), True),
        (Act.SIGNAL, (1, 0), False),
        (Act.FREEZE, (0,), True),
        (Act.FREEZE, (7, 0), False),
        (Act.KILL_BROKER, (5, 7, 0), True),
        (Act.PAUSE_BROKER, (1, 0), False),
        (Act.DEAFEN, (8, 0), False),
        (BrokerAct.ROLL, (0,), True),
        (BrokerAct.ROLL, (7, 0), False),
        (NetworkAct.LOSE_ANSWERS, (5, 0), False),
    ],
)
def test_an_instance_that_runs_alone_is_held_to_its_exit_codes(act: AnyAct, codes: tuple[int, ...], kept: bool) -> None:
    fault = next(fault for fault in ALL_FAULTS if fault.act is act)
    broken = broken_promises(replace(CLEAN, exit_codes=codes), exit_codes=fault.exit_codes)
    assert (not broken) is kept


def test_the_table_sums_up_the_repetitions_of_a_cell() -> None:
    more = replace(CLEAN, repetition=1, duplicated=1_500, seconds_to_resume=3.0)
    impossible = replace(CLEAN, fault="disk", delivery=Delivery.AUTO_COMMIT, workers=2, impossible="no mount")
    rows = table.render([CLEAN, more, impossible]).splitlines()
    assert rows[0] == "| fault | `at_least_once` | `exactly_once` | `at_most_once` | auto-commit |"
    assert rows[2] == f"| {CLEAN.fault} | 2: 0 / 1,500 / 2.1 s (≤ 3.0) |  |  |  |"
    assert rows[3] == "| disk, two workers |  |  |  | not possible here: no mount |"


def test_long_loads_stand_in_a_table_of_their_own_with_what_they_measured() -> None:
    rows = table.render(
        [CLEAN, replace(CLEAN, fault="long load", figures={"kills": 70.0, "seconds_to_read_most": 2.5})]
    )
    assert rows.splitlines()[3] == ""
    assert rows.splitlines()[-1] == (
        "| long load | `at_least_once` | 1 | 10,000 | 0 | 0 | 0 | kills 70, seconds to read most 2.5 |"
    )


def test_the_document_shows_the_results() -> None:
    assert table.between_marks(table.DOCUMENT.read_text(encoding="utf-8")) == table.render(load())
    assert table.between_marks(table.SUMMARY.read_text(encoding="utf-8")) == render_summary(load())


def test_the_summary_adds_up_what_promises_something_by_where_the_fault_was() -> None:
    cluster = replace(
        CLEAN,
        fault="three brokers: rolling restart",
        delivery=Delivery.EXACTLY_ONCE,
        duplicated=2,
        members_ended=1,
        longest_stall=2.345,
        commit="def",
        date="2026-01-03T00:00:00+00:00",
    )
    no_promise = replace(CLEAN, delivery=Delivery.AUTO_COMMIT, lost=7)
    rows = render_summary([CLEAN, no_promise, replace(CLEAN, lost=1), cluster]).splitlines()
    assert [row.split(" | ")[1:] for row in rows[2:]] == [
        ["2", "1", "0", "0", "-", "-", "2026-01-01: abc |"],
        ["1", "0", "0", "2", "1", "2.3 s", "2026-01-03: def |"],
    ]
