"""A node that is refused is one problem: what comes after it is not held against its shape or its end."""

from __future__ import annotations

from typing import Any

import pytest

from loom.streaming import (
    Broadcast,
    BroadcastRoute,
    CollectBatch,
    Explode,
    ForEach,
    Fork,
    IntoTopic,
    Process,
    Router,
    StreamFlow,
    StreamShape,
    With,
    compile_flow,
    step,
)
from loom.streaming.compiler import Code, CompilationError
from tests.streaming.compiler.mistakes import ExpandAll
from tests.streaming.orders import (
    CONFIG,
    PRICED,
    RAW,
    Order,
    PriceAll,
    Split,
    by_country,
    ended,
    flow,
    price,
    validate,
)


class NeedsRate(Split):
    def __init__(self, rate: float) -> None:
        self.rate = rate


@step
async def slow(order: Order) -> Order:
    return order


INTO = IntoTopic[Any]("orders.one")
UNKNOWN: Any = object()
BATCHES = IntoTopic[Any]("orders.priced", shape=StreamShape.BATCH)

FLOWS: dict[str, StreamFlow[Any, Any]] = {
    "an expansion": flow(NeedsRate, ForEach()),
    "an expansion before a batch": flow(NeedsRate, CollectBatch(10, 100), PriceAll, ForEach()),
    "an exploder": flow(Explode(7), ForEach()),  # type: ignore[arg-type]
    "a collector that is no node": flow(UNKNOWN, ExpandAll, ForEach()),
    "a batch step behind it": flow(UNKNOWN, PriceAll, ForEach()),
    "a terminal that is no node": ended(price, UNKNOWN),
    "a scope that holds the end": ended(With(process=Process(UNKNOWN, INTO), rates=1)),
    "an output of batches": flow(UNKNOWN, output=BATCHES),
    "a branch of a fork": ended(Fork.by(by_country, {"ES": Process(UNKNOWN), "PT": Process(INTO)})),
    "a branch of a router": flow(
        Router.by(by_country, {"ES": Process(UNKNOWN), "PT": Process(CollectBatch(10, 100))}), ForEach()
    ),
    "all branches of a router": flow(Router.by(by_country, {"ES": Process(UNKNOWN)}), ForEach()),
    "a router": flow(Router.by(7, {"ES": Process(CollectBatch(10, 100))}), ForEach()),
    "a branch of a broadcast": ended(Broadcast(BroadcastRoute(Process(UNKNOWN)), BroadcastRoute(Process(INTO)))),
    "an output of a broadcast": ended(Broadcast(BroadcastRoute(Process(UNKNOWN), BATCHES))),
    "the process": StreamFlow("orders", RAW, validate, PRICED, INTO),  # type: ignore[arg-type]
    "a process that is a list": StreamFlow("orders", RAW, [validate], PRICED, INTO),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("declared", FLOWS.values(), ids=FLOWS)
def test_what_is_refused_makes_no_second_problem(declared: StreamFlow[Any, Any]) -> None:
    with pytest.raises(CompilationError) as refused:
        compile_flow(declared, config=CONFIG)
    assert len(refused.value.errors) == 1, refused.value


def test_behind_a_node_that_is_understood_the_rest_is_checked_again() -> None:
    with pytest.raises(CompilationError) as refused:
        compile_flow(ended(UNKNOWN, price, ForEach()), config=CONFIG)
    assert [issue.code for issue in refused.value.errors] == [Code.NODE_UNKNOWN, Code.SHAPE_MISMATCH, Code.NO_END]
