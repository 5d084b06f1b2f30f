"""Logs once when the brokers of a cluster become unreachable, now and then that they still are, and once that they are back.

A client that has lost its last broker reports it over and over, and never that it has found one again. So the first report
starts a thread, which polls the cluster until it answers, and ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from loom.core.logger import get_logger
from loom.streaming.kafka.client_config import make_client
from loom.streaming.kafka.client_statistics import ClientStatistics
from loom.streaming.kafka.cluster_faults import ClusterFaults
from loom.streaming.kafka.errors import KafkaTransportError
from loom.streaming.kafka.reserved_properties import shared_properties

__all__ = ["Clusters"]

_log = get_logger(__name__)

#: seconds that one request may take, between two of them, and between two reminders that the brokers are unreachable
_PATIENCE = 2.0
_PAUSE = 1.0
_REMIND = 30.0


class Clusters:
    """The clusters that the clients of one run talk to. Safe to use from any thread.

    Outages are said while `active` says that the run reads or writes; before that it is the start which fails.
    """

    def __init__(self, active: Callable[[], bool], *, remind_s: float = _REMIND, statistics_ms: int = 0) -> None:
        self._active = active
        #: what the clients report of their traffic, where that is wanted
        self.statistics = ClientStatistics(statistics_ms) if statistics_ms else None
        self._remind_s = remind_s
        self._lock = threading.Lock()
        self._known: dict[str, ClusterFaults] = {}
        self._outages: list[_Outage] = []

    def of(self, config: Mapping[str, Any]) -> ClusterFaults:
        """What is known of the cluster that a client with these properties talks to."""
        brokers, user = str(config.get("bootstrap.servers", "")), config.get("sasl.username")
        with self._lock:
            key = f"{user}@{brokers}"
            if key not in self._known:
                outage = _Outage(config, self._active, self._remind_s)
                outage.faults.statistics = self.statistics
                self._outages.append(outage)
                self._known[key] = outage.faults
            return self._known[key]

    def unreachable(self) -> list[str]:
        """The brokers of the clusters that cannot be reached now."""
        with self._lock:
            return [outage.faults.brokers for outage in self._outages if outage.away]


class _Outage:
    """The watch of one cluster; there is a thread only while it is away."""

    def __init__(self, config: Mapping[str, Any], active: Callable[[], bool], remind_s: float) -> None:
        self._remind_s = remind_s
        self._config = shared_properties(config)
        self._active = active
        self._lock = threading.Lock()
        self._watched = False
        #: no broker answers
        self.away = False
        self.faults = ClusterFaults(config, self._suspect)

    def _suspect(self) -> None:
        """A client has lost its last broker. Called again and again, from inside the calls of the client."""
        with self._lock:
            if self._watched or not self._active():
                return
            self._watched = True
        threading.Thread(target=self._watch, name="loom-outage", daemon=True).start()

    def _watch(self) -> None:
        began = time.monotonic()
        said_at: float | None = None
        asking = _Asking(self._config)
        while self._active() and not asking.answered():
            now = time.monotonic()
            if said_at is None or now - said_at >= self._remind_s:
                event = "broker_unavailable" if said_at is None else "broker_still_unavailable"
                reason = self.faults.explain() or asking.faults.explain() or "no broker answers"
                _log.warning(event, brokers=self.faults.brokers, away_s=round(now - began), reason=reason)
                said_at = now
                self.away = True
            time.sleep(_PAUSE)
        self.away = False
        with self._lock:
            self._watched = False
        if said_at is not None and self._active():
            _log.warning("broker_available", brokers=self.faults.brokers, away_s=round(time.monotonic() - began, 1))


class _Asking:
    """A client for the polling alone, so that it does not block those that read and write."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._client: AdminClient | None = None
        self.faults = ClusterFaults(config)

    def answered(self) -> bool:
        try:
            if self._client is None:
                self._client = make_client(AdminClient, self._config, self.faults)
            self._client.list_topics(timeout=_PATIENCE)
        except KafkaTransportError:
            # No token for it, for instance.
            return False
        except KafkaException:
            if self._client is not None:
                self._client.poll(0)
            return False
        return True
