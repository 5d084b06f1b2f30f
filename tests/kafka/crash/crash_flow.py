"""The numbers flow with a step in which a test can strike."""

from __future__ import annotations

import crash_hook
from numbers_flow import Double, Number, parity, refuse_some

from loom.streaming import Fork, FromTopic, IntoTopic, Process, StreamFlow, step


@step
def interfere(number: Number) -> Number:
    crash_hook.in_step()
    return number


flow = StreamFlow(
    "numbers",
    FromTopic("numbers.in", payload=Number),
    Process(
        refuse_some,
        interfere,
        Double,
        Fork.by(parity, {"even": Process(IntoTopic("numbers.even")), "odd": Process(IntoTopic("numbers.odd"))}),
    ),
    errors=IntoTopic("numbers.errors"),
)
