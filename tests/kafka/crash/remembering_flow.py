"""A flow whose step remembers what it saw, and passes nothing on twice: one that is not made anew with its partitions loses."""

from __future__ import annotations

import crash_hook
from numbers_flow import Doubled, Number, parity, refuse_some

from loom.streaming import Drain, Fork, FromTopic, IntoTopic, Message, Process, RecordStep, StreamFlow

#: of the source; the number tells in which of them a record is
PARTITIONS = 4


class Seen(Number):
    again: bool


class Remember(RecordStep[Number, Seen]):
    """Knows the last number of each partition."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}

    def execute(self, message: Message[Number]) -> Seen:
        crash_hook.in_step()
        n = message.payload.n
        again = n <= self._last.get(n % PARTITIONS, -1)
        if not again:
            self._last[n % PARTITIONS] = n
        return Seen(n, again)


class DoubleSeen(RecordStep[Seen, Doubled]):
    def execute(self, message: Message[Seen]) -> Doubled:
        return Doubled(message.payload.n, message.payload.n * 2)


def seen_again(seen: Seen) -> bool:
    return seen.again


flow = StreamFlow(
    "remembering",
    FromTopic("numbers.in", payload=Number),
    Process(
        refuse_some,
        Remember,
        Fork.by(
            seen_again,
            {True: Process(Drain())},
            default=Process(
                DoubleSeen,
                Fork.by(parity, {"even": Process(IntoTopic("numbers.even")), "odd": Process(IntoTopic("numbers.odd"))}),
            ),
        ),
    ),
    errors=IntoTopic("numbers.errors"),
)
