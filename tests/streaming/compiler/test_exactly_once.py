"""Exactly-once is promised only where one producer on the source's cluster writes everything."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import Fork, FromTopic, IntoTopic, Process, StreamFlow, compile_flow, step
from loom.streaming.compiler import Code, CompilationError
from loom.streaming.compiler.exactly_once import check_exactly_once_run
from loom.streaming.kafka import Delivery


class Order(LoomFrozenStruct):
    n: int


@step
def keep(order: Order) -> Order:
    return order


def parity(order: Order) -> int:
    return order.n % 2


FLOW = StreamFlow(
    "orders",
    FromTopic("in", payload=Order),
    Process(keep, Fork.by(parity, {0: Process(IntoTopic("even")), 1: Process(IntoTopic("odd", dlq="dead"))})),
    errors=IntoTopic("errors"),
)


def config(*, consumer: dict[str, Any] | None = None, producer: dict[str, Any] | None = None, **producers: Any) -> Any:
    return {
        "kafka": {
            "consumer": {"brokers": ["a:1", "b:1"], "group_id": "g", "delivery": "exactly_once", **(consumer or {})},
            "producer": {"brokers": ["b:1", "a:1"], **(producer or {})},
            "producers": producers,
        }
    }


def test_a_flow_on_one_cluster_compiles() -> None:
    plan = compile_flow(FLOW, config=config(even={"topic": "even-v2", "format": "msgpack", "headers": "full"}))
    assert plan.source.delivery is Delivery.EXACTLY_ONCE


@pytest.mark.parametrize("name", ["even", "odd", "errors", "dead"])
@pytest.mark.parametrize(
    "differs",
    [{"brokers": ["elsewhere:1"]}, {"security": {"protocol": "SSL"}}, {"extra": {"linger.ms": 50}}, {"client_id": "x"}],
)
def test_a_producer_that_differs_is_refused_wherever_it_writes(name: str, differs: dict[str, Any]) -> None:
    with pytest.raises(CompilationError) as refused:
        compile_flow(FLOW, config=config(**{name: differs}))
    assert {issue.code for issue in refused.value.errors} == {Code.DELIVERY_UNKEPT}
    assert any(repr(name) in issue.message for issue in refused.value.errors)
    assert all(issue.remedy for issue in refused.value.errors)


def test_at_least_once_may_write_to_several_clusters() -> None:
    plan = compile_flow(FLOW, config=config(consumer={"delivery": "at_least_once"}, even={"brokers": ["elsewhere:1"]}))
    assert plan.source.delivery is Delivery.AT_LEAST_ONCE


def test_epochs_that_the_broker_would_abort_are_refused() -> None:
    plan = compile_flow(FLOW, config=config())
    check_exactly_once_run(plan, epoch_ms=15_000, foreign_sinks=False)
    with pytest.raises(CompilationError, match="epoch_interval_ms"):
        check_exactly_once_run(plan, epoch_ms=15_001, foreign_sinks=False)
    patient = compile_flow(FLOW, config=config(producer={"extra": {"transaction.timeout.ms": 120_000}}))
    check_exactly_once_run(patient, epoch_ms=30_000, foreign_sinks=False)


def test_a_sink_that_is_no_topic_is_refused() -> None:
    with pytest.raises(CompilationError, match="takes part in no transaction"):
        check_exactly_once_run(compile_flow(FLOW, config=config()), epoch_ms=1000, foreign_sinks=True)


def test_a_policy_that_is_none_is_a_problem_among_the_others() -> None:
    flow = StreamFlow("orders", FromTopic("in", payload=Order), Process(keep), IntoTopic("out", partitioning=True))  # type: ignore[arg-type]
    with pytest.raises(CompilationError) as raised:
        compile_flow(flow, config=config())
    (issue,) = raised.value.errors
    assert "partitioning" in issue.message
