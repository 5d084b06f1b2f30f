"""Kafka as an engine source: one part per partition (the engine's epoch and recovery handles), one client per worker.

One part of each worker leads and returns the whole batch of its client, partitions mixed. That is safe because all
parts emit in one epoch at a time and the offsets travel in the batch.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from bytewax.inputs import AbortExecution, FixedPartitionedSource, StatefulSourcePartition

from loom.streaming.record import TopicPartition
from loom.streaming.runtime.kafka_workers import KafkaWorkers
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.source_worker import SourceWorker
from loom.streaming.runtime.stages.stage_io import SourceBatch
from loom.streaming.runtime.wall_clock import ALWAYS_DUE

__all__ = ["KafkaSource", "batch_of"]

#: how often a part that does not lead checks whether it has ended
_FOLLOWER_AWAKE = timedelta(milliseconds=50)


def batch_of(worker: SourceWorker) -> list[SourceBatch]:
    """The batch of a worker, for the part through which the engine asks it.

    Raises `StopIteration` at the end, and `AbortExecution` where the run has failed: at once, and without a snapshot, since
    nothing of this epoch may be kept.
    """
    state = worker.state
    try:
        if not state.aborting():
            return worker.next_batch()
    except StopIteration:
        raise
    except BaseException as fault:
        state.failed(fault)
        if not state.aborting():
            raise
    raise AbortExecution


class KafkaSource(FixedPartitionedSource[SourceBatch, int | None]):
    """All partitions of the source's topics, each a part of the worker that the engine gives it to."""

    def __init__(self, workers: KafkaWorkers, state: RunState) -> None:
        self._source = workers
        self._state = state
        self._lock = threading.Lock()
        self._workers: dict[int, SourceWorker] = {}

    def list_parts(self) -> list[str]:
        """A part per Kafka partition. Numbers are padded, since the engine deals parts out in sorted order."""
        return sorted(f"{topic}/{number:06d}" for topic, number in self._source.partitions())

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Part:
        """A part, sharing the client of the worker on whose thread this is called."""
        self._source.open_transactions()
        topic, _, number = for_part.rpartition("/")
        partition = TopicPartition(topic, int(number))
        thread = threading.get_ident()
        with self._lock:
            worker = self._workers.get(thread)
            if worker is None or worker.left_by_all:
                # None yet on this thread, or that of an earlier run of the same dataflow.
                self._workers[thread] = worker = self._source.open()
        return _Part(worker, partition, leads=worker.join(partition, resume_state))


class _Part(StatefulSourcePartition[SourceBatch, int | None]):
    """One partition, to the engine."""

    def __init__(self, worker: SourceWorker, partition: TopicPartition, *, leads: bool) -> None:
        self._worker = worker
        self._partition = partition
        self._leads = leads

    def next_batch(self) -> list[SourceBatch]:
        if self._leads:
            return batch_of(self._worker)
        if self._worker.state.aborting():
            raise AbortExecution
        if self._worker.feed.ended:
            raise StopIteration
        return []

    def next_awake(self) -> datetime | None:
        # Whichever clock the engine goes by, it asks the leader; what the others wait for is seen a little later.
        return ALWAYS_DUE if self._leads else datetime.now(UTC) + _FOLLOWER_AWAKE

    def snapshot(self) -> int | None:
        if self._leads:
            self._worker.feed.snapshot()
        return self._worker.position(self._partition)

    def close(self) -> None:
        self._worker.leave()
