"""The workers of a process that shares the partitions of its source with the other members of its group.

Made when a dataflow is built; opens nothing before an engine asks for a worker.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from loom.streaming.compiler.model import CompiledSource
from loom.streaming.kafka.group_snapshot import GroupSnapshot
from loom.streaming.kafka.offset_metadata import RunMetadata
from loom.streaming.kafka.topic_monitor import TopicState
from loom.streaming.runtime.group_share import GroupShare
from loom.streaming.runtime.member_transactions import MemberTransactions
from loom.streaming.runtime.member_worker import MemberWorker
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.stages.stage import Stage
from loom.streaming.runtime.topic_changes import TopicChanges

__all__ = ["GroupWorkers"]


class GroupWorkers:
    """Opens workers, each on its own thread. `topics` tells the partitions of the source, `group` what is known of its group,
    `topics_seen` how the topics were; they are asked before anything is read.
    """

    def __init__(
        self,
        source: CompiledSource,
        state: RunState,
        topics: Callable[[], Mapping[str, tuple[int, ...]]],
        group: Callable[[], GroupSnapshot],
        topics_seen: Callable[[], Mapping[str, TopicState]],
        make_stage: Callable[[], Stage],
        metadata: RunMetadata,
        exactly_once: MemberTransactions | None = None,
    ) -> None:
        self._source = source
        self._state = state
        self._topics = topics
        self._group = group
        self._topics_seen = topics_seen
        self._make_stage = make_stage
        self._metadata = metadata
        self._exactly_once = exactly_once
        self._changes = TopicChanges(source, state.stop)
        self._lock = threading.Lock()
        self._share: GroupShare | None = None

    def open_share(self, index: int, count: int) -> MemberWorker:
        """The source of one of `count` workers, on whose thread this is called."""
        if self._exactly_once is not None:
            # Before any offset is fetched: what a predecessor left open must not be committed after it.
            self._exactly_once.open()
        with self._lock:
            if self._share is None or self._share.closed:
                # None yet, or that of an earlier run of the same dataflow.
                self._share = GroupShare(
                    self._source, self._state, self._topics, self._metadata, count, self._exactly_once
                )
            return MemberWorker(
                self._share,
                index,
                self._source,
                self._state,
                self._make_stage,
                self._metadata,
                self._topics(),
                self._group().keep_alive_s,
                self._exactly_once.pace() if self._exactly_once is not None else None,
                self._changes,
                self._changes.open(self._topics_seen()),
            )
