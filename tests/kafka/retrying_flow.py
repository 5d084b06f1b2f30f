"""A flow with a step that fails for a while for some numbers and always for others: what becomes of each is known beforehand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import Fork, FromTopic, IntoTopic, Process, Retry, StreamFlow, WithAsync, step

REFUSED_EVERY = 97
HOPELESS_EVERY = 211
FAILS_EVERY = 13
ATTEMPTS = 4


class Number(LoomFrozenStruct):
    n: int


_calls: Counter[int] = Counter()


@step
def refuse_some(number: Number) -> Number:
    if number.n % REFUSED_EVERY == 0:
        raise RuleViolation(f"{number.n} is a multiple of {REFUSED_EVERY}")
    return number


POLICY = Retry(ATTEMPTS, wait_initial_ms=40, wait_jitter_ms=40, on=(ConnectionError,))


def call(number: Number) -> Number:
    if number.n % HOPELESS_EVERY == 0:
        raise ConnectionError("always")
    if number.n % FAILS_EVERY == 0:
        _calls[number.n] += 1
        if _calls[number.n] <= number.n % ATTEMPTS:
            raise ConnectionError("for a while")
    return number


@step(retry=POLICY)
def ask(number: Number) -> Number:
    return call(number)


@step(name="ask")
async def ask_later(number: Number) -> Number:
    await anyio.sleep(0.001 * (number.n % 3))
    return call(number)


def parity(number: Number) -> int:
    return number.n % 2


def flow_with(asking: Any) -> StreamFlow[Any, Any]:
    by_parity = Fork.by(parity, {0: Process(IntoTopic("numbers.even")), 1: Process(IntoTopic("numbers.odd"))})
    return StreamFlow(
        "retrying",
        FromTopic("numbers.in", payload=Number),
        Process(refuse_some, asking, by_parity),
        errors=IntoTopic("numbers.errors"),
    )


flow = flow_with(ask)
scoped_flow = flow_with(WithAsync(process=Process(ask_later), max_concurrency=100, retry=POLICY))
