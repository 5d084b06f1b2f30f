"""How fast a topic grows, seen from outside while a contender writes to it. Called by the Kafka suite.

The end of a topic is where its last record stands, committed or not, so a writer in transactions is seen as it goes, and
neither the start of a process nor its orderly end counts.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaException, TopicPartition

#: seconds between two looks; four small requests each
_EVERY = 0.05
#: Between these shares of the records a run is taken to be steady. Not sooner: the first second holds connecting and
#: the first large fetch. Not later: partitions are read up one after the other.
_FROM, _TO = 0.1, 0.9


class Progress:
    """Looks at the ends of a topic's partitions from `__enter__` to `__exit__`, in a thread."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench-progress"})
        self._partitions = [TopicPartition(topic, number) for number in range(partitions)]
        self._seen: list[tuple[float, int]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._consumer.close()

    def rate(self, records: int) -> float | None:
        """Records per second in the steady part of the run; None where it was too short to be seen twice."""
        steady = [(at, count) for at, count in self._seen if _FROM * records <= count <= _TO * records]
        if len(steady) < 2:
            return None
        (began, first), (ended, last) = steady[0], steady[-1]
        return (last - first) / (ended - began)

    def _look(self) -> None:
        while not self._over.wait(_EVERY):
            try:
                count = sum(self._consumer.get_watermark_offsets(part, timeout=10)[1] for part in self._partitions)
            except KafkaException:  # of a topic that is new, a partition may not have told its leader yet
                continue
            self._seen.append((time.monotonic(), count))
