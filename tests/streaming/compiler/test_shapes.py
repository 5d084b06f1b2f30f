"""Shapes line up: what one node hands over is what the next one takes."""

from __future__ import annotations

from typing import Any

import pytest

from loom.streaming import BatchStep, ExpandStep, IntoTopic, Message, StreamShape, compile_flow, step
from loom.streaming.compiler import Code, CompilationError, CompiledStep
from tests.streaming.orders import CONFIG, Line, Price, PriceAll, PricedOrder, Split, flow, price, validate


def compiled(*nodes: Any, **options: Any) -> list[CompiledStep]:
    return [
        node for node in compile_flow(flow(*nodes, **options), config=CONFIG).nodes if isinstance(node, CompiledStep)
    ]


@step
def unannotated(order):  # type: ignore[no-untyped-def]
    return order


class SplitPriced(ExpandStep[PricedOrder, Line]):
    def execute(self, message: Message[PricedOrder]) -> list[Line]:
        return [Line(message.payload.id)]


class SplitAgain(ExpandStep[Line, Line]):
    def execute(self, message: Message[Line]) -> list[Line]:
        return [message.payload]


class PriceAllLines(BatchStep[Line, Line]):
    def execute(self, messages: list[Message[Line]]) -> list[Line]:
        return [message.payload for message in messages]


def shapes(*nodes: Any) -> list[tuple[str, str]]:
    return [(node.in_shape.value, node.out_shape.value) for node in compiled(*nodes)]


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([validate, Price], [("record", "record"), ("record", "record")]),
        ([Split, unannotated], [("record", "many"), ("many", "record")]),
        ([PriceAll], [("record", "record")]),
        ([Price, SplitPriced], [("record", "record"), ("record", "many")]),
        ([Split, PriceAllLines], [("record", "many"), ("many", "record")]),
        ([Split, SplitAgain], [("record", "many"), ("many", "many")]),
    ],
)
def test_a_record_step_takes_each_of_many_and_a_batch_step_gives_records(nodes: Any, expected: Any) -> None:
    assert shapes(*nodes) == expected


@pytest.mark.parametrize(
    ("nodes", "shape", "expected"),
    [
        ([validate], StreamShape.RECORD, True),
        ([Split], StreamShape.RECORD, True),
        ([Split], StreamShape.MANY, True),
        ([validate], StreamShape.MANY, False),
        ([Split, unannotated], StreamShape.MANY, False),
        ([PriceAll], StreamShape.BATCH, False),
        ([validate], StreamShape.NONE, False),
    ],
)
def test_a_topic_takes_its_own_shape_and_a_record_topic_many_as_well(
    nodes: Any, shape: StreamShape, expected: bool
) -> None:
    declared = flow(*nodes, output=IntoTopic("orders.priced", shape=shape))
    assert (codes(declared) == []) is expected


def codes(declared: Any) -> list[Code]:
    try:
        compile_flow(declared, config=CONFIG)
    except CompilationError as error:
        return [issue.code for issue in error.errors]
    return []


def test_a_shape_that_does_not_fit_is_the_only_problem() -> None:
    declared = flow(price, output=IntoTopic("orders.priced", shape=StreamShape.MANY))
    assert codes(declared) == [Code.SHAPE_MISMATCH]
