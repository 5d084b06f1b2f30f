"""The books of a run under chaos: what the flow writes when nobody kills it, against what stands in the topics.

Every input carries a number in a header, which the flow passes on. The same flow, run in memory, says how many results
of each input belong into each topic; whatever is missing is lost, whatever is there more often is doubled.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from loom.core.model import LoomFrozenStruct
from loom.streaming.flow import StreamFlow
from loom.streaming.headers import Headers
from loom.streaming.record import KafkaRecord

__all__ = ["NUMBER", "Balance", "Books", "expected_results", "numbered"]

#: the header that tells one input from all others
NUMBER = "x-demo-number"


class Result(NamedTuple):
    """A topic, as the flow names it, and the number of the input."""

    topic: str
    number: bytes


class Balance(LoomFrozenStruct):
    """What became of the inputs so far."""

    sent: int
    results: int
    #: results that must be there and are not
    missing: int
    #: results that are there once more than they must be
    doubled: int
    #: results of inputs that have none, or that were never sent
    strange: int

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


class Books:
    """Counts the results that are read. Its methods may be called from any thread."""

    def __init__(self, expected: Mapping[Result, int]) -> None:
        self._expected = dict(expected)
        self._by_input: dict[bytes, list[Result]] = {}
        for result in self._expected:
            self._by_input.setdefault(result.number, []).append(result)
        self._lock = threading.Lock()
        self._found: Counter[Result] = Counter()
        self._sent = self._due = self._met = self._doubled = self._strange = 0

    def sent(self, number: bytes) -> None:
        """An input was written: from now on its results are missing until they are there."""
        with self._lock:
            self._sent += 1
            self._due += sum(self._expected[result] for result in self._by_input.get(number, ()))

    def found(self, topic: str, record: KafkaRecord) -> None:
        """A result was read from a topic."""
        result = Result(topic, Headers.of(record.headers).get(NUMBER) or b"")
        with self._lock:
            wanted = self._expected.get(result, 0)
            self._found[result] += 1
            if not wanted:
                self._strange += 1
            elif self._found[result] <= wanted:
                self._met += 1
            else:
                self._doubled += 1

    def balance(self) -> Balance:
        """The state of the books now."""
        with self._lock:
            results = self._met + self._doubled + self._strange
            return Balance(self._sent, results, max(0, self._due - self._met), self._doubled, self._strange)


def numbered(topic: str, records: Iterable[tuple[bytes, bytes]]) -> list[KafkaRecord]:
    """Records for a topic, each with its number."""
    return [
        KafkaRecord(topic, key, value, Headers([(NUMBER, str(number).encode())]))
        for number, (key, value) in enumerate(records)
    ]


def expected_results(
    flow: StreamFlow[Any, Any], config: Mapping[str, Any], records: Iterable[KafkaRecord], topics: Sequence[str]
) -> Counter[Result]:
    """How many results of each input belong into each topic: what the flow writes in memory, where nobody kills it."""
    from loom.streaming.testing import StreamingTestRunner

    runner = StreamingTestRunner.from_dict(flow, config).with_records(records).run()
    return Counter(
        Result(topic, Headers.of(record.headers).get(NUMBER) or b"")
        for topic in topics
        for record in runner.written(topic)
    )
