"""Paths and step ids of nodes with branches: routes in their order, then the default; no two nodes share one."""

from __future__ import annotations

from typing import Any

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
    compile_flow,
    payload,
)
from loom.streaming.compiler.model import CompiledNode, walk_nodes
from tests.streaming.compiler.mistakes import Parts, Table
from tests.streaming.orders import CONFIG, Line, Order, PriceAll, by_country, ended, flow, price


def nodes(declared: Any) -> dict[str, tuple[int, ...]]:
    """The path of each node, by its step id."""
    plan = compile_flow(declared, config=CONFIG)
    return {node.step_id.removeprefix("orders."): node.path for node in walk_nodes(plan.nodes)}


def every(declared: Any) -> list[CompiledNode]:
    return list(walk_nodes(compile_flow(declared, config=CONFIG).nodes))


def test_branches_of_a_router_stand_below_it_and_what_is_behind_it_beside_it() -> None:
    router = Router.when(
        [Route(payload.id == 1, Process(price), name="first"), Route(payload.id == 2, Process(Drain()), name="second")],
        default=Process(price),
    )
    assert nodes(flow(router, IntoTopic("a"), output=None)) == {
        "router": (0,),
        "first.price": (0, 0, 0),
        "second.drain": (0, 1, 0),
        "default.price": (0, 2, 0),
        "into-a": (1,),
    }


def test_the_default_of_predicates_stands_behind_all_of_them() -> None:
    """A default whose index forgot the predicate routes once shared a path, and so a sink, with one of them."""
    fork = Fork.when(
        [ForkRoute(payload.id == n, Process(IntoTopic(f"t{n}")), name=f"r{n}") for n in range(2)],
        default=Process(IntoTopic("rest")),
    )
    plan = compile_flow(ended(fork), config=CONFIG)
    assert {path: output.name for path, output in plan.terminal_sinks.items()} == {
        (0, 0, 0): "t0",
        (0, 1, 0): "t1",
        (0, 2, 0): "rest",
    }


def test_the_output_of_a_broadcast_route_has_the_path_of_its_branch() -> None:
    spread = Broadcast(
        BroadcastRoute(Process(price), IntoTopic("a")), BroadcastRoute(Process(price, IntoTopic("b")), name="second")
    )
    plan = compile_flow(ended(spread), config=CONFIG)
    assert {path: (output.name, output.step_id) for path, output in plan.terminal_sinks.items()} == {
        (0, 0): ("a", "orders.a.into-a"),
        (0, 1, 1): ("b", "orders.second.into-b"),
    }
    assert nodes(ended(spread)) == {
        "broadcast": (0,),
        "a.price": (0, 0, 0),
        "second.price": (0, 1, 0),
        "second.into-b": (0, 1, 1),
    }


def test_branches_of_expand_routes_are_labelled_by_their_types() -> None:
    node = ExpandRoutes(
        expander=Parts(),
        routes={Line: Process(IntoTopic("lines")), Order: Process(IntoTopic("orders.es"))},
        default=Process(Drain()),
    )
    assert nodes(ended(node)) == {
        "expand_routes": (0,),
        "line.into-lines": (0, 0, 0),
        "order.into-orders-es": (0, 1, 0),
        "default.drain": (0, 2, 0),
    }


def test_a_node_that_is_named_stands_in_the_ids_of_its_branches() -> None:
    one = Router.by(by_country, {"ES": price}, default=Process(price), name="one")
    two = Router.when([Route(payload.id == 1, Process(IntoTopic("a")), name="x")], default=Process(Drain()), name="two")
    assert nodes(ended(one, two)) == {
        "one": (0,),
        "one.es.price": (0, 0, 0),
        "one.default.price": (0, 1, 0),
        "two": (1,),
        "two.x.into-a": (1, 0, 0),
        "two.default.drain": (1, 1, 0),
    }


def test_a_predicate_without_a_name_is_labelled_by_what_it_asks() -> None:
    def urgent(order: Order) -> bool:
        return order.id == 1

    router = Router.when([Route(urgent, Process(price))], default=Process(price))
    label = next(name for name in nodes(flow(router)) if name.endswith("urgent.price"))
    assert label


def test_nodes_that_change_the_shape_are_named_after_themselves_and_for_each_after_what_is_in_front() -> None:
    found = nodes(
        flow(Explode(lambda order: [order]), ForEach(), CollectBatch(2, 10, name="batch"), PriceAll, ForEach())
    )
    assert found == {
        "explode": (0,),
        "explode.for_each": (1,),
        "batch": (2,),
        "price_all": (3,),
        "price_all.for_each": (4,),
    }


def test_a_sink_of_ones_own_is_named_by_its_name() -> None:
    plan = compile_flow(ended(price, Table()), config=CONFIG)
    assert {path: sink.step_id for path, sink in plan.terminal_storage_sinks.items()} == {(1,): "orders.into-orders"}


def test_every_path_and_every_id_is_taken_once_however_deep_the_nesting() -> None:
    def deeper(level: int, node: Any) -> Any:
        name = f"l{level}"
        return Router.by(
            by_country, {"ES": Process(price if level == 0 else node)}, default=Process(Drain()), name=name
        )

    node: Any = price
    for level in range(6):
        node = deeper(level, node)
    found = every(flow(node))
    assert len({n.path for n in found}) == len({n.step_id for n in found}) == len(found) == 13
