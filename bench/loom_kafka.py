"""Loom on Kafka: the flow and its config, run as in production and nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from bench.async_kafka import AT_ONCE, WAIT_S
from bench.kafka import KafkaJob
from bench.latency import LatencyJob
from bench.members import SESSION_MS, MembersJob
from bench.observed import METRICS, collector, traces
from bench.orders import Order, PricedOrder, price, validate
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, WithAsync, step

flow: StreamFlow[Order, PricedOrder] = StreamFlow(
    "bench", FromTopic("in", payload=Order), Process(step(validate), step(price)), output=IntoTopic("out")
)


@step(name="call")
async def call(order: Order) -> PricedOrder:
    """What every record waits for."""
    await asyncio.sleep(WAIT_S)
    return price(order)


calling: StreamFlow[Order, PricedOrder] = StreamFlow(
    "bench",
    FromTopic("in", payload=Order),
    Process(WithAsync(process=Process(call), max_concurrency=AT_ONCE)),
    output=IntoTopic("out"),
)


def run(job: KafkaJob) -> int:
    """At least once, with the default epochs of a second, stopped when everything is written."""
    return _run(job, "at_least_once")


def run_loop(job: KafkaJob) -> int:
    """At least once, on the plain loop."""
    return _run(job, "at_least_once", "loop")


def run_exactly_once(job: KafkaJob) -> int:
    """The same in transactions."""
    return _run(job, "exactly_once")


def run_metrics(job: KafkaJob) -> int:
    """At least once, with metrics that nobody scrapes."""
    return _run(job, "at_least_once", observed=METRICS)


def run_traces(job: KafkaJob) -> int:
    """At least once, with traces at 1 %, to a collector that answers."""
    return _run(job, "at_least_once", observed=traces(collector()))


def run_calls(job: KafkaJob) -> int:
    """A call for each record, at least once, in the order of the partition."""
    return _run(job, "at_least_once", declared=calling)


def run_calls_loop(job: KafkaJob) -> int:
    """The same on the plain loop."""
    return _run(job, "at_least_once", "loop", declared=calling)


def run_calls_exactly_once(job: KafkaJob) -> int:
    """The same in transactions."""
    return _run(job, "exactly_once", declared=calling)


def serve(job: LatencyJob) -> None:
    """At least once, until it is killed."""
    _runner(job, "at_least_once").run()


def serve_exactly_once(job: LatencyJob) -> None:
    """The same in transactions."""
    _runner(job, "exactly_once").run()


def serve_member(job: MembersJob) -> None:
    """At least once, as a member of the group, until it is told to stop."""
    _runner(job, "at_least_once", **_membership(job)).run()


def serve_member_exactly_once(job: MembersJob) -> None:
    """The same in transactions."""
    _runner(job, "exactly_once", **_membership(job)).run()


def _membership(job: MembersJob) -> dict[str, Any]:
    named = {} if job.instance is None else {"group_instance_id": job.instance}
    return {"membership": "group", "session_timeout_ms": SESSION_MS, **named}


def _runner(
    job: KafkaJob | LatencyJob | MembersJob,
    delivery: str,
    engine: str | None = None,
    observed: dict[str, Any] | None = None,
    declared: StreamFlow[Order, PricedOrder] = flow,
    **consumer: Any,
) -> StreamingRunner:
    consumer |= {"brokers": [job.bootstrap], "group_id": job.group, "topics": [job.source], "delivery": delivery}
    config: dict[str, Any] = {
        "kafka": {
            "consumer": consumer,
            "producer": {"brokers": [job.bootstrap]},
            "producers": {"out": {"topic": job.target}},
        },
        "observability": {"log": {"enabled": False}, **(observed or {})},
    }
    if engine is not None:
        config["streaming"] = {"engine": engine}
    return StreamingRunner.from_dict(declared, config)


def _run(
    job: KafkaJob,
    delivery: str,
    engine: str | None = None,
    observed: dict[str, Any] | None = None,
    declared: StreamFlow[Order, PricedOrder] = flow,
) -> int:
    runner = _runner(job, delivery, engine, observed, declared)
    over = threading.Event()

    def written() -> int:
        return runner.metrics.read().written if runner.metrics is not None else 0

    watcher = threading.Thread(target=_stop_when, args=(lambda: written() >= job.records, runner.shutdown, over))
    watcher.start()
    try:
        runner.run()
    finally:
        over.set()
        watcher.join()
    return runner.metrics.read().durable if runner.metrics is not None else 0


def _stop_when(done: Callable[[], bool], stop: Callable[[], None], over: threading.Event) -> None:
    """Asks ten times a second, from outside, as any observer would: nothing in the flow knows of it."""
    while not over.wait(0.1):
        if done():
            stop()
            return
