"""Stopping while the broker does not answer, on Apache Kafka: a wait that nothing interrupts would hold up the stop."""

from __future__ import annotations

import threading

import pytest

from loom.streaming import StreamingRunner, step
from loom.streaming.bytewax import ForcedShutdownError
from tests.support.broker import ExternalKafka, Proxied
from tests.support.one_way import Number, OneWay, running
from tests.support.waiting import until


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once", "at_most_once"])
def test_a_stop_ends_in_its_time_though_the_broker_has_gone_silent(proxied: Proxied, delivery: str) -> None:
    """Under at most once a commit precedes every batch: one call of the client lasts 45 s while nobody answers."""
    one_way = OneWay(ExternalKafka(proxied.bootstrap), proxied.topics)
    one_way.write(20_000)
    over = threading.Event()

    @step
    def unhurried(number: Number) -> Number:
        # However quick the run is, there is something left to be made durable when the broker goes silent.
        over.wait(0.001)
        return number

    config = one_way.config(delivery=delivery, batch_size=10)
    config["streaming"]["runtime"] |= {"epoch_interval_ms": 200, "force_shutdown_timeout_ms": 1_500}
    runner = StreamingRunner.from_dict(one_way.flow(unhurried), config)
    with running(runner) as raised:
        until(lambda: runner.metrics is not None and runner.metrics.read().durable > 0)
        proxied.proxy.silence()
        try:
            runner.shutdown()
            until(lambda: bool(raised))
        finally:
            over.set()
            proxied.proxy.mend()
    assert isinstance(raised[0], ForcedShutdownError), raised
