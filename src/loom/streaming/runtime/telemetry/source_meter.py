"""What a source client measures of its batches: sizes, topics, timestamps. Hot path, but per batch; only where metrics are on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.metrics import Timings
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.offsets import WorkerOffsets
from loom.streaming.runtime.stages.stage_io import SourceBatch

__all__ = ["SourceMeter"]

#: seconds between two looks at the timestamps of a whole batch
_DATE_EVERY = 1.0


class SourceMeter:
    """Measures the batches of one source client. Used by its worker alone."""

    def __init__(
        self, timings: Timings, view: RecordAccessor, topics: Mapping[str, Any], offsets: WorkerOffsets
    ) -> None:
        self._timings = timings
        self._view = view
        self._only_topic = next(iter(topics)) if len(topics) == 1 else None
        self._offsets = offsets
        self._date_at = 0.0

    def took(self, batch: SourceBatch) -> None:
        """A batch with records is about to be passed on."""
        origins, timings, view = batch.origins, self._timings, self._view
        timings.batch_records.observe(len(origins))
        if self._only_topic is not None:
            timings.read_topics[self._only_topic] += len(origins)
        else:
            timings.read_topics.update(Counter([view.place(origin).topic or "" for origin in origins]))
        first, last = view.time(origins[0]), view.time(origins[-1])
        if first is not None and last is not None:
            batch.produced_ms = (first, last)
        if batch.now >= self._date_at:
            self._date_at = batch.now + _DATE_EVERY
            self._date(batch)

    def _date(self, batch: SourceBatch) -> None:
        """Note the time of the last record of each partition, for the lag in seconds."""
        newest: dict[TopicPartition, int] = {}
        for origin in batch.origins:
            time_ms = self._view.time(origin)
            topic, partition, _ = self._view.place(origin)
            if time_ms is not None and topic is not None and partition is not None:
                newest[TopicPartition(topic, partition)] = time_ms
        self._offsets.dated(newest)
