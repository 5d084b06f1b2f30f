"""What a change costs: contenders of a suite with the code of this checkout and with that of another commit, in turn.

Called by `python -m bench SUITE --against REVISION`, and with `--beside NAME` for contenders against another one. In each
round a contender runs three times: with the other commit's code, with ours, and with the other's again. The ratio of those
two that are alike says how far the machine can be believed; ours is the middle one, so that a machine which slowly gets
faster or slower favours neither.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bench.environment import ROOT, checkout
from bench.report import commit_of
from bench.result import Suite

#: the figures that are compared, where a suite has them
_FIGURES = ("cpu", "rate", "p99", "idle", "wall")


class Change(msgspec.Struct, frozen=True):
    """What one contender's figure became: medians of the rounds' ratios, ours to the other's, and the other's to itself."""

    contender: str
    figure: str
    before: float
    after: float
    ratio: float
    alike: float
    #: of the rounds' own ratios
    smallest: float
    largest: float


class Comparison(msgspec.Struct, frozen=True):
    """One suite against another commit."""

    suite: str
    before: str
    after: str
    records: int
    rounds: int
    changes: list[Change]


def compare_with(suite: Suite, revision: str, contenders: list[str], records: int, rounds: int) -> Comparison:
    """Run the contenders with both commits' code. Raises `EnvironmentUnavailable` when there is no such commit."""
    other = checkout(revision)
    pairs = {name: (_Side(name, other), _Side(name, ROOT)) for name in contenders}
    changes = _in_turn(suite, pairs, records, rounds)
    return Comparison(suite.name, commit_of(other), commit_of(ROOT), records, rounds, changes)


def compare_beside(suite: Suite, base: str, contenders: list[str], records: int, rounds: int) -> Comparison:
    """Run contenders between two runs of another one of the suite, all with the code of this checkout."""
    pairs = {name: (_Side(base, ROOT), _Side(name, ROOT)) for name in contenders}
    return Comparison(suite.name, base, commit_of(ROOT), records, rounds, _in_turn(suite, pairs, records, rounds))


class _Side(NamedTuple):
    """What runs: a contender with the code of a checkout."""

    contender: str
    root: Path


def _in_turn(suite: Suite, pairs: Mapping[str, tuple[_Side, _Side]], records: int, rounds: int) -> list[Change]:
    """In each round of each pair: the first, the second, and the first again."""
    first: dict[str, list[Any]] = {name: [] for name in pairs}
    ours: dict[str, list[Any]] = {name: [] for name in pairs}
    again: dict[str, list[Any]] = {name: [] for name in pairs}
    with suite.opened(records) as run:
        for number in range(1, rounds + 1):
            for name, (before, after) in pairs.items():
                for code, side, samples in (
                    ("before", before, first),
                    ("after", after, ours),
                    ("before", before, again),
                ):
                    samples[name].append(run(side.contender, suite.contenders[side.contender], side.root))
                    summary = suite.summary(samples[name][-1])
                    print(f"  round {number}/{rounds}  {name} {code:6} {summary}", flush=True)
    return [
        _change(name, suite, key, first[name], ours[name], again[name])
        for name in pairs
        for key in _FIGURES
        if any(figure.key == key for figure in suite.figures)
    ]


def _change(name: str, suite: Suite, key: str, first: list[Any], ours: list[Any], again: list[Any]) -> Change:
    of = suite.figure(key).of
    befores = [(of(one) + of(two)) / 2 for one, two in zip(first, again, strict=True)]
    ratios = [of(sample) / before for sample, before in zip(ours, befores, strict=True)]
    return Change(
        name,
        key,
        before=statistics.median(befores),
        after=statistics.median(map(of, ours)),
        ratio=statistics.median(ratios),
        alike=statistics.median(of(two) / of(one) for one, two in zip(first, again, strict=True)),
        smallest=min(ratios),
        largest=max(ratios),
    )


def as_text(suite: Suite, found: Comparison) -> str:
    """A table for a terminal or a note."""
    lines = [
        f"{suite.title}: {found.after} against {found.before}; {found.records:,} records, medians of {found.rounds}",
        "| contender | figure | before | after | after / before | smallest–largest | before / before |",  # noqa: RUF001
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for change in found.changes:
        figure = suite.figure(change.figure)
        lines.append(
            f"| `{change.contender}` | {figure.title} | {figure.text(change.before)} | {figure.text(change.after)} "
            f"| {change.ratio:.3f} | {change.smallest:.2f}–{change.largest:.2f} | {change.alike:.3f} |"  # noqa: RUF001
        )
    return "\n".join(lines)
