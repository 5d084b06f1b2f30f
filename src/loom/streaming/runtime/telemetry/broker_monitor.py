"""Asks the brokers now and then where the logs end: for the lag, and to know whether they answer. Only where metrics are on.

On a thread and with a client of its own, so that a flow that stands still is seen to fall behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from loom.core.logger import get_logger
from loom.core.thread_beside import thread_beside
from loom.streaming.kafka.errors import KafkaTransportError
from loom.streaming.record import TopicPartition

__all__ = ["BrokerMonitor", "FetchesEnds"]

_log = get_logger(__name__)

#: seconds between two questions, for the answer to one, and that the end of a run waits for one
_EVERY = 1.0
_PATIENCE = 2.0
_LEAVE = 0.5


class FetchesEnds(Protocol):
    """Where the ends of logs come from."""

    def fetch(self, partitions: Collection[TopicPartition], timeout_s: float) -> dict[TopicPartition, int]:
        """The end of each log. Raises `KafkaTransportError` if no broker answers."""


class BrokerMonitor:
    """What is known of the brokers of a source. `partitions` tells which logs are of interest."""

    def __init__(
        self,
        ends: Callable[[], FetchesEnds],
        partitions: Callable[[], Collection[TopicPartition]],
        every_s: float = _EVERY,
    ) -> None:
        self._make = ends
        self._partitions = partitions
        self._every = every_s
        self._over = threading.Event()
        #: where each log ended when a broker was last asked
        self.ends: Mapping[TopicPartition, int] = {}
        #: whether a broker answered the last question; not known before the first
        self.reachable: bool | None = None
        #: why not
        self.reason = ""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Ask during the block."""
        with thread_beside("loom-lag", self._watch, self._over, _LEAVE):
            yield

    def _watch(self) -> None:
        try:
            ends = self._make()
            while True:
                self.ask(ends)
                if self._over.wait(self._every):
                    return
        except Exception as error:  # noqa: BLE001 - a fault of the monitor is not a fault of the flow
            self.reachable, self.reason = None, str(error)
            _log.exception("broker_monitor_failed", error=str(error))

    def ask(self, ends: FetchesEnds) -> None:
        """Ask once."""
        try:
            self.ends = {**self.ends, **ends.fetch(self._partitions(), _PATIENCE)}
        except KafkaTransportError as error:
            self.reachable, self.reason = False, str(error)
        else:
            self.reachable, self.reason = True, ""
