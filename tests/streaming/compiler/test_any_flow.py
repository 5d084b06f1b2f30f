"""Whatever an author writes down, the compiler answers with a plan or with a `CompilationError`, and with nothing else.

What a declaration refuses at once (`Router.by()` without branches) is refused there, as a `TypeError` or `ValueError`.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loom.streaming import (
    Broadcast,
    BroadcastRoute,
    CollectBatch,
    Drain,
    ErrorEnvelope,
    ExpandRoutes,
    Explode,
    ForEach,
    Fork,
    ForkRoute,
    FromMultiTypeTopic,
    FromTopic,
    IntoTopic,
    Message,
    PartitionGuarantee,
    PartitionPolicy,
    Process,
    Route,
    Router,
    StreamFlow,
    StreamShape,
    Tombstone,
    With,
    WithAsync,
    compile_flow,
    msg,
    payload,
)
from loom.streaming.compiler import CompilationError, CompiledPlan
from tests.streaming.compiler import mistakes
from tests.streaming.orders import CONFIG, Line, Order, Price, PriceAll, Split, by_country, price, validate

NAMES = st.sampled_from(["orders.es", "orders.pt", "orders.raw", "", ".", "x y", "ä"])


class Hostile:
    """Answers no question about itself."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


class NotToBeCompared:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]


class NotToBeHashed(list[Any]):
    pass


THINGS: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    "text",
    b"bytes",
    (),
    [],
    {},
    {"a": 1},
    object(),
    object,
    int,
    Any,
    list[int],
    Order | None,
    Order,
    Order(1),
    Line,
    Message,
    Message[Order],
    ErrorEnvelope,
    ErrorEnvelope[Order],
    Tombstone(),
    Tombstone,
    Process,
    Process(validate),
    StreamShape.BATCH,
    len,
    print,
    operator.attrgetter("country"),
    functools.partial(by_country),
    functools.partial(max, 1),
    lambda: None,
    lambda *arguments: None,
    lambda order, other: None,
    by_country,
    payload,
    msg,
    payload.country,
    payload.country == "ES",
    payload.nowhere,
    payload[0],
    msg.meta.key,
    msg.nowhere.at.all,
    FromTopic("orders.raw", Order),
    IntoTopic("orders.es"),
    Route,
    Router,
    Fork,
    Broadcast,
    CollectBatch,
    Exception("no"),
    NotImplemented,
    ...,
    NotToBeCompared(),
    NotToBeHashed(),
    *(value for name, value in vars(mistakes).items() if not name.startswith("_")),
]

things = st.sampled_from(THINGS)


def declared(make: Callable[..., Any], *parts: st.SearchStrategy[Any], **named: st.SearchStrategy[Any]) -> Any:
    """A declaration of these parts; one that refuses them leaves its parts in its place."""

    def attempt(given: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        try:
            return make(*given, **keywords)
        except (TypeError, ValueError, AttributeError):
            return given[0] if given else None

    return st.builds(attempt, st.tuples(*parts), st.fixed_dictionaries(named))


def grow(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Nodes that hold nodes."""
    process = st.one_of(
        st.lists(inner, min_size=1, max_size=4).map(lambda nodes: Process(*nodes)), st.lists(inner, max_size=2), inner
    )
    keys = st.one_of(st.sampled_from(["ES", b"ES", "es", 1, None, "default", Order]), things.filter(_hashable))
    branches = st.dictionaries(keys, process, max_size=3)
    routes = st.lists(declared(Route, things, process, st.none() | NAMES), max_size=3)
    fork_routes = st.lists(declared(ForkRoute, things, process, st.none() | NAMES), max_size=3)
    spread = st.lists(declared(BroadcastRoute, process, st.none() | outputs, st.none() | NAMES), max_size=3)
    default = st.none() | process
    expanders = st.sampled_from([mistakes.Parts(), mistakes.PricedParts()]) | things
    by_type = st.dictionaries(st.sampled_from([Order, Line, int, "line", None, list[int]]), process, max_size=3)
    return st.one_of(
        declared(Router.by, things, branches, default=default, name=st.none() | NAMES),
        declared(Fork.by, things, branches, default=default, name=st.none() | NAMES),
        declared(Router.when, routes, default=default, name=st.none() | NAMES),
        declared(Fork.when, fork_routes, default=default, name=st.none() | NAMES),
        spread.map(lambda found: Broadcast(*found) if found and _routes(found) else None),
        declared(ExpandRoutes, expander=expanders, routes=by_type | things, default=default),
        declared(With, process=process),
        declared(WithAsync, process=process),
    )


def _hashable(thing: Any) -> bool:
    try:
        hash(thing)
    except TypeError:
        return False
    return True


def _routes(found: list[Any]) -> bool:
    return all(isinstance(route, BroadcastRoute) for route in found)


policies = declared(PartitionPolicy, things, st.sampled_from(PartitionGuarantee) | things, st.booleans())
outputs = declared(
    IntoTopic,
    NAMES,
    st.none() | things,
    st.sampled_from(StreamShape),
    st.none() | policies | things,
    st.none() | NAMES,
)
leaves = st.one_of(
    things,
    outputs,
    st.sampled_from([validate, price, Price, Price(), PriceAll, Split, Price.from_config("x"), Drain(), ForEach()]),
    declared(CollectBatch, st.integers(-1, 3), st.integers(-1, 3)),
    declared(Explode, things),
)
nodes = st.recursive(leaves, grow, max_leaves=8)
sources = st.one_of(
    st.just(FromTopic("orders.raw", Order)),
    declared(FromTopic, NAMES, things, st.sampled_from(StreamShape)),
    declared(FromMultiTypeTopic, NAMES, st.lists(things, max_size=3)),
    things,
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    source=sources,
    inside=st.lists(nodes, min_size=1, max_size=4),
    output=st.none() | outputs | things,
    delivery=st.sampled_from(["at_least_once", "exactly_once"]),
)
def test_any_flow_is_a_plan_or_an_error_that_tells_what_is_wrong(
    source: Any, inside: list[Any], output: Any, delivery: str
) -> None:
    flow: StreamFlow[Any, Any] = StreamFlow("orders", source, Process(*inside), output)
    kafka = CONFIG["kafka"]
    config = {"kafka": {**kafka, "consumer": {**kafka["consumer"], "delivery": delivery}}, "x": {}}
    try:
        plan = compile_flow(flow, config=config)
    except CompilationError as found:
        error = found
    else:
        assert isinstance(plan, CompiledPlan)
        assert plan.explain()
        assert plan == compile_flow(flow, config=config)
        return
    assert error.errors
    assert str(error)
