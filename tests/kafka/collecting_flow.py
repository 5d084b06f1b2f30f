"""A flow whose records wait, part and multiply: what leaves it for each number is known beforehand."""

from __future__ import annotations

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    CollectBatch,
    Explode,
    ForEach,
    Fork,
    ForkRoute,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    Router,
    StreamFlow,
    payload,
    step,
)

REFUSED_EVERY = 97
DOUBLED_EVERY = 10


class Number(LoomFrozenStruct):
    n: int


class Part(LoomFrozenStruct):
    n: int
    part: int


@step
def refuse_some(number: Number) -> Number:
    if number.n % REFUSED_EVERY == 0:
        raise RuleViolation(f"{number.n} is a multiple of {REFUSED_EVERY}")
    return number


class Together(BatchStep[Number, Number]):
    def execute(self, messages: list[Message[Number]]) -> list[Number]:
        return [message.payload for message in messages]


def lane(number: Number) -> int:
    return number.n % 3


def parity(part: Part) -> int:
    return part.n % 2


def parts(number: Number) -> list[Part]:
    return [Part(number.n, part) for part in range(2 if number.n % DOUBLED_EVERY == 0 else 1)]


EVEN, ODD = Process(IntoTopic("numbers.even")), Process(IntoTopic("numbers.odd"))
flow = StreamFlow(
    "collecting",
    FromTopic("numbers.in", payload=Number),
    Process(
        refuse_some,
        Router.by(
            lane,
            {
                0: Process(CollectBatch(200, timeout_ms=150), Together, ForEach()),
                1: Process(CollectBatch(7, timeout_ms=400), Together, ForEach()),
            },
            default=Process(step(name="straight")(lambda number: number)),
        ),
        Explode(parts),
        Fork.when(
            [ForkRoute(payload.part == 0, Process(Fork.by(parity, {0: EVEN}, default=ODD)), "first")], default=ODD
        ),
    ),
    errors=IntoTopic("numbers.errors"),
)
