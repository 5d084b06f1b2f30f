"""A change is held against another commit: the other's code runs before and after ours, and says how quiet the machine was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import against
from bench.contenders import Contender
from bench.environment import ROOT, EnvironmentUnavailable, checkout
from bench.measure import CPU, RSS, Sample
from bench.result import Run, Suite

OTHER = Path("/the/other/checkout")


def suite(costs: dict[str, list[float]], ran: list[tuple[str, Path]]) -> Suite:
    """A suite whose runs cost, in microseconds, what is next in the list of their checkout."""

    @contextmanager
    def opened(records: int) -> Iterator[Run]:
        def run(name: str, contender: Contender, root: Path) -> Sample:
            ran.append((name, root))
            cpu = costs["ours" if root == ROOT else "other"].pop(0)
            return Sample(records=records, cpu_seconds=cpu * records / 1e6, wall_seconds=1.0, max_rss_mb=1.0)

        yield run

    return Suite("memory", "In memory", {"loom": Contender("a:b")}, Sample, (CPU, RSS), (), 1, 1, opened, str)


def test_ours_runs_between_two_runs_of_the_other_and_is_compared_with_both(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, Path]] = []
    monkeypatch.setattr(against, "checkout", lambda revision: OTHER)
    costs = {"other": [1.0, 3.0, 2.0, 2.0, 4.0, 4.0], "ours": [2.0, 3.0, 10.0]}

    found = against.compare_with(suite(costs, ran), "main", ["loom"], records=1_000, rounds=3)

    assert ran == [("loom", OTHER), ("loom", ROOT), ("loom", OTHER)] * 3
    (change,) = found.changes  # memory is no figure that is compared
    assert (change.before, change.after) == (pytest.approx(2.0), pytest.approx(3.0))
    assert change.ratio == pytest.approx(1.5)  # of 2/2, 3/2 and 10/4
    assert (change.smallest, change.largest) == (pytest.approx(1.0), pytest.approx(2.5))
    assert change.alike == pytest.approx(1.0)  # of 3/1, 2/2 and 4/4
    assert "| 1.500 | 1.00–2.50 | 1.000 |" in against.as_text(suite({}, []), found)  # noqa: RUF001 - a range


def test_contenders_run_between_two_runs_of_the_one_they_are_held_against() -> None:
    ran: list[tuple[str, Path]] = []
    costs = {"ours": [1.0, 2.0, 1.0, 2.0, 3.0, 2.0], "other": []}
    ours = suite(costs, ran)
    ours.contenders["metrics"] = Contender("a:b", aside=True)

    found = against.compare_beside(ours, "loom", ["metrics"], records=1_000, rounds=2)

    assert ran == [("loom", ROOT), ("metrics", ROOT), ("loom", ROOT)] * 2
    (change,) = found.changes
    assert (change.contender, change.ratio, change.alike) == ("metrics", pytest.approx(1.75), pytest.approx(1.0))
    assert found.before == "loom"


def test_a_revision_that_is_not_there_is_named() -> None:
    with pytest.raises(EnvironmentUnavailable, match="no-such-branch"):
        checkout("no-such-branch")
