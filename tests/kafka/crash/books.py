"""The flows of the matrix, and what has to come out of each: by output, every result that a number makes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tests.kafka.crash.verify import Seen, Verdict, seen, verify
from tests.support.arrivals import Sign
from tests.support.kafka_io import ReadRecord
from tests.support.numbers_run import PARTITIONS

REFUSED_EVERY = 97
#: in flows that make calls
FAILED_EVERY = 211
#: A result is one number: that of its record, its part of it, and the output that it is in.
_PARTS = 10


class FlowKind(StrEnum):
    """Which flow a cell runs; the value is its module."""

    PLAIN = "crash_flow"
    ROUTED = "routed_flow"
    REMEMBERING = "remembering_flow"
    CALLING = "calling_flow"
    RETRYING = "retrying_flow"
    REPEATING = "repeating_flow"


@dataclass(frozen=True)
class Book:
    """One flow: its outputs, and the (output, part) pairs that a number makes."""

    outputs: tuple[str, ...]
    results: Callable[[int], Iterable[tuple[str, int]]]


def _plain(n: int) -> Iterable[tuple[str, int]]:
    yield ("errors" if n % REFUSED_EVERY == 0 else "odd" if n % 2 else "even"), 0


def _failing(n: int) -> Iterable[tuple[str, int]]:
    """As the plain one; some numbers fail whatever is done."""
    if n % FAILED_EVERY == 0:
        yield "errors", 0
    else:
        yield from _plain(n)


def _routed(n: int) -> Iterable[tuple[str, int]]:
    if n % REFUSED_EVERY == 0:
        yield "errors", 0
        return
    for part in range(1 + n % 2):
        for output in {0: ("even",), 1: ("odd",)}.get(n % 5, ("left", "right")):
            yield output, part


_OUTPUTS = ("even", "odd", "errors")
BOOKS: Mapping[FlowKind, Book] = {
    FlowKind.PLAIN: Book(_OUTPUTS, _plain),
    FlowKind.ROUTED: Book((*_OUTPUTS, "left", "right"), _routed),
    FlowKind.REMEMBERING: Book(_OUTPUTS, _plain),
    FlowKind.CALLING: Book(_OUTPUTS, _failing),
    FlowKind.RETRYING: Book(_OUTPUTS, _failing),
    FlowKind.REPEATING: Book(_OUTPUTS, _failing),
}


def sign_of(value: bytes) -> Sign:
    """The partition and the number that a result comes from."""
    n = json.loads(value)["n"]
    return Sign(n % PARTITIONS, n)


def verdict(
    kind: FlowKind, count: int, found: Mapping[str, Iterable[ReadRecord]], twice: Mapping[int, int] | None = None
) -> Verdict:
    """What became of the first `count` numbers, given what each output holds, and what stands in the source repeatedly.

    A result in an output that is not its own counts as lost in the one and invented in the other.
    """
    book = BOOKS[kind]
    place = {output: number for number, output in enumerate(book.outputs)}

    def numbered(n: int, part: int, output: str) -> int:
        return (n * _PARTS + part) * _PARTS + place[output]

    def of(output: str) -> Callable[[ReadRecord], int]:
        def number(record: ReadRecord) -> int:
            assert record.value is not None
            value = json.loads(record.value)
            return numbered(value["n"], value.get("part", 0), output)

        return number

    expected = [numbered(n, part, output) for n in range(count) for output, part in book.results(n)]
    results: list[Seen] = [one for output, records in found.items() for one in seen(records, of(output))]
    source = twice or {}
    return verify(
        expected,
        results,
        lambda number: number // _PARTS**2 % PARTITIONS,
        lambda number: source.get(number // _PARTS**2, 1),
    )
