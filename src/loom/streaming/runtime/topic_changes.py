"""The effect of a change of the source's topics on a run, by `on_topic_change`: one log event, and possibly an orderly end.

Created by the source, which all workers share; its monitor runs on a separate thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping

from loom.core.logger import get_logger
from loom.streaming.compiler.model import CompiledSource
from loom.streaming.kafka.errors import TopicsChangedError
from loom.streaming.kafka.topic_monitor import Change, TopicChange, TopicMonitor, TopicState, look_at_states
from loom.streaming.runtime.stop import StopSignal

__all__ = ["TopicChanges"]

_log = get_logger(__name__)


class TopicChanges:
    """The watch of a source, and what it has found. Open while any worker reads; may be opened again."""

    def __init__(self, source: CompiledSource, stop: StopSignal) -> None:
        self._settings = source.settings
        self._cluster = source.cluster
        self._stop = stop
        self._watch: TopicMonitor | None = None
        self._opened = False
        self._lock = threading.Lock()
        #: where each worker that is open finds the changes of what it reads
        self._inboxes: list[deque[TopicChange]] = []
        #: the workers that have not come to their end yet, by their inbox
        self._reading: set[int] = set()
        self._ending: TopicsChangedError | None = None

    @property
    def stops(self) -> bool:
        """Whether a change ends the run."""
        return self._settings.on_topic_change == "stop"

    def open(self, known: Mapping[str, TopicState]) -> deque[TopicChange]:
        """A worker begins to read; the first one begins the watch. Returns where it finds the changes.

        `known` is how the start saw the topics. A later run of the same dataflow fetches them again.
        """
        inbox: deque[TopicChange] = deque()
        with self._lock:
            self._inboxes.append(inbox)
            self._reading.add(id(inbox))
            if self._watch is None:
                self._ending = None
                fresh, self._opened = not self._opened, True
                self._watch = TopicMonitor(
                    known if fresh else {topic: TopicState(None, state.partitions) for topic, state in known.items()},
                    interval_s=self._settings.topic_check_interval_ms / 1000,
                    look=look_at_states(self._cluster.properties, known),
                    changed=self.take,
                )
                self._watch.start()
        return inbox

    def ended(self, inbox: deque[TopicChange]) -> TopicsChangedError | None:
        """A worker has ended in order; the last one gets the reason, if it was a change."""
        with self._lock:
            self._reading.discard(id(inbox))
            return self._ending if not self._reading else None

    def close(self, inbox: deque[TopicChange]) -> None:
        """A worker is gone; the last one ends the watch. Never raises."""
        with self._lock:
            self._inboxes = [other for other in self._inboxes if other is not inbox]
            self._reading.discard(id(inbox))
            if not self._inboxes and self._watch is not None:
                self._watch.close()
                self._watch = None

    def suspect(self, topic: str, why: str) -> None:
        """A client reported something unusual about a topic: check now rather than at the next turn."""
        _log.info("topic_check_requested", topic=topic, why=why)
        watch = self._watch
        if watch is not None:
            watch.look_now()

    def take(self, change: TopicChange) -> None:
        """A change was seen. Called on the watch's thread."""
        text = change.text
        if change.what is Change.PARTITIONS_ADDED and self._settings.shares_group:
            text = f"the topic {change.topic!r} has more partitions: the group deals the new ones out to its members"
        _log.warning(change.what.value, topic=change.topic, note=text)
        with self._lock:
            if change.what is not Change.PARTITIONS_ADDED:
                for inbox in self._inboxes:
                    inbox.append(change)
            if self.stops and self._ending is None:
                self._ending = TopicsChangedError(
                    f"{change.text}. The run has ended in order (on_topic_change: stop): restart the flow"
                )
                self._stop.request(change.text, restart=True)
