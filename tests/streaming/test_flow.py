"""A flow takes its error routes in four forms and keeps them in one."""

from __future__ import annotations

from typing import Any

import pytest

from loom.streaming import ErrorKind, ErrorRoute, FromTopic, IntoTopic, Process, StreamFlow
from tests.streaming.orders import PRICED, RAW, validate

BAD, WORSE = IntoTopic[Any]("orders.bad"), IntoTopic[Any]("orders.worse")


def flow(errors: Any, **options: Any) -> StreamFlow[Any, Any]:
    return StreamFlow("orders", RAW, Process(validate), PRICED, errors, **options)


def routed(declared: StreamFlow[Any, Any]) -> dict[ErrorKind, str]:
    return {kind: route.output.name for route in declared.error_routes for kind in route.kind_set}


def test_a_flow_needs_no_error_route() -> None:
    assert flow(None).error_routes == ()


def test_one_topic_takes_every_kind() -> None:
    assert routed(flow(BAD)) == dict.fromkeys(ErrorKind, "orders.bad")


def test_one_route_takes_the_kind_it_names() -> None:
    assert routed(flow(ErrorRoute(ErrorKind.WIRE, BAD))) == {ErrorKind.WIRE: "orders.bad"}


def test_several_routes_share_the_kinds() -> None:
    routes = [ErrorRoute([ErrorKind.WIRE, ErrorKind.ROUTING], BAD), ErrorRoute(ErrorKind.TASK, WORSE)]
    expected = {"wire": "orders.bad", "routing": "orders.bad", "task": "orders.worse"}
    assert routed(flow(routes)) == expected
    assert routed(flow(iter(routes))) == expected


def test_a_mapping_names_a_topic_for_each_kind() -> None:
    assert routed(flow({ErrorKind.TASK: BAD, ErrorKind.WIRE: WORSE})) == {"task": "orders.bad", "wire": "orders.worse"}


def test_every_form_of_the_same_routes_makes_the_same_flow() -> None:
    route = ErrorRoute(ErrorKind.WIRE, BAD)
    assert flow(route) == flow([route]) == flow({ErrorKind.WIRE: BAD})


@pytest.mark.parametrize("kinds", [[ErrorKind.TASK], (ErrorKind.TASK,), {ErrorKind.TASK}, "task", ["task"]])
def test_kinds_may_come_in_any_collection_and_as_text(kinds: Any) -> None:
    assert ErrorRoute(kinds, BAD).kind_set == (ErrorKind.TASK,)


def test_an_iterator_of_kinds_can_be_read_more_than_once() -> None:
    route = ErrorRoute(iter([ErrorKind.TASK, ErrorKind.WIRE]), BAD)
    assert route.kind_set == route.kind_set == (ErrorKind.TASK, ErrorKind.WIRE)


@pytest.mark.parametrize(
    "errors",
    [
        [ErrorRoute(ErrorKind.WIRE, BAD), ErrorRoute(ErrorKind.WIRE, WORSE)],
        [ErrorRoute([ErrorKind.TASK, ErrorKind.WIRE], BAD), ErrorRoute(ErrorKind.WIRE, BAD)],
        ErrorRoute([ErrorKind.WIRE, ErrorKind.WIRE], BAD),
        [ErrorRoute([ErrorKind.WIRE, ErrorKind.WIRE], BAD)],
    ],
    ids=["two routes", "the same topic twice", "one route", "one route in a list"],
)
def test_a_kind_is_routed_once(errors: Any) -> None:
    with pytest.raises(ValueError, match="'wire' is routed twice"):
        flow(errors)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        ErrorRoute("nonsense", BAD)  # type: ignore[arg-type]


def test_a_route_for_no_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one kind"):
        ErrorRoute([], BAD)


@pytest.mark.parametrize("errors", ["orders.bad", [BAD], {ErrorKind.WIRE: "orders.bad"}, 7])
def test_anything_else_is_no_error_route(errors: Any) -> None:
    with pytest.raises(TypeError):
        flow(errors)


def test_an_unrouted_error_fails_the_flow_unless_the_author_says_otherwise() -> None:
    assert flow(None).unrouted == "fail"
    assert flow(None, unrouted="drop").unrouted == "drop"


def test_there_is_no_third_thing_to_do_with_an_unrouted_error() -> None:
    with pytest.raises(ValueError, match="'ignore'"):
        flow(None, unrouted="ignore")


def test_a_flow_without_output_and_errors_is_declared_in_one_line() -> None:
    declared = StreamFlow("orders", FromTopic("a", payload=int), Process(validate))
    assert (declared.output, declared.error_routes) == (None, ())
