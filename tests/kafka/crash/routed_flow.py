"""A flow in which records part, wait together, multiply and are refused: where each comes out is known beforehand."""

from __future__ import annotations

import crash_hook
from numbers_flow import Number, refuse_some

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    Broadcast,
    BroadcastRoute,
    CollectBatch,
    Explode,
    ForEach,
    Fork,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    Router,
    StreamFlow,
    step,
)


class Part(LoomFrozenStruct):
    n: int
    part: int


@step
def interfere(number: Number) -> Number:
    crash_hook.in_step()
    return number


@step
def to_the_left(part: Part) -> Part:
    return part


@step
def to_the_right(part: Part) -> Part:
    return part


class Together(BatchStep[Number, Number]):
    def execute(self, messages: list[Message[Number]]) -> list[Number]:
        return [message.payload for message in messages]


def third(number: Number) -> int:
    return number.n % 3


def parts(number: Number) -> list[Part]:
    return [Part(number.n, part) for part in range(1 + number.n % 2)]


def place(part: Part) -> int:
    return part.n % 5


flow = StreamFlow(
    "routed",
    FromTopic("numbers.in", payload=Number),
    Process(
        refuse_some,
        interfere,
        Router.by(
            third,
            {0: Process(CollectBatch(50, timeout_ms=100), Together, ForEach())},
            default=Process(step(name="straight")(lambda number: number)),
        ),
        Explode(parts),
        Fork.by(
            place,
            {0: Process(IntoTopic("numbers.even")), 1: Process(IntoTopic("numbers.odd"))},
            default=Process(
                Broadcast(
                    BroadcastRoute(Process(to_the_left), IntoTopic("numbers.left")),
                    BroadcastRoute(Process(to_the_right), IntoTopic("numbers.right")),
                )
            ),
        ),
    ),
    errors=IntoTopic("numbers.errors"),
)
