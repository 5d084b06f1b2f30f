"""Flows under test: run in memory without a broker, or on one inside the test process.

`StreamingTestRunner` needs nothing but this package; the pytest fixtures are in `loom.streaming.testing.fixtures`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom.core.lazy import lazy_exports

if TYPE_CHECKING:
    from loom.streaming.testing.broker import BrokerTopics
    from loom.streaming.testing.runner import StreamingTestRunner

__all__ = ["BrokerTopics", "StreamingTestRunner"]

__getattr__, __dir__ = lazy_exports(__name__)
