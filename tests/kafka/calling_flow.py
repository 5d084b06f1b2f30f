"""A flow whose step is an async call of varying length that some numbers fail: what becomes of each is known beforehand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import ContextFactory, Fork, FromTopic, IntoTopic, Process, StreamFlow, WithAsync, step

REFUSED_EVERY = 97
FAILED_EVERY = 211


class Number(LoomFrozenStruct):
    n: int


class Service:
    async def ask(self, n: int) -> None:
        # The later ones of each dozen are the faster ones.
        await anyio.sleep(0.030 / (1 + n % 12))
        if n % FAILED_EVERY == 0:
            raise ConnectionError("always")


@asynccontextmanager
async def open_service() -> AsyncIterator[Service]:
    async with anyio.create_task_group():
        yield Service()


@step
def refuse_some(number: Number) -> Number:
    if number.n % REFUSED_EVERY == 0:
        raise RuleViolation(f"{number.n} is a multiple of {REFUSED_EVERY}")
    return number


@step
async def ask(number: Number, service: Service) -> Number:
    await service.ask(number.n)
    return number


def parity(number: Number) -> int:
    return number.n % 2


flow = StreamFlow(
    "calling",
    FromTopic("numbers.in", payload=Number),
    Process(
        refuse_some,
        WithAsync(
            process=Process(ask), max_concurrency=200, task_timeout_ms=5_000, service=ContextFactory(open_service)
        ),
        Fork.by(parity, {0: Process(IntoTopic("numbers.even")), 1: Process(IntoTopic("numbers.odd"))}),
    ),
    errors=IntoTopic("numbers.errors"),
)
