"""Compare the numbers that went into a flow with what a reader finds in its outputs. Pure: no broker, no flow.

    verdict = verify(range(10_000), [*seen(output, number_of), *seen(dead_letters, number_of)], lane=lambda n: n % 4)
    assert verdict.exactly_once, verdict.describe()

A record that went in as number n may come out in one place only, so the records of all outputs (dead letters too) are
judged together. Order is judged for each output partition and each *lane*, the source partition that a number stood in:
of records that were read from one partition, those in one output partition must stand there in the order read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

#: how many numbers of a kind a verdict names
_SHOWN = 5


class Place(NamedTuple):
    """A partition of an output."""

    topic: str
    partition: int


class Seen(NamedTuple):
    """One record of an output, reduced to its number and to where it stands."""

    place: Place
    offset: int
    number: int


class _Record(Protocol):
    @property
    def topic(self) -> str: ...

    @property
    def partition(self) -> int: ...

    @property
    def offset(self) -> int: ...


R = TypeVar("R", bound=_Record)


@dataclass(frozen=True)
class Verdict:
    """What became of the input."""

    expected: int
    #: Numbers that went in and stand in no output.
    lost: frozenset[int]
    #: Numbers that stand in an output and never went in.
    invented: frozenset[int]
    #: Records beyond those that their number may have, over all outputs.
    duplicates: int
    #: Records that stand behind a later one of their lane, by place; places without any are left out.
    disorder: Mapping[Place, int]
    #: Where every copy of some of the repeated numbers stands.
    repeated: tuple[Seen, ...] = ()

    @property
    def at_least_once(self) -> bool:
        """Nothing lost, nothing invented; repetitions are allowed, and so is the order within them."""
        return not self.lost and not self.invented

    @property
    def exactly_once(self) -> bool:
        """Every number once, in order."""
        return self.at_least_once and not self.duplicates and not self.disorder

    def describe(self) -> str:
        """One line for an assertion or a report."""
        return (
            f"{self.expected} records in: lost {len(self.lost)} {_some(self.lost)}, duplicates {self.duplicates}, "
            f"invented {len(self.invented)} {_some(self.invented)}, out of order {sum(self.disorder.values())} "
            f"{dict(self.disorder)}"
        )


def seen(records: Iterable[R], number_of: Callable[[R], int]) -> list[Seen]:
    """The records of an output as `verify` takes them."""
    return [Seen(Place(record.topic, record.partition), record.offset, number_of(record)) for record in records]


def verify(
    numbers: Iterable[int],
    outputs: Iterable[Seen],
    lane: Callable[[int], int],
    times: Callable[[int], int] = lambda _: 1,
) -> Verdict:
    """Judge the outputs of a flow that was given each of `numbers`.

    `lane(n)` is the source partition of n, and `times(n)` is how often n stands there.
    """
    expected = frozenset(numbers)
    found = sorted(outputs)
    copies = Counter(record.number for record in found)
    extra = {number: more for number, count in copies.items() if count > 1 and (more := count - times(number)) > 0}
    some = set(sorted(extra)[:_SHOWN])
    return Verdict(
        expected=len(expected),
        lost=expected - copies.keys(),
        invented=frozenset(copies.keys() - expected),
        duplicates=sum(extra.values()),
        disorder=out_of_order(found, lane),
        repeated=tuple(record for record in found if record.number in some),
    )


def out_of_order(outputs: Iterable[Seen], lane: Callable[[int], int]) -> dict[Place, int]:
    """How many records of each place stand behind a later one of their lane.

    Only the first appearance of a number counts: after a crash an at-least-once flow goes back and repeats a stretch,
    which is duplication and is counted as that.
    """
    newest: dict[tuple[Place, int], int] = {}
    known: set[tuple[Place, int]] = set()
    disorder: Counter[Place] = Counter()
    for place, _, number in sorted(outputs):
        if (place, number) in known:
            continue
        known.add((place, number))
        row = place, lane(number)
        if number < newest.get(row, number):
            disorder[place] += 1
        else:
            newest[row] = number
    return dict(disorder)


def _some(numbers: frozenset[int]) -> list[int]:
    return sorted(numbers)[:_SHOWN]
