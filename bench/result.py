"""What a suite measures and what it found: figures as data, medians and ratios of them. Used by suites and `report.py`."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from bench.contenders import Contender

#: one run of a contender, with the code of a checkout: (name, contender, root of the checkout) -> sample
Run: TypeAlias = Callable[[str, Contender, Path], Any]


class Figure(msgspec.Struct, frozen=True):
    """One number that a sample holds or that follows from it."""

    key: str
    title: str
    of: Callable[[Any], float]
    digits: int = 2
    #: show the smallest and largest too
    spread: bool = False
    #: what disturbs a run only ever adds to it, so the worst run counts
    worst: bool = False

    def text(self, value: float) -> str:
        """As a table shows it."""
        return f"{value:,.{self.digits}f}"


class Suite(msgspec.Struct, frozen=True):
    """One benchmark: who takes part, what is measured, and what is compared with what."""

    name: str
    title: str
    contenders: dict[str, Contender]
    #: what one run of one contender yields
    sample: type
    figures: tuple[Figure, ...]
    #: columns of the table: (key of a figure, contender that it is divided by)
    ratios: tuple[tuple[str, str], ...]
    #: of a run that is worth quoting; each round runs every contender once
    records: int
    rounds: int
    #: what its runs need (a broker, a filled topic), open while the context is: records of one run -> how to run
    opened: Callable[[int], AbstractContextManager[Run]]
    #: a line about a run, printed as soon as it is over
    summary: Callable[[Any], str]

    def figure(self, key: str) -> Figure:
        """A figure by its key."""
        return next(figure for figure in self.figures if figure.key == key)


class Result(msgspec.Struct, frozen=True):
    """All samples of a suite by contender, one for each round; and who could not take part, with the reason."""

    records: int
    samples: dict[str, list[Any]]
    missing: dict[str, str]

    @property
    def rounds(self) -> int:
        """How often each contender ran."""
        return len(next(iter(self.samples.values()), []))

    def value(self, contender: str, figure: Figure) -> float:
        """The median of a figure over the rounds."""
        values = [figure.of(sample) for sample in self.samples[contender]]
        return max(values) if figure.worst else statistics.median(values)

    def spread(self, contender: str, figure: Figure) -> tuple[float, float]:
        """The smallest and the largest."""
        values = [figure.of(sample) for sample in self.samples[contender]]
        return min(values), max(values)

    def ratio(self, contender: str, figure: Figure, baseline: str) -> float | None:
        """How many times a baseline's figure a contender's is: the median of the rounds' ratios.

        Not the ratio of the medians: what disturbs a machine for some seconds disturbs neighbours of one round alike.
        """
        if contender not in self.samples or baseline not in self.samples:
            return None
        return statistics.median(
            figure.of(ours) / figure.of(theirs)
            for ours, theirs in zip(self.samples[contender], self.samples[baseline], strict=True)
        )
