"""The workers of a process that read from Kafka: the source client of each, and the watch of the topics that they share.

Made when a dataflow is built; opens nothing before an engine asks for a worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

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

__all__ = ["KafkaWorkers"]


class KafkaWorkers:
    """The partitions of the source's topics that this process reads, and who reads them.

    `look_up` tells the numbers of all partitions, `own` those of this process, `group` what is known of the group,
    `topics_seen` how the topics were. They are asked before anything is read.
    """

    def __init__(
        self,
        source: CompiledSource,
        state: RunState,
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
        self._state = state
        self._look_up = look_up
        self._own = own
        self._group = group
        self._topics_seen = topics_seen
        self._make_stage = make_stage
        self._tracker = tracker
        self._exactly_once = exactly_once
        self._changes = TopicChanges(source, state.stop)
        if exactly_once is not None:
            exactly_once.suspect = self._changes.suspect

    def partitions(self) -> list[TopicPartition]:
        """Those of this process, in the order in which they are dealt out to workers."""
        return sorted(self._own())

    def open(self) -> SourceWorker:
        """The client of a worker, on whose thread this is called. It reads what it then joins."""
        self.open_transactions()
        pace = self._exactly_once.pace() if self._exactly_once is not None else None
        return SourceWorker(
            self._source,
            self._state,
            self._make_stage,
            self._tracker,
            self._metadata,
            self._look_up(),
            self._group().keep_alive_s,
            pace,
            self._changes,
            self._changes.open(self._topics_seen()),
        )

    def open_transactions(self) -> None:
        """Before any offset is fetched: what a predecessor left open must not be committed after it."""
        if self._exactly_once is not None:
            self._exactly_once.open()

    def open_share(self, index: int, count: int) -> KafkaWorkerSource:
        """The source of one of `count` workers, which reads its share of the partitions."""
        return KafkaWorkerSource(self, self.partitions()[index::count])


class KafkaWorkerSource:
    """The client of one worker with its share of the partitions; without any, it is at its end."""

    def __init__(self, workers: KafkaWorkers, share: list[TopicPartition]) -> None:
        self._worker = workers.open() if share else None
        self._joined = len(share)
        for partition in share:
            if self._worker is not None:
                self._worker.join(partition, None)

    def next_batch(self) -> list[SourceBatch]:
        """What the engine asks for. Raises `StopIteration` once everything that can be committed is."""
        if self._worker is None:
            raise StopIteration
        return self._worker.next_batch()

    def close(self) -> None:
        """Close the client."""
        while self._worker is not None and self._joined:
            self._joined -= 1
            self._worker.leave()
