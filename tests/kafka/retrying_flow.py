"""A flow with a step that fails for a while for some numbers and always for others: what becomes of each is known beforehand."""

from __future__ import annotations

from collections import Counter

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import Fork, FromTopic, IntoTopic, Process, Retry, StreamFlow, step

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


@step(retry=Retry(ATTEMPTS, wait_initial_ms=40, wait_jitter_ms=40, on=(ConnectionError,)))
def ask(number: Number) -> Number:
    if number.n % HOPELESS_EVERY == 0:
        raise ConnectionError("always")
    if number.n % FAILS_EVERY == 0:
        _calls[number.n] += 1
        if _calls[number.n] <= number.n % ATTEMPTS:
            raise ConnectionError("for a while")
    return number


def parity(number: Number) -> int:
    return number.n % 2


flow = StreamFlow(
    "retrying",
    FromTopic("numbers.in", payload=Number),
    Process(
        refuse_some,
        ask,
        Fork.by(parity, {0: Process(IntoTopic("numbers.even")), 1: Process(IntoTopic("numbers.odd"))}),
    ),
    errors=IntoTopic("numbers.errors"),
)
