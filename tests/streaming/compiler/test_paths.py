"""A node's path is its address: what `terminal_sinks` is keyed by and what every compile error names."""

from __future__ import annotations

from typing import Any

import pytest

from loom.streaming import Fork, IntoTopic, Process, compile_flow
from loom.streaming.compiler import CompilationError, CompiledPlan
from loom.streaming.compiler.model import walk_nodes
from tests.streaming.orders import CONFIG, by_country, ended, flow, price, validate


def plan(declared: Any) -> CompiledPlan:
    return compile_flow(declared, config=CONFIG)


INNER = Fork.by(
    by_country,
    {"a": Process(IntoTopic("inner.a")), "b": Process(price, IntoTopic("inner.b"))},
    default=Process(IntoTopic("inner.rest")),
)
NESTED = ended(
    validate,
    Fork.by(
        by_country,
        {"ES": Process(IntoTopic("es")), "PT": Process(validate, INNER)},
        default=Process(price, IntoTopic("rest")),
    ),
)


def test_a_node_of_the_process_is_addressed_by_its_place() -> None:
    assert [node.path for node in plan(flow(validate, price)).nodes] == [(0,), (1,)]


def test_a_node_in_a_branch_is_addressed_by_the_fork_the_branch_and_its_place() -> None:
    paths = {node.step_id.removeprefix("orders."): node.path for node in walk_nodes(plan(NESTED).nodes)}
    assert paths == {
        "validate": (0,),
        "fork": (1,),
        "es.into-es": (1, 0, 0),
        "pt.validate": (1, 1, 0),
        "pt.fork": (1, 1, 1),
        "pt.a.into-inner-a": (1, 1, 1, 0, 0),
        "pt.b.price": (1, 1, 1, 1, 0),
        "pt.b.into-inner-b": (1, 1, 1, 1, 1),
        "pt.default.into-inner-rest": (1, 1, 1, 2, 0),
        "default.price": (1, 2, 0),
        "default.into-rest": (1, 2, 1),
    }


def test_the_default_stands_behind_every_branch() -> None:
    """A default that forgot the branches before it once shared a path, and so a sink, with one of them."""
    assert plan(NESTED).terminal_sinks[1, 2, 1].topic == "rest"


def test_inner_outputs_are_found_under_their_paths() -> None:
    assert {path: topic.topic for path, topic in plan(NESTED).terminal_sinks.items()} == {
        (1, 0, 0): "es",
        (1, 1, 1, 0, 0): "inner.a",
        (1, 1, 1, 1, 1): "inner.b",
        (1, 1, 1, 2, 0): "inner.rest",
        (1, 2, 1): "rest",
    }


def test_every_path_is_taken_once() -> None:
    paths = [node.path for node in walk_nodes(plan(NESTED).nodes)]
    assert len(paths) == len(set(paths))


def test_source_output_and_error_routes_have_no_path_but_a_place_in_words() -> None:
    made = plan(flow(price))
    assert made.source.where == "source"
    assert made.output is not None
    assert (made.output.path, made.output.where) == ((), "output")
    assert [(route.output.path, route.output.where) for route in made.error_routes] == [((), "errors")]


def test_an_inner_output_is_part_of_the_process() -> None:
    assert {topic.where for topic in plan(NESTED).terminal_sinks.values()} == {"process"}


def test_an_error_deep_inside_names_the_path_of_its_node() -> None:
    inner = Fork.by(by_country, {"a": Process(price, validate, IntoTopic("x"))})
    outer = Fork.by(by_country, {"ES": Process(IntoTopic("es"))}, default=Process(inner))
    with pytest.raises(CompilationError) as caught:
        plan(ended(validate, outer))
    (issue,) = caught.value.errors
    assert issue.path == (1, 1, 0, 0, 1)
    assert "at process[1, 1, 0, 0, 1]" in str(issue)


def test_a_branch_may_be_a_single_node() -> None:
    bare: Any = IntoTopic("es")
    assert list(plan(ended(Fork.by(by_country, {"ES": bare}))).terminal_sinks) == [(0, 0, 0)]
