"""Plans are data: equal when steps and resolved config are equal."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.config import ConfigContext
from loom.streaming import Fork, IntoTopic, Process, compile_flow, step
from loom.streaming.compiler import CompiledPlan
from tests.streaming.orders import (
    CONFIG,
    Order,
    Price,
    PricedOrder,
    Split,
    by_country,
    config,
    ended,
    flow,
    price,
    validate,
)


def plan(declared: Any, settings: Any = CONFIG) -> CompiledPlan:
    return compile_flow(declared, config=settings)


PRICING = {**CONFIG, "pricing": {"currency": "EUR"}}


def branched(**branches: Any) -> Any:
    return ended(Fork.by(by_country, {key: Process(*nodes) for key, nodes in branches.items()}))


@pytest.mark.parametrize(
    "declared",
    [
        flow(validate, Price),
        flow(Price(currency="USD")),
        flow(Price.configure(currency="USD")),
        ended(Fork.by(by_country, {"ES": Process(price, IntoTopic("a", dlq="b"))}, default=Process(IntoTopic("c")))),
    ],
)
def test_compiling_the_same_flow_twice_makes_equal_plans(declared: Any) -> None:
    assert plan(declared) == plan(declared)
    assert plan(declared) is not plan(declared)


def test_plans_are_equal_however_the_flow_was_written_down() -> None:
    assert plan(flow(Price)) == plan(flow(Price.configure()))
    assert plan(flow(Price.from_config("pricing")), PRICING) == plan(flow(Price.from_config("pricing")), PRICING)


def test_plans_are_equal_when_the_resolved_config_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM_TEST_GROUP", "orders")
    interpolated = ConfigContext.from_dict(config(consumer={"group_id": "${oc.env:LOOM_TEST_GROUP}"}))
    overlaid = config(consumer={"group_id": None}, consumers={"orders.raw": {"group_id": "orders"}})
    assert plan(flow(price), interpolated) == plan(flow(price), overlaid) == plan(flow(price))


@pytest.mark.parametrize(
    "settings",
    [
        config(consumer={"group_id": "other"}),
        config(consumer={"delivery": "at_most_once"}),
        config(consumer={"security": {"protocol": "SASL_SSL", "sasl_password": "x"}}),
        config(producer={"format": "msgpack"}),
        config(producer={"extra": {"linger.ms": 50}}),
        config(producers={"orders.priced": {"topic": "priced-v2"}}),
        config(producers={"orders.errors": {"headers": "full"}}),
    ],
    ids=["group", "delivery", "secret", "format", "extra", "topic", "errors"],
)
def test_another_resolved_config_makes_another_plan(settings: Any) -> None:
    assert plan(flow(price), settings) != plan(flow(price))


@pytest.mark.parametrize(
    "other",
    [
        flow(price),
        flow(validate, Price.configure(currency="USD")),
        flow(validate, Price, output=IntoTopic("orders.other")),
        flow(validate, Price, output=IntoTopic("orders.priced", dlq="dead")),
        flow(validate, Price, errors={"task": IntoTopic("orders.errors")}),
        flow(validate, Price, unrouted="drop"),
        flow(step(name="validate")(lambda order: order), Price),
    ],
    ids=["steps", "arguments", "output", "dlq", "errors", "unrouted", "function"],
)
def test_another_flow_makes_another_plan(other: Any) -> None:
    assert plan(other) != plan(flow(validate, Price))


def test_other_branches_make_another_plan() -> None:
    one = branched(ES=[price, IntoTopic("a")])
    assert plan(one) == plan(branched(ES=[price, IntoTopic("a")]))
    assert plan(one) != plan(branched(PT=[price, IntoTopic("a")]))
    assert plan(one) != plan(branched(ES=[price, IntoTopic("b")]))


def test_the_arguments_of_a_binding_are_part_of_the_plan() -> None:
    declared = flow(Price.from_config("pricing"))
    assert plan(declared, PRICING) != plan(declared, {**CONFIG, "pricing": {"currency": "USD"}})


def test_a_plan_lists_everything_that_it_may_write_to() -> None:
    declared = ended(
        Fork.by(by_country, {"ES": Process(IntoTopic("es", dlq="es-dead"))}, default=Process(IntoTopic("rest"))),
        errors=[],
    )
    assert [topic.topic for topic in plan(declared).topics()] == ["es", "rest", "es-dead"]
    assert [topic.topic for topic in plan(flow(price)).topics()] == ["orders.priced", "orders.errors"]


def test_outputs_share_a_producer_where_their_clients_are_the_same() -> None:
    settings = config(
        producers={
            "orders.priced": {"topic": "priced-v2", "format": "msgpack", "headers": "full"},
            "orders.dead": {"extra": {"linger.ms": 50}},
            "orders.errors": {"brokers": "far:9092"},
        }
    )
    made = plan(flow(price, output=IntoTopic("orders.priced", dlq="orders.dead")), settings)
    same = plan(flow(price, output=IntoTopic("orders.priced", dlq="orders.dead")), config())
    priced, errors, dead = (topic.producer for topic in made.topics())
    assert len({priced.index, errors.index, dead.index}) == len(made.producers) == 3
    assert all(made.producers[producer.index] is producer for producer in (priced, errors, dead))
    assert made.source.cluster == priced.cluster == dead.cluster != errors.cluster
    assert [cluster.properties.brokers for cluster in made.clusters] == [("localhost:9092",), ("far:9092",)]
    assert (len(same.producers), len(same.clusters)) == (1, 1)


def test_a_plan_says_what_is_read() -> None:
    source = plan(flow(price)).source
    assert (source.name, source.topics, source.payload) == ("orders.raw", ("orders.raw",), Order)
    assert (source.wire_format, source.recognise_envelope) == ("json", True)
    assert source.delivery == "at_least_once"


def test_a_compiled_step_says_how_it_is_called_and_what_it_gives() -> None:
    (node,) = plan(flow(Price)).nodes
    assert (node.name, node.kind, node.may_drop, node.takes_tombstones) == (  # type: ignore[union-attr]
        "price",
        "record",
        False,
        False,
    )
    assert node.accepts.types == (Order,)  # type: ignore[union-attr]
    assert node.returns.types == (PricedOrder,)  # type: ignore[union-attr]


def test_the_fields_of_a_plan_stand_in_the_order_of_the_contract() -> None:
    made = plan(flow(price))
    fields = (
        "name",
        "source",
        "nodes",
        "output",
        "error_routes",
        "needs_async_bridge",
        "terminal_sinks",
        "terminal_storage_sinks",
    )
    assert CompiledPlan.__struct_fields__[: len(fields)] == fields
    assert CompiledPlan(*(getattr(made, field) for field in fields)) == made


def test_a_plan_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        plan(flow(price)).name = "other"  # type: ignore[misc]


def test_kinds_of_steps_are_told_apart() -> None:
    (validated, split) = plan(flow(validate, Split)).nodes
    assert (validated.kind, split.kind) == ("function", "expand")  # type: ignore[union-attr]
