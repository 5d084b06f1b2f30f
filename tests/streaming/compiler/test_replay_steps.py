"""Which steps a replayed record may enter."""

from __future__ import annotations

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    CollectBatch,
    Drain,
    Explode,
    ForEach,
    Fork,
    FromMultiTypeTopic,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    Router,
    StreamFlow,
    With,
    payload,
    step,
)
from loom.streaming.compiler import CompiledPlan, compile_flow
from loom.streaming.compiler.replay_steps import ReplayRefusedError, replay_entry

CONFIG = {"kafka": {"consumer": {"brokers": "a:1", "group_id": "g"}, "producer": {"brokers": "a:1"}}}


class Order(LoomFrozenStruct):
    id: int
    country: str = "ES"
    lines: tuple[int, ...] = ()


class Priced(LoomFrozenStruct):
    id: int


@step
def check(order: Order) -> Order:
    return order


@step
def price(order: Order) -> Priced:
    return Priced(order.id)


@step
def finish(order: Priced) -> Priced:
    return order


@step
def line(number: int) -> int:
    return number


@step
def either(order: Order | Priced) -> Order | Priced:
    return order


class Many(BatchStep[Order, Order]):
    def execute(self, messages: list[Message[Order]]) -> list[Order]:
        return [message.payload for message in messages]


def plan(*nodes: object, source: object = None) -> CompiledPlan:
    return compile_flow(StreamFlow("orders", source or FromTopic("raw", Order), Process(*nodes)), config=CONFIG)


def test_the_first_step_takes_the_record_as_it_was_read() -> None:
    entry = replay_entry(plan(check, price, Drain()), "orders.check")
    assert (entry.payload, entry.takes_source) == (Order, True)


def test_a_later_step_takes_what_the_ones_before_it_made() -> None:
    made = plan(check, price, finish, Drain())
    assert [replay_entry(made, f"orders.{name}").takes_source for name in ("price", "finish")] == [False, False]
    assert replay_entry(made, "orders.finish").payload is Priced


def test_the_first_step_of_a_branch_of_the_first_node_takes_the_record_as_it_was_read() -> None:
    branch = Process(price, IntoTopic("es"))
    assert replay_entry(
        plan(Fork.by(payload.country, {"ES": branch}, default=Process(Drain()))), "orders.es.price"
    ).takes_source
    behind = plan(check, Router.by(payload.country, {"ES": Process(price)}, default=Process(price)), IntoTopic("out"))
    assert not replay_entry(behind, "orders.es.price").takes_source


def test_a_step_behind_an_expansion_takes_one_child() -> None:
    entry = replay_entry(plan(Explode(payload.lines), line, Drain()), "orders.line")
    assert (entry.payload, entry.takes_source) == (int, False)


@pytest.mark.parametrize(
    ("made", "name", "why"),
    [
        (lambda: plan(check, Drain()), "orders.gone", "has no step 'orders.gone'"),
        (lambda: plan(CollectBatch(2, 10), Many, ForEach(), Drain()), "orders.many", "takes several records at once"),
        (lambda: plan(With(process=Process(check)), Drain()), "orders.check", "inside a scope"),
        (
            lambda: plan(either, Drain(), source=FromMultiTypeTopic("raw", (Order, Priced))),
            "orders.either",
            "one payload type",
        ),
    ],
)
def test_a_step_that_cannot_be_entered_is_refused(made: object, name: str, why: str) -> None:
    with pytest.raises(ReplayRefusedError, match=why):
        replay_entry(made(), name)  # type: ignore[operator]
