"""Declarations may say what flows in and out of them, and keep what they were given whatever becomes of it."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.config import ConfigBinding
from loom.streaming import (
    Broadcast,
    BroadcastRoute,
    CollectBatch,
    Drain,
    ExpandRoutes,
    Explode,
    ForEach,
    Fork,
    ForkRoute,
    IntoTopic,
    Process,
    Route,
    Router,
    With,
    WithAsync,
    compile_flow,
)
from tests.streaming.compiler.mistakes import Parts
from tests.streaming.orders import CONFIG, Line, Order, PricedOrder, by_country, ended, flow, price

INTO = Process(IntoTopic[Any]("orders.lines"))


@pytest.mark.parametrize(
    "node",
    [
        Process,
        Router,
        Route,
        Fork,
        ForkRoute,
        Broadcast,
        BroadcastRoute,
        Explode,
        ExpandRoutes,
        CollectBatch,
        ForEach,
        Drain,
        With,
        WithAsync,
    ],
)
def test_every_node_can_be_subscripted(node: Any) -> None:
    assert node[Order, PricedOrder] is node
    assert node[Order] is node


def test_a_flow_of_subscripted_nodes_is_the_flow_without_subscripts() -> None:
    typed = Process[Order, PricedOrder](
        Router[Order, PricedOrder].by(by_country, {"ES": Process[Order, PricedOrder](price)}, default=Process(price))
    )
    bare = Process(Router.by(by_country, {"ES": Process(price)}, default=Process(price)))
    assert typed == bare
    compile_flow(flow(*typed), config=CONFIG)


def test_the_branches_of_a_fork_are_called_branches_and_those_of_a_router_routes() -> None:
    assert Fork.by(by_country, branches={"ES": INTO}) == Fork.by(by_country, {"ES": INTO})
    assert Router.by(by_country, routes={"ES": INTO}) == Router.by(by_country, {"ES": INTO})


def test_what_becomes_of_a_mapping_of_routes_after_the_declaration_changes_nothing() -> None:
    routes: dict[type, Process] = {Line: INTO}
    parts = ExpandRoutes(expander=Parts(), routes=routes)
    routes[Order] = INTO
    routes[Line] = Process(price)
    assert parts.routes == {Line: INTO}
    compile_flow(ended(parts), config=CONFIG)


def test_what_becomes_of_overrides_after_the_declaration_changes_nothing() -> None:
    overrides = {"digits": 3}
    binding = ConfigBinding(object, "pricing", overrides)
    overrides["digits"] = 7
    assert binding.overrides == {"digits": 3}
