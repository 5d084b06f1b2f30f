"""Step ids are a durable contract: readable, the same at each compilation, and no business of unrelated nodes."""

from __future__ import annotations

import os
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from loom.streaming import Fork, IntoTopic, Process, compile_flow, step
from loom.streaming.compiler import Code, CompilationError
from loom.streaming.compiler.model import walk_nodes
from tests.streaming.orders import CONFIG, Price, Split, by_country, ended, flow, price, validate


def ids(declared: Any) -> list[str]:
    plan = compile_flow(declared, config=CONFIG)
    return [node.step_id for node in walk_nodes(plan.nodes)]


FORKED = ended(
    validate,
    Fork.by(
        by_country,
        {"ES": Process(Price, IntoTopic("orders.es")), "New Zealand": Process(IntoTopic("orders.nz"))},
        default=Process(Split, IntoTopic("orders.rest")),
    ),
)


def test_an_id_is_made_of_the_flow_the_branch_and_the_name() -> None:
    assert ids(FORKED) == [
        "orders.validate",
        "orders.fork",
        "orders.es.price",
        "orders.es.into-orders-es",
        "orders.new-zealand.into-orders-nz",
        "orders.default.split",
        "orders.default.into-orders-rest",
    ]


def test_a_nested_branch_stands_under_its_parents_label() -> None:
    inner = Fork.by(by_country, {1: Process(price, IntoTopic("a"))})
    outer = Fork.by(by_country, {"ES": Process(inner)}, default=Process(IntoTopic("b")))
    assert ids(ended(outer)) == [
        "orders.fork",
        "orders.es.fork",
        "orders.es.1.price",
        "orders.es.1.into-a",
        "orders.default.into-b",
    ]


class Colour(Enum):
    RED = "Red"


@pytest.mark.parametrize(
    ("key", "label"),
    [("ES", "es"), (b"ES", "es"), (7, "7"), (None, "none"), (True, "true"), (Colour.RED, "red"), ("a.b c", "a-b-c")],
)
def test_a_branch_is_labelled_by_its_key(key: Any, label: str) -> None:
    assert ids(ended(Fork.by(by_country, {key: Process(IntoTopic("x"))}))) == ["orders.fork", f"orders.{label}.into-x"]


def test_what_stands_outside_the_process_has_ids_of_its_own() -> None:
    plan = compile_flow(flow(price, output=IntoTopic("orders.priced", dlq="dead")), config=CONFIG)
    assert [topic.step_id for topic in plan.topics()] == [
        "orders.output",
        "orders.errors.into-orders-errors",
        "orders.output.dlq",
    ]


def test_error_routes_have_different_ids() -> None:
    routes = {"wire": IntoTopic("bad"), "task": IntoTopic("worse")}
    plan = compile_flow(flow(price, errors=routes), config=CONFIG)
    assert [route.output.step_id for route in plan.error_routes] == [
        "orders.errors.into-bad",
        "orders.errors.into-worse",
    ]


def test_an_unrelated_node_leaves_the_ids_of_the_others_alone() -> None:
    @step
    def audit(order: Any) -> Any:
        return order

    grown = ended(
        audit,
        validate,
        Fork.by(
            by_country,
            {
                "FR": Process(IntoTopic("orders.fr")),
                "ES": Process(Price, step(name="round")(lambda priced: priced), IntoTopic("orders.es")),
                "New Zealand": Process(IntoTopic("orders.nz")),
            },
            default=Process(Split, IntoTopic("orders.rest")),
        ),
    )
    assert set(ids(FORKED)) < set(ids(grown))


def test_the_same_flow_has_the_same_ids_in_another_process() -> None:
    code = "from tests.streaming.compiler.test_step_ids import FORKED, ids\nprint(*ids(FORKED))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert run.stdout.split() == ids(FORKED)


@pytest.mark.parametrize("name", ["source", "output", "errors"])
def test_a_step_cannot_take_the_id_of_what_stands_outside_the_process(name: str) -> None:
    with pytest.raises(CompilationError) as caught:
        compile_flow(flow(step(name=name)(lambda order: order)), config=CONFIG)
    (issue,) = caught.value.errors
    assert (issue.code, issue.path) == (Code.NAME_TWICE, (0,))
    assert f"'orders.{name}'" in issue.message


def test_the_same_name_in_two_branches_is_no_clash() -> None:
    fork = Fork.by(by_country, {"ES": Process(price, IntoTopic("a")), "PT": Process(price, IntoTopic("a"))})
    assert len(set(ids(ended(fork)))) == 5


def test_branches_of_one_label_are_one_clash_whatever_they_hold() -> None:
    twice = Fork.by(by_country, {"a": Process(IntoTopic("x")), "A": Process(IntoTopic("x"))})
    with pytest.raises(CompilationError) as caught:
        compile_flow(ended(twice), config=CONFIG)
    assert [(issue.code, issue.path) for issue in caught.value.errors] == [(Code.NAME_TWICE, (0, 1))]


def test_a_branch_may_be_called_default_where_there_is_none() -> None:
    assert ids(ended(Fork.by(by_country, {"default": Process(IntoTopic("x"))})))[1] == "orders.default.into-x"


def test_a_branch_called_default_beside_a_default_is_a_clash() -> None:
    fork = Fork.by(by_country, {"default": Process(IntoTopic("x"))}, default=Process(IntoTopic("y")))
    with pytest.raises(CompilationError) as caught:
        compile_flow(ended(fork), config=CONFIG)
    (issue,) = caught.value.errors
    assert (issue.code, issue.path) == (Code.NAME_TWICE, (0, 0))
