"""Metrics, health and readiness against Apache Kafka: the lag is the broker's own figure; an outage is seen, and its end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loom.core.observability import ObservabilityRuntime, PrometheusObserver
from loom.core.observability.settings import PrometheusEndpoint
from loom.streaming import StreamingRunner, step
from tests.support.broker import ExternalKafka, Proxied
from tests.support.kafka_io import end_offsets, group_positions
from tests.support.one_way import Number, OneWay, accounted, running
from tests.support.waiting import LONG_S, until


class Scraped:
    """A runner with an endpoint of its own."""

    def __init__(self, one_way: OneWay, *nodes: Any, **consumer: Any) -> None:
        self.observer = PrometheusObserver(PrometheusEndpoint(port=0))
        runtime = ObservabilityRuntime([self.observer])
        config = one_way.config(**consumer)
        self.runner = StreamingRunner.from_dict(one_way.flow(*nodes), config, observability_runtime=runtime)

    def status(self, path: str) -> int | None:
        address = self.observer.address
        return httpx.get(f"{address}{path}", timeout=LONG_S).status_code if address else None

    def values(self, name: str) -> list[float]:
        address = self.observer.address
        if address is None:
            return []
        families = text_string_to_metric_families(httpx.get(f"{address}/metrics", timeout=LONG_S).text)
        return [sample.value for family in families for sample in family.samples if sample.name == f"loom_{name}"]


def broker_lag(one_way: OneWay) -> float:
    """As `kafka-consumer-groups.sh` has it."""
    ends = end_offsets(one_way.bootstrap, one_way.source)
    committed = group_positions(one_way.bootstrap, one_way.group, one_way.source)
    return float(sum(end - committed.get(partition, 0) for partition, end in ends.items()))


def seen(scraped: Scraped, lag: float) -> Callable[[], bool]:
    return lambda: sum(scraped.values("lag_records")) == lag and bool(scraped.values("lag_records"))


def test_the_lag_is_the_brokers_own_figure_also_while_the_flow_hangs(one_way: OneWay) -> None:
    release = threading.Event()

    @step
    def hanging(number: Number) -> Number:
        if number.n == 10:
            release.wait(LONG_S)
        return number

    one_way.write(10)
    scraped = Scraped(one_way, hanging)
    with running(scraped.runner) as raised:
        try:
            until(accounted(scraped.runner, 10))
            until(lambda: one_way.position() == 10)
            until(seen(scraped, 0.0))
            assert broker_lag(one_way) == 0
            # The next record hangs, so that nothing of the flow's own would ever say that more have come.
            one_way.write(25, start=10)
            until(seen(scraped, 25.0))
            assert broker_lag(one_way) == 25
        finally:
            release.set()
        until(accounted(scraped.runner, 35))
        until(seen(scraped, 0.0))
    assert raised == []


def test_the_lags_of_two_members_of_a_group_add_up_to_that_of_the_group(one_way: OneWay) -> None:
    one_way.write(50)
    members = [Scraped(one_way, membership="group") for _ in range(2)]
    with running(members[0].runner) as first, running(members[1].runner) as second:
        until(lambda: one_way.position() == 50)
        until(lambda: sum(sum(member.values("assigned_partitions")) for member in members) == 1)
        until(lambda: sum(sum(member.values("lag_records")) for member in members) == 0 == broker_lag(one_way))
        assert [member.status("/healthz") for member in members] == [200, 200]
    assert first == second == []


def test_a_broker_that_is_away_is_seen_and_so_is_its_return(proxied: Proxied) -> None:
    one_way = OneWay(ExternalKafka(proxied.bootstrap), proxied.topics)
    one_way.write(3)
    scraped = Scraped(one_way)
    with running(scraped.runner) as raised:
        until(accounted(scraped.runner, 3))
        until(lambda: scraped.status("/readyz") == 200)
        proxied.proxy.cut()
        try:
            until(lambda: scraped.status("/readyz") == 503)
            assert scraped.values("broker_reachable") == [0.0]
            assert scraped.status("/healthz") == 200
        finally:
            proxied.proxy.mend()
        until(lambda: scraped.status("/readyz") == 200)
        assert scraped.values("broker_reachable") == [1.0]
    assert raised == []
