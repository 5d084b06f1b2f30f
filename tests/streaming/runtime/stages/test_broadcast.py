"""Broadcasts: every branch takes every record, and an error in one is no business of the others."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    Broadcast,
    BroadcastRoute,
    Drain,
    ErrorKind,
    ExpandStep,
    Fork,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RecordStep,
    StreamFlow,
    step,
)
from loom.streaming.runtime.run_errors import UnroutedRecordError
from tests.support.running import in_memory, into_topics, numbers, records


class Number(LoomFrozenStruct):
    n: int


@step
def double(number: Number) -> Number:
    return Number(number.n * 2)


@step
def only_even(number: Number) -> Number | None:
    return number if number.n % 2 == 0 else None


@step
def only_even_quarters(number: Number) -> Number | None:
    return number if number.n % 4 == 0 else None


@step
def not_two(number: Number) -> Number:
    if number.n == 2:
        raise ValueError("two")
    return number


def flow(*nodes: Any, errors: Any = IntoTopic("errors")) -> StreamFlow[Any, Any]:  # noqa: B008
    return StreamFlow("spreading", FromTopic("numbers", Number), Process(*nodes), errors=errors)


def both(one: Any, other: Any) -> Broadcast:
    return Broadcast(BroadcastRoute(one, IntoTopic("a")), BroadcastRoute(other, IntoTopic("b")))


def test_every_branch_takes_every_record() -> None:
    spread = Broadcast(
        BroadcastRoute(Process(double), IntoTopic("a")), BroadcastRoute(Process(not_two, IntoTopic("b")))
    )
    ran = in_memory(flow(spread), numbers(1, 3))
    # The output of a route has the path of its branch.
    assert {path: [p.n for p in ran.payloads(path)] for path in ran.terminals} == {(0, 0): [2, 6], (0, 1, 1): [1, 3]}


def test_a_record_is_written_once_per_branch_and_not_a_second_time_at_the_end_of_the_flow() -> None:
    topics, counts = into_topics(flow(both(Process(double), Process(not_two))), numbers(1, 3))
    assert {name: len(found) for name, found in topics.items()} == {"a": 2, "b": 2}
    assert (counts.written, sum(counts.outputs.values())) == (2, 4)


def test_an_error_in_one_branch_leaves_the_others_alone() -> None:
    ran = in_memory(flow(both(Process(not_two), Process(double))), numbers(1, 2, 3))
    assert ([p.n for p in ran.payloads((0, 0))], [p.n for p in ran.payloads((0, 1))]) == ([1, 3], [2, 4, 6])
    assert ran.counts.failed == {ErrorKind.TASK: 1}
    assert (ran.counts.written, ran.counts.accounted) == (2, 3)


def test_an_error_that_nothing_routes_ends_the_run_though_another_branch_went_well() -> None:
    with pytest.raises(UnroutedRecordError, match=r"spreading\.b\.not_two"):
        into_topics(flow(both(Process(double), Process(not_two)), errors=None), numbers(2))


def test_a_record_dropped_by_every_branch_is_one_that_was_dropped() -> None:
    ran = in_memory(flow(both(Process(only_even), Process(double, only_even_quarters))), numbers(1))
    assert (ran.counts.dropped, ran.counts.written) == (1, 0)


def test_a_branch_may_drain_what_it_takes() -> None:
    spread = Broadcast(
        BroadcastRoute(Process(Drain()), name="nowhere"), BroadcastRoute(Process(double), IntoTopic("a"))
    )
    ran = in_memory(flow(spread), numbers(1, 2))
    assert ran.counts.drops == {"spreading.nowhere.drain": 2}
    assert ran.counts.written == 2


def test_each_branch_has_the_message_as_it_came_whatever_the_others_make_of_it() -> None:
    class Rekey(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Message[Number]:
            return message.with_key(b"new").with_headers(a=b"1")

    topics, _ = into_topics(flow(both(Process(Rekey), Process(double))), records(b'{"n":1}', key=b"old"))
    assert [(record.key, record.headers) for record in topics["a"]] == [(b"new", (("a", b"1"),))]
    assert [(record.key, record.headers) for record in topics["b"]] == [(b"old", ())]


def test_the_branches_share_the_payload() -> None:
    seen: list[int] = []

    class Look(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Number:
            seen.append(id(message.payload))
            return message.payload

    in_memory(flow(both(Process(Look), Process(Look))), numbers(1))
    assert len(set(seen)) == 1
    assert len(seen) == 2


class Gathered(BatchStep[Number, Number]):
    def execute(self, messages: list[Message[Number]]) -> list[Number]:
        return [message.payload for message in messages]


def test_one_topic_of_several_branches_gets_them_in_the_order_of_the_branches_record_by_record() -> None:
    spread = Broadcast(
        BroadcastRoute(Process(Gathered, IntoTopic("a")), name="first"),
        BroadcastRoute(Process(double, IntoTopic("a")), name="second"),
    )
    topics, _ = into_topics(flow(spread), numbers(1, 2))
    assert [record.value for record in topics["a"]] == [b'{"n":1}', b'{"n":2}', b'{"n":2}', b'{"n":4}']


def test_a_branch_is_no_child_but_the_children_of_an_expansion_are_told() -> None:
    class Twice(ExpandStep[Number, Number]):
        def execute(self, message: Message[Number]) -> list[Number]:
            return [Number(1), Number(2)]

    topics, _ = into_topics(flow(Twice, both(Process(double), Process(not_two))), numbers(7))
    (letter,) = topics["errors"]
    assert dict(letter.headers)["x-error-index"] == b"1"
    assert dict(letter.headers)["x-error-step"] == b"spreading.b.not_two"
    assert dict(letter.headers)["x-error-path"] == b"1.1.0"


def test_a_broadcast_inside_a_fork_and_a_fork_inside_a_broadcast() -> None:
    def odd(number: Number) -> bool:
        return number.n % 2 == 1

    inner = Fork.by(odd, {True: Process(IntoTopic("odd"))}, default=Process(IntoTopic("even")))
    spread = Broadcast(BroadcastRoute(Process(inner), name="sorted"), BroadcastRoute(Process(IntoTopic("all"))))
    outer = Fork.by(lambda number: number.n < 3, {True: Process(spread)}, default=Process(Drain()))
    topics, counts = into_topics(flow(outer), numbers(1, 2, 3))
    assert {name: len(found) for name, found in topics.items()} == {"odd": 1, "even": 1, "all": 2}
    assert (counts.written, counts.dropped) == (2, 1)
