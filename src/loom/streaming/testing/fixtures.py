"""Fixtures for pytest: a broker inside the test process, and its topics.

A conftest takes them with `pytest_plugins = ["loom.streaming.testing.fixtures"]`. Nothing else of Loom imports pytest.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loom.streaming.kafka.embedded import EmbeddedBroker
from loom.streaming.testing.broker import BrokerTopics

__all__ = ["loom_broker", "loom_topics"]


@pytest.fixture
def loom_broker() -> Iterator[EmbeddedBroker]:
    """A broker of the test's own, empty; `loom_broker.bootstrap` is its address."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def loom_topics(loom_broker: EmbeddedBroker) -> BrokerTopics:
    """The topics of `loom_broker`: make them, write to them, run a flow between them, read them back."""
    return BrokerTopics(loom_broker)
