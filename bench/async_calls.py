"""Async calls: every record waits for 100 ms, 200 at a time, and the results are in the order of the records.

Against an asyncio program written by hand: a task for each record, a semaphore, and the results gathered in their order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec

from bench.contenders import ASYNC, resolve
from bench.loom_memory import CONFIG, as_records
from bench.measure import CPU, RATE, RSS, Job, Sample, alone, cpu_and_rate, measured
from bench.orders import Order, PricedOrder, decode, encode, make_orders, price
from bench.result import Suite
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, WithAsync, step
from loom.streaming.compiler import compile_flow
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.kafka.record_accessor import RECORDS
from loom.streaming.record import KafkaRecord
from loom.streaming.runtime.assembly import Transport
from loom.streaming.runtime.build_options import BuildOptions
from loom.streaming.runtime.engine import load_engine
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.settings import BytewaxRuntimeConfig
from loom.streaming.runtime.source_loop import SourceLoop

WAIT_S = 0.1
AT_ONCE = 200
BATCH = 1_000
#: where records arrive evenly: so many at once, so often in a second that the calls are just kept busy
SMALL = 10


def run_job(job: Job) -> Sample:
    """Called in the contender's own process."""
    contender = ASYNC[job.contender]
    values = [order.value for order in make_orders(job.records)]
    run = resolve(contender.run)
    records: Any = values if contender.prepare is None else resolve(contender.prepare)(values)
    run(records[:AT_ONCE])
    return measured(lambda: run(records), len(records))


def semaphore(values: Sequence[bytes]) -> int:
    """The program that one would write by hand."""
    return len(asyncio.run(_gathered(values)))


async def _gathered(values: Sequence[bytes]) -> list[bytes]:
    free = asyncio.Semaphore(AT_ONCE)

    async def call(value: bytes) -> bytes:
        async with free:
            order = decode(value)
            await asyncio.sleep(WAIT_S)
            return encode(price(order))

    return await asyncio.gather(*[call(value) for value in values])


@step(name="call")
async def call(order: Order) -> PricedOrder:
    await asyncio.sleep(WAIT_S)
    return price(order)


def loom(records: Sequence[KafkaRecord]) -> int:
    """All records are there."""
    return _run(records, BATCH, evenly=False)


def loom_evenly(records: Sequence[KafkaRecord]) -> int:
    """They arrive in small batches, as fast as the calls can take them."""
    return _run(records, SMALL, evenly=True)


def loom_key(records: Sequence[KafkaRecord]) -> int:
    """Without an order among keys; every record here has the same one, so they are given keys of their own."""
    own = [msgspec.structs.replace(record, key=b"%d" % n) for n, record in enumerate(records)]
    return _run(own, BATCH, evenly=False, ordering="key")


@cache
def _plan(ordering: Any) -> CompiledPlan:
    """Compiled by the warm-up: what a start costs is said by the suite `startup`."""
    scope = WithAsync(process=Process(call), max_concurrency=AT_ONCE, ordering=ordering)
    flow = StreamFlow("bench", FromTopic("in", payload=Order), Process(scope), IntoTopic("out"), IntoTopic("errors"))
    return compile_flow(flow, config=CONFIG)


def _run(records: Sequence[KafkaRecord], batch: int, *, evenly: bool, ordering: Any = "partition") -> int:
    written = _Collect()
    transport = Transport(
        RECORDS,
        lambda state, make_stage: lambda _index, _count: _Worker(records, state, make_stage, batch, evenly),
        lambda: written,
    )
    driver = load_engine("bytewax")
    built = driver.lower(_plan(ordering), BuildOptions(transport=transport))
    try:
        driver.run(built.dataflow, BytewaxRuntimeConfig(), Layout())
    finally:
        built.finish()
    if ordering == "partition" and written.offsets != sorted(written.offsets):
        raise RuntimeError("the results are not in the order of the records")
    return len(written.values)


class _Worker:
    """A source client that reads a list, and rests as that of Kafka does."""

    def __init__(self, records: Sequence[KafkaRecord], state: Any, make_stage: Any, batch: int, evenly: bool) -> None:
        self._stage = make_stage()
        self._feed = SourceLoop(_Reader(records, evenly), self._stage, state, None, batch_size=batch)

    def next_batch(self) -> Any:
        began = time.monotonic()
        batches = self._feed.next_batch()
        if not batches:
            self._feed.rest(began)
        return batches

    def close(self) -> None:
        self._stage.close()


class _Reader:
    def __init__(self, records: Sequence[KafkaRecord], evenly: bool) -> None:
        self._records = records
        self._at = 0
        self._evenly = evenly
        self._began: float | None = None

    def read(self, most: int) -> tuple[Sequence[KafkaRecord], dict[Any, int], bool]:
        if self._began is None:
            self._began = time.monotonic()
        if self._evenly:
            arrived = int((time.monotonic() - self._began) * AT_ONCE / WAIT_S) + SMALL
            most = max(0, min(most, arrived - self._at))
        batch = self._records[self._at : self._at + most]
        self._at += most
        return batch, {}, self._at >= len(self._records)


class _Collect:
    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.offsets: list[int] = []

    def write(self, results: Any) -> None:
        self.values.extend([result[1] for result in results])
        self.offsets.extend([result[5].offset for result in results])

    def serve(self) -> None:
        """Nothing is on its way."""

    def flush(self, positions: Any) -> None:
        """Nothing is on its way."""

    def close(self) -> None:
        """Nothing is open."""


SUITE = Suite(
    name="async",
    title="Async calls",
    contenders=ASYNC,
    sample=Sample,
    figures=(CPU, RATE, RSS),
    ratios=(("rate", "semaphore"), ("cpu", "semaphore")),
    records=2_000,
    rounds=5,
    opened=alone("async_calls"),
    summary=cpu_and_rate,
)

__all__ = ["SUITE", "as_records", "loom", "loom_evenly", "loom_key", "run_job", "semaphore"]
