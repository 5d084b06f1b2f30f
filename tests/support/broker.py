"""What every broker of the tests offers, whoever started it, and names on it that no other test uses."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tests.support.kafka_io import create_topic
from tests.support.proxy import Proxy


class Broker(Protocol):
    """A broker that tests can use; `ApacheKafka` is one that they can also stop, pause and kill."""

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients."""

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create a topic, wait until all its partitions have a leader, and return its name."""


@dataclass(frozen=True)
class ExternalKafka:
    """A broker that somebody else runs."""

    bootstrap: str

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create a topic, wait until all its partitions have a leader, and return its name."""
        return create_topic(self.bootstrap, name, partitions, config)


@dataclass(frozen=True)
class FreshTopics:
    """Names for one test: `create("orders", partitions=4)` makes a topic, `name("group")` only a unique name."""

    broker: Broker

    def name(self, stem: str = "topic") -> str:
        """A name that nothing on the broker has, for a topic, a group or a flow."""
        return f"{stem}-{uuid.uuid4().hex[:12]}"

    def create(self, stem: str = "topic", partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create a topic and return its name, which begins with `stem`."""
        return self.broker.create_topic(self.name(stem), partitions, config)


@dataclass(frozen=True)
class Proxied:
    """A broker that clients reach through a proxy only."""

    topics: FreshTopics
    proxy: Proxy
    bootstrap: str
