"""Stopping while the broker does not answer, on Apache Kafka: a wait that nothing interrupts would hold up the stop."""

from __future__ import annotations

import threading

import pytest

from loom.streaming import StreamingRunner
from loom.streaming.bytewax import ForcedShutdownError
from tests.support.broker import ExternalKafka, Proxied
from tests.support.one_way import OneWay, until


@pytest.mark.timeout(120)
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once", "at_most_once"])
def test_a_stop_ends_in_its_time_though_the_broker_has_gone_silent(proxied: Proxied, delivery: str) -> None:
    """Under at most once a commit precedes every batch: one call of the client lasts 45 s while nobody answers."""
    one_way = OneWay(ExternalKafka(proxied.bootstrap), proxied.topics)
    one_way.write(20_000)
    config = one_way.config(delivery=delivery, batch_size=10)
    config["streaming"]["runtime"] |= {"epoch_interval_ms": 200, "force_shutdown_timeout_ms": 1_500}
    runner = StreamingRunner.from_dict(one_way.flow(), config)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            runner.run()
        except ForcedShutdownError as error:
            raised.append(error)

    # In a thread: a client that hangs cannot be interrupted.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        until(lambda: runner.metrics is not None and runner.metrics.read().durable > 0)
        proxied.proxy.silence()
        runner.shutdown()
        thread.join(10)
        assert not thread.is_alive(), "the stop hangs"
    finally:
        proxied.proxy.mend()
        thread.join(60)
    assert raised, "the run ended as if all had been confirmed"
