"""`python -m bench.scope_cycles [--cycles N]`: start and stop an async scope many times; what is left of it each thousand times.

Tasks, threads and file descriptors must be as at the start, and the memory must not grow from the first thousand on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.loom_memory import CONFIG, as_records
from bench.orders import Order, PricedOrder, make_orders, price
from loom.core.async_bridge import AsyncBridge
from loom.streaming import ContextFactory, FromTopic, IntoTopic, Process, StreamFlow, WithAsync, step
from loom.streaming.compiler import compile_flow
from loom.streaming.kafka.record_accessor import RECORDS
from loom.streaming.metrics import Counts
from loom.streaming.runtime.output_table import output_table_of
from loom.streaming.runtime.stages.fuse import build_stage
from loom.streaming.runtime.stages.services import StageServices
from loom.streaming.runtime.stages.stage_io import EndMark, SourceBatch

__all__ = ["Left", "cycles"]

RECORDS_EACH = 3
MOST_MB = 5.0


class Left:
    """What the process holds."""

    def __init__(self, bridge: AsyncBridge) -> None:
        self.tasks = bridge.run(_tasks)
        self.threads = threading.active_count()
        self.descriptors = len(os.listdir("/proc/self/fd"))
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.rss_mb = pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024

    def __str__(self) -> str:
        return f"{self.tasks} tasks, {self.threads} threads, {self.descriptors} descriptors, {self.rss_mb:.1f} MB"


async def _tasks() -> int:
    return len(asyncio.all_tasks())


def cycles(count: int, every: int = 1_000) -> list[Left]:
    """Start and stop a scope so often; what is left at the start and after each so many."""
    balance = [0]

    @asynccontextmanager
    async def opened() -> AsyncIterator[str]:
        balance[0] += 1
        try:
            yield "client"
        finally:
            balance[0] -= 1

    @step(name="call")
    async def call(order: Order, client: str) -> PricedOrder:
        await asyncio.sleep(0)
        if client != "client":
            raise RuntimeError(client)
        return price(order)

    scope = WithAsync(process=Process(call), client=ContextFactory(opened), task_timeout_ms=10_000)
    flow = StreamFlow("bench", FromTopic("in", payload=Order), Process(scope), IntoTopic("out"), IntoTopic("errors"))
    plan = compile_flow(flow, config=CONFIG)
    slots = output_table_of(plan, sink=None, terminal_sinks=None, error_sinks=None).slots
    records = as_records([order.value for order in make_orders(RECORDS_EACH)])
    bridge = AsyncBridge()
    found = []
    try:
        for number in range(count + 1):
            if number % every == 0:
                found.append(Left(bridge))
            if number < count:
                _cycle(plan, slots, records, bridge)
        if balance[0]:
            raise RuntimeError(f"{balance[0]} resources are still open")
    finally:
        bridge.shutdown()
    return found


def _cycle(plan: Any, slots: Any, records: Any, bridge: AsyncBridge) -> None:
    stage = build_stage(plan, slots, RECORDS, Counts(), lambda _: None, services=StageServices(None, bridge))
    left = len(stage.run(SourceBatch(stage, records, {}, 1.0)).results)
    stage.run(SourceBatch(stage, (), {}, 1.0, EndMark.STOP))
    while not stage.ended:
        stage.room.wait(1.0)
        left += len(stage.run(SourceBatch(stage, (), {}, 1.0)).results)
    stage.close()
    if left != len(records):
        raise RuntimeError(f"{left} results of {len(records)} records")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scope_cycles", description=__doc__)
    parser.add_argument("--cycles", type=int, default=10_000)
    found = cycles(parser.parse_args().cycles)
    for number, left in enumerate(found):
        print(f"after {number * 1_000:>6,} cycles: {left}")
    grown = found[-1].rss_mb - found[1].rss_mb if len(found) > 1 else 0.0
    first, last = found[1] if len(found) > 1 else found[0], found[-1]
    same = (first.tasks, first.threads, first.descriptors) == (last.tasks, last.threads, last.descriptors)
    print(
        f"grown by {grown:.1f} MB since the first thousand, wanted < {MOST_MB:g}: {'met' if grown < MOST_MB else 'MISSED'}"
    )
    print(f"tasks, threads and descriptors as at the start: {'met' if same else 'MISSED'}")


if __name__ == "__main__":
    main()
