"""What tests of every folder may ask for: a broker inside this process, empty and of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import structlog  # noqa: F401 - tests capture its lines; where it is loaded, ours are its lines
from hypothesis import settings

from loom.core.logger import configure_logging
from loom.streaming.kafka import EmbeddedBroker

# The engine prints where in its own source it failed, a page for each failed run; nobody reads it here.
os.environ["RUST_BACKTRACE"] = "0"

# Tests read what a process logs as a person would, though it is no terminal.
os.environ["LOOM_LOG_FORMAT"] = "console"

# How long one generated example takes says more of the machine than of the code.
settings.register_profile("loom", deadline=None)
settings.load_profile("loom")

# Whoever captures log lines before the first one is written leaves structlog configured by half, with lines on stdout.
configure_logging()


pytest_plugins = ["loom.streaming.testing.fixtures"]


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    """The client's own test broker; `broker.bootstrap` is its address. Every topic has four partitions."""
    with EmbeddedBroker() as running:
        yield running
