"""`Explode` and `ExpandRoutes`: expansions that need no step class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    CollectBatch,
    ErrorKind,
    Explode,
    ForEach,
    FromTopic,
    IntoTopic,
    Message,
    MessageMeta,
    Process,
    Router,
    StreamFlow,
    Tombstone,
    step,
)
from tests.support.running import in_memory, into_topics, numbers, records


class Number(LoomFrozenStruct):
    n: int


def up_to(number: Number) -> Iterator[Number]:
    for n in range(number.n):
        if n == 3:
            raise ValueError("three")
        yield Number(n)


@step
def double(number: Number) -> Number:
    if number.n == 1:
        raise RuleViolation("one")
    return Number(number.n * 2)


def flow(*nodes: Any) -> StreamFlow[Any, Any]:
    return StreamFlow("exploding", FromTopic("numbers", Number), Process(*nodes), IntoTopic("out"), IntoTopic("errors"))


def test_a_payload_becomes_many_in_order_and_the_next_node_takes_each() -> None:
    ran = in_memory(flow(Explode(up_to), double), numbers(3, 1))
    assert [p.n for p in ran.payloads()] == [0, 4, 0]


def test_a_for_each_behind_an_expansion_changes_nothing() -> None:
    ran = in_memory(flow(Explode(up_to), ForEach(), double), numbers(3, 1))
    assert [p.n for p in ran.payloads()] == [0, 4, 0]


def test_an_exploder_that_raises_part_way_emits_nothing_of_its_record() -> None:
    ran = in_memory(flow(Explode(up_to)), numbers(4, 2))
    assert [p.n for p in ran.payloads()] == [0, 1]
    (envelope,) = ran.errors[ErrorKind.TASK]
    assert (envelope.step_id, envelope.path, envelope.reason) == ("exploding.explode", (0,), "three")


def test_an_explosion_to_nothing_is_a_record_dropped() -> None:
    ran = in_memory(flow(Explode(up_to)), numbers(0))
    assert (ran.counts.dropped, ran.counts.accounted) == (1, 1)


def test_one_failing_child_is_told_by_its_index_and_fails_its_input_once() -> None:
    topics, counts = into_topics(flow(Explode(up_to), double), numbers(3))
    assert [dict(letter.headers)["x-error-index"] for letter in topics["errors"]] == [b"1"]
    assert counts.failed == {ErrorKind.BUSINESS: 1}
    assert len(topics["out"]) == 2


def test_a_child_may_be_a_whole_message_a_tombstone_but_not_none() -> None:
    def three(number: Number) -> list[Any]:
        return [Message(Number(7), MessageMeta("m", key=b"mine")), Tombstone(), None]

    topics, _ = into_topics(flow(Explode(three)), records(b'{"n":1}', key=b"k"))
    assert [(record.key, record.value) for record in topics["out"]] == [(b"mine", b'{"n":7}'), (b"k", None)]
    (letter,) = topics["errors"]
    assert dict(letter.headers)["x-error-index"] == b"2"


@pytest.mark.parametrize("size", [1, 2, 5])
def test_children_that_fill_a_batch_leave_their_siblings_what_they_are(size: int) -> None:
    """A batch that is full is worked on in the middle of an expansion, which then goes on where it was."""

    class All(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Any]:
            return [ValueError("even") if message.payload.n % 2 == 0 else message.payload for message in messages]

    def twice(number: Number) -> list[Number]:
        return [number, Number(number.n + 10)]

    collected = CollectBatch(size, timeout_ms=60_000)
    line = flow(Explode(up_to, name="outer"), Explode(twice, name="inner"), collected, All, ForEach())
    topics, _ = into_topics(line, numbers(3, 2))
    told = [
        (dict(letter.headers)["x-error-offset"], dict(letter.headers)["x-error-index"]) for letter in topics["errors"]
    ]
    even = [(b"0", b"0.0"), (b"0", b"0.1"), (b"0", b"2.0"), (b"0", b"2.1"), (b"1", b"0.0"), (b"1", b"0.1")]
    assert told == even
    assert [record.value for record in topics["out"]] == [b'{"n":1}', b'{"n":11}'] * 2


def test_an_explode_in_front_of_a_router_routes_each_child() -> None:
    router = Router.by(lambda number: number.n, {2: Process(double)}, default=Process(Explode(up_to, name="again")))
    ran = in_memory(flow(Explode(up_to), router), numbers(3))
    assert [p.n for p in ran.payloads()] == [0, 4]


def test_a_tombstone_reaches_an_exploder_that_names_it() -> None:
    def either(given: Number | Tombstone) -> list[Number]:
        return [Number(0)] if isinstance(given, Tombstone) else [given, given]

    ran = in_memory(flow(Explode(either)), records(None, b'{"n":1}'))
    assert [p.n for p in ran.payloads()] == [0, 1, 1]
