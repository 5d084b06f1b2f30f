"""Where a run under chaos takes place: an in-process broker, or topics of its own on a real one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from loom.core.model import LoomFrozenStruct
from loom.streaming.kafka.embedded import EmbeddedBroker
from loom.streaming.kafka.settings import ProducerSettings
from loom.streaming.kafka.topic_admin import TopicAdmin, TopicRequest

__all__ = ["Place", "place_of"]

_PARTITIONS = 4
_EPOCH_MS = 250


class Place(LoomFrozenStruct):
    """A cluster with topics for one run, and the guarantee that it can keep."""

    bootstrap: str
    delivery: str
    #: stands in front of the names of topics and of the group
    prefix: str = ""

    def topic(self, name: str) -> str:
        """The name here of a topic of the flow."""
        return f"{self.prefix}{name}"

    def config(self, source: str, outputs: Sequence[str], settings: dict[str, Any]) -> dict[str, Any]:
        """The config of the flow here."""
        consumer: dict[str, Any] = {
            "brokers": [self.bootstrap],
            "group_id": f"{self.prefix}chaos",
            "topics": [self.topic(source)],
            "delivery": self.delivery,
            "auto_offset_reset": "earliest",
        }
        if not self.prefix:
            # This broker answers a waiting fetch only when its time is over.
            consumer["extra"] = {"fetch.wait.max.ms": 20}
        producers = {name: {"brokers": [self.bootstrap], "topic": self.topic(name)} for name in outputs}
        return {
            "kafka": {"consumer": consumer, "producers": producers},
            "streaming": {"runtime": {"epoch_interval_ms": _EPOCH_MS}},
            **settings,
        }


@contextmanager
def place_of(brokers: str | None, topics: Sequence[str]) -> Iterator[Place]:
    """The cluster at `brokers` with topics of this run, which are deleted afterwards; without, a broker in this process.

    The in-process broker knows no transactions that hide what was aborted, so the flow is at-least-once there.

    Raises:
        KafkaTransportError: the cluster is not there, or does not let the topics be created.
    """
    if brokers is None:
        with EmbeddedBroker() as broker:
            for topic in topics:
                broker.create_topic(topic)
            yield Place(broker.bootstrap, "at_least_once")
        return
    place = Place(brokers, "exactly_once", f"loom-demo-{uuid.uuid4().hex[:8]}.")
    admin = TopicAdmin(ProducerSettings((brokers,)).to_confluent_config())
    names = [place.topic(topic) for topic in topics]
    admin.create([TopicRequest(name, _PARTITIONS) for name in names])
    try:
        yield place
    finally:
        admin.delete(names)
