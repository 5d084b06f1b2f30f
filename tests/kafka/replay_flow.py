"""A flow whose second step fails until it is fixed (`FIXED=1`); the first one leaves a trace of every call."""

from __future__ import annotations

import os

from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, step

FIXED = os.environ.get("FIXED") == "1"
_CALLS = os.open(os.environ.get("CALLS", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND)


class Number(LoomFrozenStruct):
    n: int
    prepared: int = 0


@step
def prepare(number: Number) -> Number:
    os.write(_CALLS, b".")
    return Number(number.n, number.prepared + 1)


@step
def price(number: Number) -> Number:
    if not FIXED:
        raise ValueError(f"no price for {number.n}")
    return number


flow = StreamFlow(
    "replayed", FromTopic("in", Number), Process(prepare, price), IntoTopic("out"), errors=IntoTopic("errors")
)
