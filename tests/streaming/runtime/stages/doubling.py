"""Steps of every kind that do the same: a record is doubled, 0 is refused, a negative one fails. Shared by the tests of steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct, LoomStruct
from loom.streaming import (
    BatchStep,
    ExpandStep,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RecordStep,
    StreamFlow,
    step,
)
from tests.support.running import Ran, config_for, in_memory


class Number(LoomFrozenStruct):
    n: int


class Negative(Number):
    pass


class Text(LoomStruct):
    text: str


def flow(*nodes: Any) -> StreamFlow[Any, Any]:
    return StreamFlow("steps", FromTopic("numbers", Number), Process(*nodes), IntoTopic("out"))


def run(node: Any, items: list[Any], **config: Any) -> Ran:
    return in_memory(flow(node), items, config=config_for(**config))


# A function and classes with the same behaviour: a record is doubled, 0 is refused, a negative one fails.


def doubled(number: Number) -> Number:
    if number.n == 0:
        raise RuleViolation("zero")
    if number.n < 0:
        raise ValueError("negative")
    return Number(number.n * 2)


@step
def function(number: Number) -> Number:
    return doubled(number)


class Record(RecordStep[Number, Number]):
    def execute(self, message: Message[Number]) -> Number:
        return doubled(message.payload)


class Expand(ExpandStep[Number, Number]):
    def execute(self, message: Message[Number]) -> Iterable[Number]:
        yield doubled(message.payload)


class Batch(BatchStep[Number, Number]):
    def execute(self, messages: list[Message[Number]]) -> list[Number | Exception]:
        results: list[Number | Exception] = []
        for message in messages:
            try:
                results.append(doubled(message.payload))
            except Exception as error:
                results.append(error)
        return results


KINDS = pytest.mark.parametrize(
    "node", [function, Record, Expand, Batch], ids=["function", "record", "expand", "batch"]
)
IN_BATCHES_OF = pytest.mark.parametrize("size", [1, 2, 1000])
