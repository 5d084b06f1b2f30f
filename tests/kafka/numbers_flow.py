"""The flow that the delivery tests run through the real command line: numbered records, two outputs, dead letters."""

from __future__ import annotations

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import Fork, FromTopic, IntoTopic, Message, Process, RecordStep, StreamFlow, step

#: every so many a number is refused by the domain
REFUSED_EVERY = 97


class Number(LoomFrozenStruct):
    n: int


class Doubled(LoomFrozenStruct):
    n: int
    twice: int


@step
def refuse_some(number: Number) -> Number:
    if number.n % REFUSED_EVERY == 0:
        raise RuleViolation(f"{number.n} is a multiple of {REFUSED_EVERY}")
    return number


class Double(RecordStep[Number, Doubled]):
    def execute(self, message: Message[Number]) -> Doubled:
        return Doubled(message.payload.n, message.payload.n * 2)


def parity(doubled: Doubled) -> str:
    return "odd" if doubled.n % 2 else "even"


flow = StreamFlow(
    "numbers",
    FromTopic("numbers.in", payload=Number),
    Process(
        refuse_some,
        Double,
        Fork.by(parity, {"even": Process(IntoTopic("numbers.even")), "odd": Process(IntoTopic("numbers.odd"))}),
    ),
    errors=IntoTopic("numbers.errors"),
)
