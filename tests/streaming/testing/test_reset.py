"""After `reset()` a flow runs as if for the first time, also where its steps were given as instances that remember."""

from __future__ import annotations

import functools
import itertools
import threading
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import pytest

from loom.core.model import LoomStruct
from loom.streaming import (
    ExpandRoutes,
    Fork,
    IntoTopic,
    Message,
    PartitionGuarantee,
    PartitionPolicy,
    Process,
    RecordStep,
    StreamFlow,
    step,
)
from loom.streaming.errors import LoomStreamingError
from loom.streaming.testing import StreamingTestRunner
from tests.streaming.orders import Line, Order, ended, flow, validate

ORDERS = [Order(1), Order(2), Order(1)]


class Tally:
    def __init__(self) -> None:
        self.total = 0


class Struct(LoomStruct):
    total: int = 0


class Slotted:
    __slots__ = ("last",)


class First(RecordStep[Order, Order]):
    """Lets each order through once, and keeps what it has seen in every way there is."""

    def __init__(self, seen: set[int] | None = None) -> None:
        self.seen: set[int] = set() if seen is None else seen
        self.order: list[int] = []
        self.by_country: Counter[str] = Counter(ES=1)
        self.recent: deque[int] = deque([0], maxlen=2)
        self.nested = {"tally": Tally(), "slotted": Slotted(), "struct": Struct()}
        self.guard = threading.Lock()

    def execute(self, message: Message[Order]) -> Order | None:
        order = message.payload
        with self.guard:
            known = order.id in self.seen
            self.seen.add(order.id)
            self.order.append(order.id)
            self.by_country[order.country] += 1
            self.recent.append(order.id)
            self.nested["tally"].total += 1  # type: ignore[union-attr]
            self.nested["slotted"].last = order.id  # type: ignore[union-attr]
            self.nested["struct"].total += 1  # type: ignore[union-attr]
            self.latest = order
        return None if known else order


def ids(runner: StreamingTestRunner) -> list[int]:
    return [message.payload.id for message in runner.output]


def test_a_step_that_is_an_instance_forgets_what_it_has_seen() -> None:
    runner = StreamingTestRunner.from_flow(flow(First()))
    assert ids(runner.with_payloads(ORDERS).run()) == [1, 2]
    assert ids(runner.reset().with_payloads(ORDERS).run()) == [1, 2]
    assert ids(runner.reset().with_payloads(ORDERS).run()) == [1, 2]


def test_it_is_the_same_object_with_the_state_that_it_had() -> None:
    mine: set[int] = {7}
    first = First(mine)
    runner = StreamingTestRunner.from_flow(flow(first)).with_payloads(ORDERS).run()
    assert mine == {7, 1, 2}
    runner.reset()
    assert first.seen is mine
    assert mine == {7}
    assert (first.order, first.by_country, list(first.recent), first.recent.maxlen) == ([], {"ES": 1}, [0], 2)
    assert first.nested["tally"].total == 0  # type: ignore[union-attr]
    assert not hasattr(first.nested["slotted"], "last")
    assert first.nested["struct"] == Struct(0)
    assert not hasattr(first, "latest")
    runner.with_payloads(ORDERS).run()
    assert mine == {7, 1, 2}


def test_a_step_that_can_reset_itself_is_asked_to() -> None:
    class Numbered(RecordStep[Order, Order]):
        def __init__(self) -> None:
            self.numbers = itertools.count(1)

        def reset(self) -> None:
            self.numbers = itertools.count(1)

        def execute(self, message: Message[Order]) -> Order:
            return Order(next(self.numbers))

    runner = StreamingTestRunner.from_flow(flow(Numbered()))
    assert ids(runner.with_payloads(ORDERS).run()) == [1, 2, 3]
    assert ids(runner.reset().with_payloads(ORDERS).run()) == [1, 2, 3]


def test_a_step_that_can_only_move_on_is_refused_with_a_remedy() -> None:
    class Endless(RecordStep[Order, Order]):
        def __init__(self) -> None:
            self.numbers: Iterator[int] = itertools.count(1)

        def execute(self, message: Message[Order]) -> Order:
            return Order(next(self.numbers))

    runner = StreamingTestRunner.from_flow(flow(Endless())).with_payloads(ORDERS).run()
    with pytest.raises(LoomStreamingError, match=r"Endless\.configure\(…\), .* or let it define reset\(\)"):
        runner.reset()
    fresh = StreamingTestRunner.from_flow(flow(Endless))
    assert ids(fresh.with_payloads(ORDERS).run()) == ids(fresh.reset().with_payloads(ORDERS).run()) == [1, 2, 3]


class Alternating:
    """A selector, an expander and a strategy that remember."""

    def __init__(self) -> None:
        self.calls = 0

    def select(self, message: Message[Order]) -> int:
        self.calls += 1
        return self.calls % 2

    def expand(self, payload: Order) -> dict[type, list[Any]]:
        self.calls += 1
        return {Line: [Line(self.calls)]}

    def partition_key(self, message: Message[Order]) -> str:
        self.calls += 1
        return str(self.calls)


class Called:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, order: Order) -> Order:
        self.calls += 1
        return Order(self.calls)


def keyed(strategy: Any) -> StreamFlow[Any, Any]:
    policy = PartitionPolicy(strategy, PartitionGuarantee.BEST_EFFORT)
    return flow(validate, output=IntoTopic("orders.priced", partitioning=policy))


INTO = Process(IntoTopic[Any]("orders.priced"))


@pytest.mark.parametrize(
    "declare",
    [
        lambda: flow(step(Called(), name="called")),
        lambda: flow(step(Called().__call__, name="called")),
        lambda: flow(step(functools.partial(Called()), name="called")),
        lambda: ended(Fork.by(Alternating(), {1: INTO}, default=Process(IntoTopic("orders.rest")))),
        lambda: ended(ExpandRoutes(expander=Alternating(), routes={Line: INTO})),
        lambda: keyed(Alternating()),
    ],
    ids=["a callable", "a method", "a partial", "a selector", "an expander", "a strategy"],
)
def test_every_object_of_a_flow_forgets(declare: Any) -> None:
    runner = StreamingTestRunner.from_flow(declare())
    first = runner.with_payloads(ORDERS).run().written("orders.priced").copy()
    again = runner.reset().with_payloads(ORDERS).run().written("orders.priced")
    assert first == again
    assert first != []
