"""Kafka as an engine source: one part per partition (the engine's epoch and recovery handles), one client per worker.

One part of each worker leads and returns the whole batch of its client, partitions mixed. That is safe because all
parts emit in one epoch at a time and the offsets travel in the batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from bytewax.inputs import AbortExecution, FixedPartitionedSource, StatefulSourcePartition

from loom.streaming.compiler.model import CompiledSource
from loom.streaming.kafka.group_snapshot import GroupSnapshot
from loom.streaming.kafka.offset_metadata import RunMetadata
from loom.streaming.kafka.topic_monitor import TopicState
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.commit import CommitTracker
from loom.streaming.runtime.exactly_once import ExactlyOnce
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.source_worker import SourceWorker
from loom.streaming.runtime.stages.stage import Stage
from loom.streaming.runtime.stages.stage_io import SourceBatch
from loom.streaming.runtime.topic_changes import TopicChanges
from loom.streaming.runtime.wall_clock import ALWAYS_DUE

__all__ = ["KafkaSource"]

#: how often a part that does not lead checks whether it has ended
_FOLLOWER_AWAKE = timedelta(milliseconds=50)


class KafkaSource(FixedPartitionedSource[SourceBatch, int | None]):
    """The partitions of the source's topics that this process reads.

    `look_up` tells the numbers of all partitions, `own` those of this process, `group` what is known of the group,
    `topics_seen` how the topics were.

    They are asked before anything is read.
    """

    def __init__(
        self,
        source: CompiledSource,
        delivery: RunState,
        look_up: Callable[[], Mapping[str, tuple[int, ...]]],
        own: Callable[[], Iterable[TopicPartition]],
        group: Callable[[], GroupSnapshot],
        topics_seen: Callable[[], Mapping[str, TopicState]],
        make_stage: Callable[[], Stage],
        tracker: CommitTracker | None,
        metadata: RunMetadata,
        exactly_once: ExactlyOnce | None = None,
    ) -> None:
        self._source = source
        self._metadata = metadata
        self._delivery = delivery
        self._look_up = look_up
        self._own = own
        self._group = group
        self._topics_seen = topics_seen
        self._make_stage = make_stage
        self._tracker = tracker
        self._exactly_once = exactly_once
        self._changes = TopicChanges(source, delivery.stop)
        if exactly_once is not None:
            exactly_once.suspect = self._changes.suspect
        self._lock = threading.Lock()
        self._workers: dict[int, SourceWorker] = {}

    def list_parts(self) -> list[str]:
        """A part per Kafka partition. Numbers are padded, since the engine deals parts out in sorted order."""
        return sorted(f"{topic}/{number:06d}" for topic, number in self._own())

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Part:
        """A part, sharing the client of the worker on whose thread this is called."""
        if self._exactly_once is not None:
            # Before any offset is fetched: what a predecessor left open must not be committed after it.
            self._exactly_once.open()
        topic, _, number = for_part.rpartition("/")
        partition = TopicPartition(topic, int(number))
        thread = threading.get_ident()
        with self._lock:
            worker = self._workers.get(thread)
            if worker is None or worker.left_by_all:
                # None yet on this thread, or that of an earlier run of the same dataflow.
                pace = self._exactly_once.pace() if self._exactly_once is not None else None
                worker = SourceWorker(
                    self._source,
                    self._delivery,
                    self._make_stage(),
                    self._tracker,
                    self._metadata,
                    self._look_up(),
                    self._group().keep_alive_s,
                    pace,
                    self._changes,
                    self._changes.open(self._topics_seen()),
                )
                self._workers[thread] = worker
        return _Part(worker, partition, leads=worker.join(partition, resume_state))


class _Part(StatefulSourcePartition[SourceBatch, int | None]):
    """One partition, to the engine."""

    def __init__(self, worker: SourceWorker, partition: TopicPartition, *, leads: bool) -> None:
        self._worker = worker
        self._partition = partition
        self._leads = leads

    def next_batch(self) -> list[SourceBatch]:
        state = self._worker.delivery
        try:
            if self._leads and not state.aborting():
                return self._worker.next_batch()
        except StopIteration:
            raise
        except BaseException as fault:
            state.failed(fault)
            if not state.aborting():
                raise
        if state.aborting():
            # At once, and without a snapshot: nothing of this epoch may be kept.
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
