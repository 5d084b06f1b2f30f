"""What would compile though no record could pass it is a compile error, in whichever way the callable was made."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    ExpandRoutes,
    ExpandStep,
    Explode,
    ForEach,
    Fork,
    ForkRoute,
    FromTopic,
    IntoTopic,
    Message,
    PartitionGuarantee,
    PartitionPolicy,
    Process,
    RecordStep,
    Route,
    Router,
    StreamFlow,
    compile_flow,
    msg,
    payload,
    step,
)
from loom.streaming.bytewax import build_dataflow_with_shutdown
from loom.streaming.compiler import Code, CompilationError
from loom.streaming.testing import StreamingTestRunner
from tests.streaming.orders import CONFIG, Line, Order, ended, flow, price, validate

INTO = Process(IntoTopic[Any]("orders.one"))


def generator(order: Order) -> Iterator[Order]:
    yield order


async def coroutine(order: Order) -> Order:
    return order


async def stream(order: Order) -> AsyncIterator[Order]:
    yield order


class AsyncCall:
    async def __call__(self, order: Order) -> Order:
        return order


class Yields:
    def __call__(self, order: Order) -> Iterator[Order]:
        yield order


class YieldingStep(RecordStep[Order, Order]):
    def execute(self, message: Message[Order]) -> Iterator[Order]:
        yield message.payload


class YieldingBatch(BatchStep[Order, Order]):
    def execute(self, messages: list[Message[Order]]) -> Iterator[Order]:  # type: ignore[override]
        yield from (message.payload for message in messages)


class OneLine(ExpandStep[Order, Line]):
    def execute(self, message: Message[Order]) -> Line:  # type: ignore[override]
        return Line(message.payload.id)


class OneText(ExpandStep[Order, str]):
    def execute(self, message: Message[Order]) -> str:
        return message.payload.country


class OneForAll(BatchStep[Order, Order]):
    def execute(self, messages: list[Message[Order]]) -> Order:  # type: ignore[override]
        return messages[0].payload


def one_line(order: Order) -> Line:
    return Line(order.id)


class YieldingExpander:
    def expand(self, payload: Order) -> Iterator[Line]:
        yield Line(payload.id)


class AsyncSelector:
    async def select(self, message: Message[Order]) -> str:
        return message.payload.country


class AsyncKey:
    async def partition_key(self, message: Message[Order]) -> bytes:
        return b"%d" % message.payload.id


class SomeKey:
    def partition_key(self, message: Message[Order]) -> bytes:
        return b"%d" % message.payload.id


class AsyncSink:
    async def build_partition(self, config: Any, worker_index: int, worker_count: int, *more: Any) -> Any: ...


def keyed(strategy: Any) -> StreamFlow[Any, Any]:
    policy = PartitionPolicy(strategy, PartitionGuarantee.BEST_EFFORT)
    return flow(validate, output=IntoTopic("orders.priced", partitioning=policy))


MISTAKES: list[tuple[str, StreamFlow[Any, Any], Code, str]] = [
    ("a generator", flow(step(generator)), Code.STEP_SIGNATURE, "ExpandStep"),
    ("an object that yields", flow(step(Yields())), Code.STEP_SIGNATURE, "ExpandStep"),
    ("a step that yields", flow(YieldingStep), Code.STEP_SIGNATURE, "ExpandStep"),
    ("a batch step that yields", flow(YieldingBatch), Code.STEP_SIGNATURE, "return a list"),
    ("an async function", flow(step(coroutine)), Code.STEP_ASYNC, "plain function"),
    ("an async generator", flow(step(stream)), Code.STEP_SIGNATURE, "return the result"),
    ("an async call", flow(step(AsyncCall())), Code.STEP_ASYNC, "plain function"),
    ("an async partial", flow(step(functools.partial(AsyncCall()))), Code.STEP_ASYNC, "plain function"),
    ("no function", flow(step(5)), Code.NODE_UNKNOWN, "decorate a function"),  # type: ignore[call-overload]
    ("an expression", flow(step(payload.id)), Code.NODE_UNKNOWN, "decorate a function"),
    ("an expansion to one", flow(OneLine, ForEach()), Code.STEP_SIGNATURE, "Iterable"),
    ("an expansion to a text", flow(OneText, ForEach()), Code.STEP_SIGNATURE, "Iterable"),
    ("a batch step to one", flow(OneForAll), Code.STEP_SIGNATURE, "list"),
    ("an exploder to one", flow(Explode(one_line)), Code.STEP_SIGNATURE, "return a list"),
    ("an async exploder", flow(Explode(AsyncCall())), Code.STEP_SIGNATURE, "plain function"),
    ("an exploder of one field", flow(Explode(payload.id)), Code.TYPE_MISMATCH, "payload.items"),
    ("an exploder of a text", flow(Explode(payload.country)), Code.TYPE_MISMATCH, "payload.items"),
    ("an exploder of a truth", flow(Explode(payload.id == 1)), Code.TYPE_MISMATCH, "payload.items"),
    ("an exploder of the message", flow(Explode(msg.meta.headers)), Code.TYPE_MISMATCH, "payload.items"),
    ("an exploder of no field", flow(Explode(payload.items)), Code.EXPRESSION_FIELD, "every payload type"),
    ("an async selector", ended(Fork.by(AsyncCall(), {1: INTO})), Code.STEP_SIGNATURE, "plain function"),
    ("an async select", ended(Fork.by(AsyncSelector(), {1: INTO})), Code.STEP_SIGNATURE, "plain function"),
    ("a selector that yields", flow(Router.by(generator, {1: Process(price)})), Code.STEP_SIGNATURE, "return"),
    ("an async predicate", ended(Fork.when([ForkRoute(AsyncCall(), INTO)])), Code.STEP_SIGNATURE, "plain function"),
    ("a predicate that yields", flow(Router.when([Route(Yields(), Process(price))])), Code.STEP_SIGNATURE, "return"),
    (
        "an expander that yields",
        ended(ExpandRoutes(expander=YieldingExpander(), routes={Line: INTO})),  # type: ignore[arg-type]
        Code.STEP_SIGNATURE,
        "return",
    ),
    (
        "an expander of an expression",
        ended(ExpandRoutes(expander=payload, routes={Line: INTO})),
        Code.NODE_UNKNOWN,
        "expand(self, payload)",
    ),
    ("an async key", keyed(AsyncKey()), Code.STEP_SIGNATURE, "plain method"),
    ("a class of keys", keyed(SomeKey), Code.NODE_UNKNOWN, "give an instance"),
    ("an expression for a key", keyed(payload.id), Code.NODE_UNKNOWN, "give an instance"),
    ("a sink that is opened async", ended(AsyncSink()), Code.STEP_ASYNC, "bridge.run"),
]


@pytest.mark.parametrize(
    ("declared", "code", "remedy"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES]
)
def test_what_no_record_can_pass_is_refused(declared: StreamFlow[Any, Any], code: Code, remedy: str) -> None:
    with pytest.raises(CompilationError) as refused:
        compile_flow(declared, config=CONFIG)
    (issue,) = refused.value.errors
    assert issue.code is code
    assert remedy in (issue.remedy or "")


class Basket(LoomFrozenStruct):
    items: tuple[Line, ...] = ()
    maybe: list[Line] | None = None


class Yielding(ExpandStep[Order, Line]):
    def execute(self, message: Message[Order]) -> Iterator[Line]:
        yield Line(message.payload.id)


def yielded(order: Order) -> Iterable[Line]:
    yield Line(order.id)


@pytest.mark.parametrize("node", [Yielding, Explode(yielded)], ids=["a step", "an exploder"])
def test_an_expansion_may_yield(node: Any) -> None:
    runner = StreamingTestRunner.from_flow(flow(node)).with_payloads([Order(7)]).run()
    assert [message.payload for message in runner.output] == [Line(7)]


@pytest.mark.parametrize("field", [payload.items, payload.maybe], ids=repr)
def test_an_expression_explodes_the_field_that_it_names(field: Any) -> None:
    @step
    def sku(line: Line) -> Line:
        return Line(line.order, "sold")

    declared = StreamFlow("baskets", FromTopic("baskets", Basket), Process(Explode(field), sku), IntoTopic("lines"))
    baskets = [Basket((Line(1), Line(2)), [Line(1), Line(2)]), Basket((), [])]
    runner = StreamingTestRunner.from_flow(declared).with_payloads(baskets).run()
    assert [message.payload for message in runner.output] == [Line(1, "sold"), Line(2, "sold")]


def test_what_an_expression_explodes_is_checked_by_the_next_node() -> None:
    declared = StreamFlow("b", FromTopic("baskets", Basket), Process(Explode(payload.items), price), IntoTopic("o"))
    with pytest.raises(CompilationError) as refused:
        compile_flow(declared, config=CONFIG)
    (issue,) = refused.value.errors
    assert (issue.code, issue.found) == (Code.TYPE_MISMATCH, "Line")


def test_two_plans_that_explode_the_same_field_are_equal() -> None:
    declared = StreamFlow("b", FromTopic("baskets", Basket), Process(Explode(payload.items)), IntoTopic("o"))
    assert compile_flow(declared, config=CONFIG) == compile_flow(declared, config=CONFIG)


@pytest.mark.bytewax
def test_a_commit_tracker_that_nobody_would_await_is_refused() -> None:
    class Tracker:
        async def confirm(self, positions: Any) -> None: ...

    plan = compile_flow(flow(price), config=CONFIG)
    with pytest.raises(TypeError, match="confirm is async"):
        build_dataflow_with_shutdown(plan, commit_tracker=Tracker())  # type: ignore[arg-type]
