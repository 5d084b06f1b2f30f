"""Metrics for Prometheus: a collector that reads plain counters when it is scraped, an endpoint, and a push gateway.

Added by `ObservabilityRuntime.from_config` when the configuration has `observability.prometheus`. Needs the extra
`prometheus`, which nothing else imports.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from loom.core.logger import get_logger
from loom.core.observability.event import LifecycleEvent, Scope
from loom.core.observability.extras import check_prometheus
from loom.core.observability.metrics import (
    Check,
    HistogramValue,
    Measures,
    MetricKind,
    MetricSamples,
    MetricsSource,
    Page,
)
from loom.core.observability.scrape_server import ScrapeServer
from loom.core.observability.settings import PrometheusEndpoint, PushGatewaySettings

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

__all__ = ["PrometheusObserver"]

_log = get_logger("loom.core.observability")

#: seconds that the end of a run waits for a push in progress
_LEAVE = 2.0


class PrometheusObserver:
    """Serves the metrics of a process, its health and its readiness. It is told of no events: it reads what is counted anyway.

    >>> observer = PrometheusObserver(PrometheusEndpoint(port=0))
    >>> observer.start_scrape_server()
    >>> observer.address.startswith("http://127.0.0.1:")
    True
    >>> observer.stop_scrape_server()

    Args:
        endpoint: where to serve, and where to push to.

    Raises:
        MissingExtraError: if `prometheus_client` is not installed.
    """

    #: no events
    scopes: frozenset[Scope] = frozenset()

    def __init__(self, endpoint: PrometheusEndpoint | None = None) -> None:
        check_prometheus()
        from prometheus_client import CollectorRegistry
        from prometheus_client.platform_collector import PlatformCollector
        from prometheus_client.process_collector import ProcessCollector

        self._endpoint = endpoint or PrometheusEndpoint()
        self._sources: dict[str, MetricsSource] = {}
        self._lock = threading.Lock()
        self._server: ScrapeServer | None = None
        self._pushing: _Pushing | None = None
        self.registry: Any = CollectorRegistry(auto_describe=False)
        self.registry.register(_Collector(self._all))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    @property
    def measures(self) -> Measures:
        """What is to be measured for it."""
        return Measures(self._endpoint.client_statistics_ms)

    @property
    def address(self) -> str | None:
        """Where metrics are served, as a URL without a path; `None` while they are not."""
        return self._server.address if self._server is not None else None

    def on_event(self, event: LifecycleEvent) -> None:
        """Ignored.

        Args:
            event: what happened.
        """

    def attach(self, source: MetricsSource) -> None:
        """Serve the metrics of something that counts, in place of an earlier one with its name.

        Args:
            source: what counts.
        """
        with self._lock:
            self._sources[source.name] = source

    def start_scrape_server(self) -> None:
        """Begin to serve and to push. Where the port is taken, another free one is used, and logged.

        Raises:
            OSError: if no port of the address can be used.
        """
        if self._server is None:
            self._server = self._open()
            self._server.start()
            _log.info("metrics_server_started", url=f"{self._server.address}{self._endpoint.path}")
        if self._endpoint.push_gateway is not None and self._pushing is None:
            self._pushing = _Pushing(self._endpoint.push_gateway, self.registry)

    def stop_scrape_server(self) -> None:
        """Push once more, and serve no longer. Idempotent."""
        if self._pushing is not None:
            self._pushing.stop()
            self._pushing = None
        if self._server is not None:
            self._server.stop()
            self._server = None

    def _open(self) -> ScrapeServer:
        endpoint = self._endpoint
        index = max((source.process_index for source in self._all()), default=0)
        wanted = endpoint.port + index if endpoint.port else 0
        asked = (self._scrape, self._health, self._ready, self._pages)
        try:
            return ScrapeServer(endpoint.bind_address, wanted, endpoint.path, *asked)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        server = ScrapeServer(endpoint.bind_address, 0, endpoint.path, *asked)
        _log.warning("metrics_port_taken", port=wanted, url=f"{server.address}{endpoint.path}")
        return server

    def _all(self) -> list[MetricsSource]:
        with self._lock:
            return list(self._sources.values())

    def _scrape(self, accept: str) -> tuple[str, bytes]:
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(accept)
        return content_type, encode(self.registry)

    def _pages(self) -> dict[str, Page]:
        """Those of the source that was attached last win."""
        return {path: page for source in self._all() for path, page in source.pages().items()}

    def _health(self) -> list[Check]:
        return [check for source in self._all() for check in source.health()]

    def _ready(self) -> list[Check]:
        found = [check for source in self._all() for check in source.readiness()]
        return found or [Check("flow", False, "no flow has been started yet")]


class _Collector:
    """Makes the client's objects, at the time of a scrape and for it alone."""

    def __init__(self, sources: Callable[[], list[MetricsSource]]) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Family]:
        found: dict[str, Family] = {}
        for source in self._sources():
            for samples in source.metrics():
                name = samples.metric.name
                if name not in found:
                    found[name] = _family(samples)
                _fill(found[name], samples)
        yield from found.values()


def _family(samples: MetricSamples) -> Family:
    from prometheus_client import metrics_core

    metric = samples.metric
    made = {
        MetricKind.COUNTER: metrics_core.CounterMetricFamily,
        MetricKind.GAUGE: metrics_core.GaugeMetricFamily,
        MetricKind.HISTOGRAM: metrics_core.HistogramMetricFamily,
        MetricKind.INFO: metrics_core.InfoMetricFamily,
    }[metric.kind]
    name = metric.name.removesuffix("_total").removesuffix("_info")
    if metric.kind is MetricKind.INFO:
        family: Family = made(name, metric.help, labels=())
        return family
    filled: Family = made(name, metric.help, labels=metric.labels)
    return filled


def _fill(family: Any, samples: MetricSamples) -> None:
    metric = samples.metric
    for labels, value in samples.values.items():
        if isinstance(value, HistogramValue):
            family.add_metric(labels, buckets=_cumulated(value), sum_value=value.sum)
        elif metric.kind is MetricKind.INFO:
            family.add_metric((), dict(zip(metric.labels, labels, strict=True)))
        else:
            family.add_metric(labels, value)


def _cumulated(value: HistogramValue) -> list[tuple[str, float]]:
    buckets, sum_so_far = [], 0
    for bound, count in zip((*value.bounds, float("inf")), value.counts, strict=True):
        sum_so_far += count
        buckets.append((_shown(bound), float(sum_so_far)))
    return buckets


def _shown(bound: float) -> str:
    """A bound as Prometheus writes it."""
    return "+Inf" if bound == float("inf") else repr(float(bound))


class _Pushing:
    """Pushes now and then, from a thread of its own, for processes that are over before they are scraped."""

    def __init__(self, settings: PushGatewaySettings, registry: Any) -> None:
        self._settings = settings
        self._registry = registry
        self._over = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._work, name="loom-metrics-push", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Push once more, and end; a gateway that does not answer is not waited for."""
        self._over.set()
        self._thread.join(_LEAVE)

    def _work(self) -> None:
        while not self._over.wait(self._settings.interval_ms / 1000):
            self._push()
        self._push()

    def _push(self) -> None:
        from prometheus_client import push_to_gateway

        settings = self._settings
        try:
            push_to_gateway(
                settings.url,
                settings.job,
                self._registry,
                grouping_key=dict(settings.grouping),
                timeout=settings.timeout_ms / 1000,
            )
        except Exception as error:  # noqa: BLE001 - a gateway that is away must not end the thread
            if not self._failing:
                _log.warning("metrics_push_failed", url=settings.url, reason=str(error))
            self._failing = True
        else:
            if self._failing:
                _log.info("metrics_push_resumed", url=settings.url)
            self._failing = False
