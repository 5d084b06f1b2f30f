"""The parts of the live picture, each with what it must keep and forget."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import ErrorKind, Fork, FromTopic, IntoTopic, Process, StreamFlow, compile_flow, step
from loom.streaming.compiler.explain.picture import picture_of
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.metrics import FlowCounts
from loom.streaming.record import TopicPartitionOffset
from loom.streaming.runtime.telemetry.live_document import LiveNow
from loom.streaming.runtime.telemetry.live_history import History
from loom.streaming.runtime.telemetry.node_flow import NodeFlow
from loom.streaming.runtime.telemetry.recent_errors import RecentErrors
from tests.support.running import config_for

PLACE = TopicPartitionOffset("orders", 0, 3)


class Order(LoomFrozenStruct):
    id: int
    country: str = "es"


@step
def country(order: Order) -> str:
    return order.country


@step
def check(order: Order) -> Order:
    return order


@step
def label(order: Order) -> Order:
    return order


def plan() -> CompiledPlan:
    fork = Fork.by(country, {"es": Process(label, IntoTopic("out", payload=Order))}, default=Process(IntoTopic("out")))
    flow: StreamFlow[Any, Any] = StreamFlow("orders", FromTopic("orders.raw", Order), Process(check, fork))
    return compile_flow(flow, config=config_for("localhost:9092"))


def counts(read: int, **fields: Any) -> FlowCounts:
    empty: dict[str, Any] = {"written": 0, "dropped": 0, "failed": {}, "outputs": {}, "drops": {}, "errors": {}}
    return FlowCounts(read=read, **{**empty, "refused": {}, "durable": 0, **fields})


def test_what_is_counted_is_exact_and_shares_of_timed_batches_tell_the_rest() -> None:
    compiled = plan()
    flow = NodeFlow(compiled, picture_of(compiled))
    failed = {(ErrorKind.TASK, "orders.check"): 100}
    timed = {"orders.source": 100, "orders.check": 100, "orders.fork": 90, "orders.es.label": 45}
    found = flow.look(counts(1000, errors=failed), [timed])
    by_step = {box.step_id: found[box.id] for box in picture_of(compiled).boxes}
    assert (by_step["orders.source"].came, by_step["orders.source"].left) == (1000, 1000)
    assert by_step["orders.check"] == msgspec.structs.replace(by_step["orders.check"], came=1000, left=900)
    assert (by_step["orders.fork"].came, by_step["orders.fork"].estimated) == (900, False)
    assert by_step["orders.es.label"].came == pytest.approx(450)
    assert by_step["orders.es.label"].estimated
    # Two outputs write one topic, so its counter is neither's.
    assert by_step["orders.es.into-out"].came is None


def test_a_change_of_the_shares_counts_from_then_on() -> None:
    compiled = plan()
    flow = NodeFlow(compiled, picture_of(compiled))
    source, seen = 0, 0
    for _ in range(100):
        source += 10
        flow.look(counts(source * 10), [{"orders.source": source, "orders.es.label": seen}])
    for _ in range(100):
        source, seen = source + 10, seen + 10
        found = flow.look(counts(source * 10), [{"orders.source": source, "orders.es.label": seen}])
    (label_box,) = (box for box in picture_of(compiled).boxes if box.step_id == "orders.es.label")
    # Of the last 10,000 records all came there; what was measured lately says so, with a minute's delay.
    assert found[label_box.id].came == pytest.approx(7000, rel=0.05)


def test_the_history_is_a_ring_of_fifteen_minutes() -> None:
    history = History(["source"])
    for at in range(1000):
        now = LiveNow(float(at), 0.0, 0.0, None, 123456.789, None, None, 0, 0)
        history.add(at * 5.0, now, [], ready=at % 2 == 0)
    kept = history.of_flow()
    assert len(kept.read_per_s) * kept.every_s == 15 * 60
    assert (kept.read_per_s[0], kept.read_per_s[-1], kept.last_at) == (820.0, 999.0, 4995.0)
    assert (kept.lag_records[-1], kept.latency_p95_s[-1], kept.ready[-2:]) == (None, 123500.0, (1.0, 0.0))


def test_a_flood_of_one_error_leaves_the_others_and_is_bounded() -> None:
    now = [1000.0]
    errors = RecentErrors(lambda: now[0])
    errors.notice(ErrorKind.WIRE, "orders.source", ValueError("rare"), None, PLACE)
    for _ in range(50):
        now[0] += 0.5
        for _ in range(100):
            errors.notice(ErrorKind.TASK, "orders.check", ValueError("x" * 10_000), "flow.py:3", PLACE)
    for number in range(500):
        errors.notice(ErrorKind.TASK, f"orders.step{number}", ValueError("many"), None, PLACE)
    kept = errors.latest()
    assert len(kept) < 100
    flood = [one for one in kept if one.step == "orders.check"]
    assert len(flood) == 8
    assert {one.count for one in flood} == {200}
    assert len(flood[0].reason) == 400
    assert any(one.reason == "rare" for one in kept)
    assert kept == sorted(kept, key=lambda one: -one.last_at)


def test_an_exception_without_a_text_is_told_by_its_class() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not now")

    errors = RecentErrors()
    errors.notice(ErrorKind.TASK, "orders.check", Mute(), None, PLACE)
    assert errors.latest()[0].reason == "Mute"
