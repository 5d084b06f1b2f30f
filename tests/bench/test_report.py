"""What the benchmarks say of their samples: medians, ratios round by round, verdicts, and the same again from a file."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from bench import contenders
from bench.contenders import Contender, missing
from bench.environment import EnvironmentUnavailable
from bench.measure import CPU, RATE, Sample
from bench.report import as_markdown, as_text, keep, kept, report_of
from bench.result import Result, Run, Suite


def never(records: int) -> AbstractContextManager[Run]:
    raise AssertionError("nothing is measured here")


MEMORY = Suite(
    name="memory",
    title="In memory",
    contenders={},
    sample=Sample,
    figures=(CPU, RATE),
    ratios=(("cpu", "plain"),),
    records=1,
    rounds=1,
    opened=never,
    summary=str,
)


def sample(cpu_us: float) -> Sample:
    return Sample(records=1_000_000, cpu_seconds=cpu_us, wall_seconds=2.0, max_rss_mb=10.0)


@pytest.fixture
def result() -> Result:
    """Two contenders in three rounds, and one that could not take part."""
    samples = {
        "plain": [sample(2.0), sample(4.0), sample(1.0)],
        "loom_step": [sample(2.4), sample(4.8), sample(2.0)],
    }
    return Result(1_000_000, samples, {"loom_record_step": "it is not built"})


def test_a_ratio_is_taken_within_each_round() -> None:
    samples = {"ours": [sample(4), sample(10), sample(6)], "theirs": [sample(1), sample(5), sample(6)]}

    ratio = Result(1_000_000, samples, {}).ratio("ours", CPU, "theirs")

    assert ratio == pytest.approx(2.0)  # of 4, 2 and 1; that of the medians would be 1.2


def test_there_is_no_ratio_to_a_contender_that_did_not_run(result: Result) -> None:
    assert result.ratio("loom_step", CPU, "loom_record_step") is None


def test_a_table_holds_figures_ratios_targets_and_who_is_missing(result: Result) -> None:
    text = as_text(MEMORY, report_of(MEMORY, result))

    assert "loom_step" in text
    assert "1.20" in text
    assert "not there: loom_record_step (it is not built)" in text
    assert "wanted <= 1.3 (goal 1.15): met" in text


def test_what_was_kept_reads_as_it_did_at_first(result: Result, tmp_path: Path) -> None:
    report = report_of(MEMORY, result)
    keep(report, tmp_path)

    again = kept(MEMORY, tmp_path)

    assert again is not None
    assert again.result.samples == result.samples
    assert as_markdown(MEMORY, again) == as_markdown(MEMORY, report)


def test_nothing_is_read_where_nothing_was_kept(tmp_path: Path) -> None:
    assert kept(MEMORY, tmp_path) is None


def test_a_contender_whose_environment_cannot_be_made_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(requirements: str) -> Path:
        raise EnvironmentUnavailable(f"no wheel for {requirements}")

    monkeypatch.setattr(contenders, "interpreter", fail)
    takes_part = Contender("bench.memory:plain")

    assert missing({"plain": takes_part, "other": Contender("other:run", requirements="pins.txt")}) == {
        "other": "no wheel for pins.txt"
    }
