"""Routers: one branch takes each record in place, and what leaves it goes on; `when` asks one predicate after the other."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    Drain,
    ErrorKind,
    ExpandStep,
    Explode,
    Fork,
    ForkRoute,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RecordStep,
    Route,
    Router,
    StreamFlow,
    Tombstone,
    msg,
    payload,
    step,
)
from loom.streaming.kafka import KafkaRecord
from tests.support.running import config_for, in_memory, into_topics, numbers, records


class Number(LoomFrozenStruct):
    n: int


class Word(LoomFrozenStruct):
    text: str


@step
def double(number: Number) -> Number:
    return Number(number.n * 2)


@step
def hundred(number: Number) -> Number:
    return Number(number.n + 100)


@step
def minus(number: Number) -> Number:
    return Number(-number.n)


@step
def fails(number: Number) -> Number:
    raise ValueError("no")


def odd(number: Number) -> bool:
    return number.n % 2 == 1


def flow(*nodes: Any, output: Any = IntoTopic("out")) -> StreamFlow[Any, Any]:  # noqa: B008
    return StreamFlow("routing", FromTopic("numbers", Number), Process(*nodes), output, IntoTopic("errors"))


def test_what_leaves_a_branch_goes_on_behind_the_router() -> None:
    router = Router.by(odd, {True: Process(double), False: Process(hundred)})
    ran = in_memory(flow(router, minus), numbers(1, 2, 3))
    assert [p.n for p in ran.payloads()] == [-2, -102, -6]


def test_a_branch_that_ends_in_a_terminal_ends_there_and_not_at_the_flows_output() -> None:
    router = Router.by(odd, {True: Process(double, IntoTopic("odd"))}, default=Process(hundred))
    ran = in_memory(flow(router), numbers(1, 2, 3))
    assert [p.n for p in ran.payloads()] == [102]
    assert [p.n for p in ran.payloads((0, 0, 1))] == [2, 6]
    assert ran.counts.written == 3


def test_a_router_all_of_whose_branches_end_ends_the_flow() -> None:
    router = Router.by(odd, {True: Process(IntoTopic("odd")), False: Process(Drain())})
    ran = in_memory(flow(router, output=None), numbers(1, 2))
    assert ([p.n for p in ran.payloads((0, 0, 0))], ran.counts.drops) == ([1], {"routing.false.drain": 1})


def test_a_record_that_no_branch_takes_is_a_routing_error_of_the_router() -> None:
    ran = in_memory(flow(Router.by(odd, {True: Process(double)})), numbers(1, 2))
    (envelope,) = ran.errors[ErrorKind.ROUTING]
    assert (envelope.step_id, envelope.path, envelope.reason) == (
        "routing.router",
        (0,),
        "no branch for False and no default",
    )
    assert [p.n for p in ran.payloads()] == [2]


def test_a_failing_step_in_a_branch_is_told_by_the_place_of_the_step() -> None:
    ran = in_memory(flow(Router.by(odd, {True: Process(double, fails)}, default=Process(double))), numbers(1, 2))
    (envelope,) = ran.errors[ErrorKind.TASK]
    assert (envelope.step_id, envelope.path) == ("routing.true.fails", (0, 0, 1))


@pytest.mark.parametrize("kind", ["router", "fork"])
def test_the_first_predicate_that_holds_decides(kind: str) -> None:
    few, some = payload.n < 2, payload.n < 4
    if kind == "router":
        node: Any = Router.when([Route(few, Process(double)), Route(some, Process(hundred))], default=Process(minus))
        found = [p.n for p in in_memory(flow(node), numbers(1, 3, 5)).payloads()]
    else:
        routes = [
            ForkRoute(few, Process(double, IntoTopic("a"))),
            ForkRoute(some, Process(hundred, IntoTopic("b"))),
        ]
        node = Fork.when(routes, default=Process(minus, IntoTopic("c")))
        ran = in_memory(flow(node, output=None), numbers(1, 3, 5))
        found = [p.n for path in ran.terminals for p in ran.payloads(path)]
    assert found == [2, 103, -5]


def test_no_predicate_behind_the_first_that_holds_is_asked() -> None:
    asked: list[int] = []

    def second(number: Number) -> bool:
        asked.append(number.n)
        return True

    in_memory(
        flow(Router.when([Route(payload.n == 1, Process(double)), Route(second, Process(double))])), numbers(1, 2)
    )
    assert asked == [2]


class IsKeyed:
    def matches(self, message: Message[Number]) -> bool:
        return message.meta.key == b"k"


def keyed(message: Message[Number]) -> bool:
    return message.meta.key == b"k"


@pytest.mark.parametrize(
    "when", [IsKeyed(), keyed, msg.meta.key == "k", msg.meta.key.isin(["k", "l"]), ~(msg.meta.key != b"k")]
)
def test_a_predicate_is_an_expression_a_function_or_an_object(when: Any) -> None:
    router = Router.when([Route(when, Process(hundred), name="keyed")], default=Process(minus))
    items = [KafkaRecord("numbers", key, b'{"n":1}', {}, 0, at) for at, key in enumerate([b"k", b"x", None])]
    assert [p.n for p in in_memory(flow(router), items).payloads()] == [101, -1, -1]


def breaks(number: Number) -> bool:
    return bool(1 // (number.n - 1))


@pytest.mark.parametrize("default", [None, Process(double)], ids=["no-default", "default"])
def test_a_predicate_that_raises_is_a_routing_error_even_with_a_default(default: Any) -> None:
    ran = in_memory(flow(Router.when([Route(breaks, Process(double))], default=default)), numbers(1, 2))
    (envelope,) = ran.errors[ErrorKind.ROUTING]
    assert envelope.error_type == "builtins.ZeroDivisionError"
    assert [p.n for p in ran.payloads()] == [4]


class Maybe(LoomFrozenStruct):
    n: int | None = None


@step
def unchanged(maybe: Maybe) -> Maybe:
    return maybe


@pytest.mark.parametrize("default", [None, Process(unchanged)], ids=["no-default", "default"])
def test_an_expression_that_cannot_be_answered_for_a_record_is_a_routing_error(default: Any) -> None:
    router = Router.when([Route(payload.n > 1, Process(unchanged))], default=default)
    maybe = StreamFlow("routing", FromTopic("numbers", Maybe), Process(router), IntoTopic("out"), IntoTopic("errors"))
    ran = in_memory(maybe, records(b"{}", b'{"n":2}'))
    assert len(ran.errors[ErrorKind.ROUTING]) == 1
    assert ran.payloads() == [Maybe(2)]


def test_a_selector_may_be_an_expression_and_a_key_is_read_as_bytes() -> None:
    router = Router.by(msg.meta.key, {"k": Process(hundred), b"l": Process(double)}, default=Process(minus))
    items = [KafkaRecord("numbers", key, b'{"n":1}', {}, 0, at) for at, key in enumerate([b"k", b"l", None])]
    assert [p.n for p in in_memory(flow(router), items).payloads()] == [101, 2, -1]


def test_a_key_that_a_step_has_set_to_text_is_read_as_bytes_too() -> None:
    class Rekey(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Message[Number]:
            return message.with_key("k")

    router = Router.by(msg.meta.key, {"k": Process(hundred)}, default=Process(minus))
    assert [p.n for p in in_memory(flow(Rekey, router), numbers(1)).payloads()] == [101]


def test_a_branch_may_hold_any_node_and_order_stays_that_of_the_source() -> None:
    class All(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Number]:
            return [message.payload for message in messages]

    def twice(number: Number) -> list[Number]:
        return [number, Number(number.n * 10)]

    inner = Router.by(odd, {True: Process(Explode(twice))}, default=Process(All))
    ran = in_memory(flow(inner), numbers(1, 2, 3, 4))
    assert [p.n for p in ran.payloads()] == [1, 10, 2, 3, 30, 4]


def test_routers_in_routers_go_on_level_by_level() -> None:
    inner = Router.by(payload.n, {1: Process(hundred)}, default=Process(double), name="inner")
    outer = Router.by(odd, {True: Process(inner, minus)}, default=Process(double))
    assert [p.n for p in in_memory(flow(outer), numbers(1, 2, 3)).payloads()] == [-101, 4, -6]


def test_two_routers_in_one_process_are_told_apart_by_their_names() -> None:
    one = Router.by(odd, {True: Process(double)}, default=Process(hundred), name="one")
    two = Router.by(odd, {False: Process(fails)}, default=Process(double), name="two")
    ran = in_memory(flow(one, two), numbers(1))
    assert [e.step_id for e in ran.errors[ErrorKind.TASK]] == ["routing.two.false.fails"]


def test_a_record_on_one_branch_is_no_child_of_an_expansion_on_another() -> None:
    """The index in a dead letter is that of the record's own expansions."""

    class All(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Number]:
            return [message.payload for message in messages]

    def three(number: Number) -> list[Number]:
        return [number] * 3

    router = Router.by(odd, {True: Process(All)}, default=Process(Explode(three)))
    topics, _ = into_topics(flow(router, fails), numbers(1, 2))
    told = [dict(letter.headers).get("x-error-index") for letter in topics["errors"]]
    assert told == [None, b"0", b"1", b"2"]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_batch_step_on_one_branch_in_front_of_a_collecting_node_does_not_change_the_order(size: int) -> None:
    from loom.streaming import CollectBatch, ForEach

    class All(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Number]:
            return [message.payload for message in messages]

    router = Router.by(odd, {True: Process(All)}, default=Process(double))
    line = flow(router, CollectBatch(2, timeout_ms=60_000), ForEach())
    ran = in_memory(line, numbers(1, 2, 4), config=config_for(consumer={"batch_size": size}))
    assert [p.n for p in ran.payloads()] == [1, 4, 8]


def test_branches_of_several_types_are_labelled_at_an_output_that_names_them_all() -> None:
    @step
    def say(number: Number) -> Word:
        return Word(str(number.n))

    router = Router.by(odd, {True: Process(say)}, default=Process(double))
    line = flow(router, output=IntoTopic("out", payload=Number | Word))  # type: ignore[arg-type]
    topics, _ = into_topics(line, numbers(1, 2))
    labels = [dict(record.headers)["x-message-type"] for record in topics["out"]]
    assert [label.rpartition(b".")[2] for label in labels if label] == [b"Word", b"Number"]


def test_a_step_that_names_every_type_may_stand_behind_branches_of_several() -> None:
    @step
    def say(number: Number) -> Word:
        return Word(str(number.n))

    @step
    def either(given: Number | Word) -> Number:
        return Number(int(given.text)) if isinstance(given, Word) else given

    router = Router.by(odd, {True: Process(say)}, default=Process(double))
    assert [p.n for p in in_memory(flow(router, either), numbers(1, 2)).payloads()] == [1, 4]


def test_branches_that_differ_only_in_tombstones_or_drops_make_one_type() -> None:
    @step
    def gone(number: Number) -> Number | Tombstone:
        return Tombstone() if number.n == 1 else number

    @step
    def never(number: Number) -> None: ...

    router = Router.by(payload.n, {1: Process(gone), 2: Process(never)}, default=Process(double))
    topics, _ = into_topics(flow(router), numbers(1, 2, 3))
    assert [(record.value, record.headers) for record in topics["out"]] == [(None, ()), (b'{"n":6}', ())]


class Split(ExpandStep[Number, Number]):
    def execute(self, message: Message[Number]) -> list[Number]:
        return [Number(n) for n in range(message.payload.n)]


def test_the_children_of_one_record_are_routed_each_for_itself() -> None:
    ran = in_memory(flow(Split, Router.by(odd, {True: Process(hundred)}, default=Process(double))), numbers(3))
    assert [p.n for p in ran.payloads()] == [0, 101, 4]


def test_a_child_that_fails_in_front_of_another_expansion_of_its_branch_is_no_child_of_that_one() -> None:
    def twice(number: Number) -> list[Number]:
        return [number, Number(number.n + 1)]

    @step
    def not_two(number: Number) -> Number:
        if number.n == 2:
            raise ValueError("two")
        return number

    branch = Process(Explode(twice, name="first"), not_two, Explode(twice, name="second"))
    topics, _ = into_topics(flow(Router.by(odd, {True: branch})), numbers(1))
    (letter,) = topics["errors"]
    assert dict(letter.headers)["x-error-index"] == b"1"
