"""Checks the topics of the source at an interval, on a separate thread: deleted, recreated, given more partitions.

The client reports none of this by itself: a reader of a deleted topic idles, and one whose topic was recreated reads on in the
middle of it. Opened and closed by the source; the worker's thread is never held up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from loom.core.counted import counted
from loom.core.model import LoomFrozenStruct
from loom.streaming.kafka.client_config import CLIENT_LOG, kafka_error, make_client
from loom.streaming.kafka.cluster_faults import ClusterFaults
from loom.streaming.kafka.cluster_snapshot import EMBEDDED
from loom.streaming.kafka.reserved_properties import shared_properties

__all__ = ["Change", "TopicChange", "TopicMonitor", "TopicState", "look_at_states"]

#: seconds that one request may take
_PATIENCE = 10.0
#: seconds after which a topic that was not listed is checked again, before it counts as deleted
_SURE = 1.0


class Change(Enum):
    """What can happen to a topic of the source; the value is the event in the log."""

    DELETED = "topic_deleted"
    RECREATED = "topic_recreated"
    PARTITIONS_ADDED = "topic_partitions_added"


class TopicChange(LoomFrozenStruct):
    """One change of one topic, and what it means, for a log or an error."""

    topic: str
    what: Change
    text: str


class TopicState(LoomFrozenStruct):
    """A topic as it was seen. Its id changes when it is recreated; an old broker has no ids."""

    id: str | None
    partitions: int


#: returns the topics that exist
Look = Callable[[], Mapping[str, TopicState]]


class TopicMonitor:
    """Calls `changed` once for each change, on the thread of the monitor. A check that fails is ignored.

    `known` is how the topics were seen before. The first check is made at once if a topic has no id in it.
    """

    def __init__(
        self, known: Mapping[str, TopicState], *, interval_s: float, look: Look, changed: Callable[[TopicChange], None]
    ) -> None:
        self._known = dict(known)
        self._interval_s = interval_s
        self._look = look
        self._changed = changed
        self._missed: set[str] = set()
        self._gone: set[str] = set()
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="loom-topic-watch", daemon=True)

    def start(self) -> None:
        """Start checking."""
        self._thread.start()

    def look_now(self) -> None:
        """Check now. From any thread."""
        self._wake.set()

    def close(self) -> None:
        """Stop. A check in progress is not awaited, and reports nothing."""
        self._closed = True
        self._wake.set()

    def _run(self) -> None:
        if all(known.id is not None for known in self._known.values()):
            self._wake.wait(self._interval_s)
        while not self._closed:
            self._wake.clear()
            try:
                seen = self._look()
            except Exception as error:  # noqa: BLE001 - a check that fails must not end a flow that reads
                CLIENT_LOG.info("the check of the topics failed: %s", error)
            else:
                for change in self._compare(seen):
                    if not self._closed:
                        self._changed(change)
            self._wake.wait(_SURE if self._missed else self._interval_s)

    def _compare(self, seen: Mapping[str, TopicState]) -> Iterable[TopicChange]:
        for topic, known in self._known.items():
            found = seen.get(topic)
            if found is None:
                if topic in self._missed:
                    self._missed.discard(topic)
                    self._gone.add(topic)
                    yield TopicChange(
                        topic, Change.DELETED, f"the topic {topic!r} was deleted: nothing is read from it"
                    )
                elif topic not in self._gone:
                    self._missed.add(topic)
                continue
            self._missed.discard(topic)
            was_gone = topic in self._gone
            self._gone.discard(topic)
            # A check without the id does not erase a known one.
            known_id = found.id if found.id is not None or was_gone else known.id
            self._known[topic] = TopicState(known_id, found.partitions)
            if was_gone or (known.id is not None and found.id is not None and known.id != found.id):
                yield TopicChange(
                    topic,
                    Change.RECREATED,
                    f"the topic {topic!r} was deleted and recreated: its offsets belong to a log that is gone",
                )
            elif found.partitions > known.partitions:
                yield TopicChange(
                    topic,
                    Change.PARTITIONS_ADDED,
                    f"the topic {topic!r} has {counted(found.partitions, 'partition')} instead of {known.partitions}: "
                    "the new ones are read from the next start on",
                )


def look_at_states(config: Mapping[str, Any], topics: Iterable[str]) -> Look:
    """Checks through one client, which is opened at the first check."""
    wanted = tuple(topics)
    opened: list[AdminClient] = []

    def look() -> Mapping[str, TopicState]:
        if not opened:
            opened.append(make_client(AdminClient, shared_properties(config), ClusterFaults(config)))
        # All topics are listed: asking for one by name could create it.
        listed = opened[0].list_topics(timeout=_PATIENCE)
        there = [
            t for t in wanted if t in listed.topics and listed.topics[t].error is None and listed.topics[t].partitions
        ]
        ids = {} if str(listed.cluster_id).startswith(EMBEDDED) else _ids(opened[0], there)
        return {topic: TopicState(ids.get(topic), len(listed.topics[topic].partitions)) for topic in there}

    return look


def _ids(admin: AdminClient, topics: list[str]) -> dict[str, str]:
    ids = {}
    if topics:
        for topic, future in admin.describe_topics(TopicCollection(topics), request_timeout=_PATIENCE).items():
            try:
                ids[topic] = str(future.result(_PATIENCE + 1).topic_id)
            except (KafkaException, TimeoutError) as error:
                told = kafka_error(error).str() if isinstance(error, KafkaException) else "no answer"
                CLIENT_LOG.info("the id of %s is not known: %s", topic, told)
    return ids
