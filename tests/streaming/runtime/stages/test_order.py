"""Records of one source partition leave each output in source order, whichever way each of them took."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    ErrorKind,
    ExpandStep,
    Fork,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    StreamFlow,
    step,
)
from tests.support.running import Written, config_for, in_memory, into_topics, numbers


class Number(LoomFrozenStruct):
    n: int


class Gathered(BatchStep[Number, Number]):
    """Takes everything a batch has, while other records overtake it."""

    def execute(self, messages: list[Message[Number]]) -> list[Any]:
        return [ValueError("seven") if m.payload.n % 10 == 7 else m.payload for m in messages]


class Again(Gathered):
    pass


@step
def same(number: Number) -> Number:
    return number


@step
def not_eight(number: Number) -> Number:
    if number.n % 10 == 8:
        raise ValueError("eight")
    return number


class Thrice(ExpandStep[Number, Number]):
    def execute(self, message: Message[Number]) -> list[Number]:
        return [Number(message.payload.n * 10 + index) for index in range(3)]


def flow(*nodes: Any, errors: Any = IntoTopic("errors")) -> StreamFlow[Any, Any]:  # noqa: B008
    return StreamFlow("ordering", FromTopic("numbers", Number), Process(*nodes), errors=errors)


def values(topic: list[Written]) -> list[int]:
    return [int(str(record.value).strip("b'{}\\n").partition(":")[2]) for record in topic]


def odd(number: Number) -> bool:
    return number.n % 2 == 1


TOGETHER = pytest.mark.parametrize("size", [1, 2, 7, 1000])


@TOGETHER
def test_a_batch_step_in_one_branch_does_not_change_the_order_of_a_topic_of_both(size: int) -> None:
    fork = Fork.by(odd, {True: Process(Gathered, IntoTopic("out")), False: Process(same, IntoTopic("out"))})
    topics, _ = into_topics(flow(fork), numbers(*range(20)), config=config_for(consumer={"batch_size": size}))
    assert values(topics["out"]) == [n for n in range(20) if n not in (7, 17)]
    assert values(topics["errors"]) == [7, 17]


@TOGETHER
def test_a_batch_step_in_one_branch_does_not_change_the_order_of_the_errors_of_both(size: int) -> None:
    fork = Fork.by(odd, {True: Process(Gathered, IntoTopic("odd")), False: Process(not_eight, IntoTopic("even"))})
    topics, _ = into_topics(flow(fork), numbers(*range(20)), config=config_for(consumer={"batch_size": size}))
    assert values(topics["errors"]) == [7, 8, 17, 18]


@TOGETHER
def test_two_batch_steps_in_two_branches_keep_the_order(size: int) -> None:
    fork = Fork.by(odd, {True: Process(Gathered, IntoTopic("out")), False: Process(Again, IntoTopic("out"))})
    topics, _ = into_topics(flow(fork), numbers(*range(6)), config=config_for(consumer={"batch_size": size}))
    assert values(topics["out"]) == list(range(6))


@TOGETHER
def test_tombstones_keep_their_place_among_records_that_wait_for_a_batch_step(size: int) -> None:
    from tests.support.running import records

    line = StreamFlow("ordering", FromTopic("numbers", Number), Process(Gathered), IntoTopic("out"))
    items = records(b'{"n":1}', None, b'{"n":2}', None)
    topics, _ = into_topics(line, items, config=config_for(consumer={"batch_size": size}))
    assert [record.value for record in topics["out"]] == [b'{"n":1}', None, b'{"n":2}', None]


@TOGETHER
def test_the_children_of_one_record_keep_their_order_though_some_wait_for_a_batch_step(size: int) -> None:
    fork = Fork.by(odd, {True: Process(Gathered, IntoTopic("out")), False: Process(same, IntoTopic("out"))})
    topics, _ = into_topics(flow(Thrice, fork), numbers(1, 2, 3), config=config_for(consumer={"batch_size": size}))
    assert values(topics["out"]) == [10, 11, 12, 20, 21, 22, 30, 31, 32]


@TOGETHER
def test_children_of_children_keep_their_order_though_some_wait_for_a_batch_step(size: int) -> None:
    class Twice(ExpandStep[Number, Number]):
        def execute(self, message: Message[Number]) -> list[Number]:
            return [Number(message.payload.n * 10 + index) for index in range(2)]

    fork = Fork.by(odd, {True: Process(Gathered, IntoTopic("out")), False: Process(same, IntoTopic("out"))})
    inner = Fork.by(odd, {True: Process(Again, Twice, fork), False: Process(same, IntoTopic("out"))})
    topics, _ = into_topics(flow(Thrice, inner), numbers(1, 2), config=config_for(consumer={"batch_size": size}))
    assert values(topics["out"]) == [10, 110, 111, 12, 20, 210, 211, 22]


@TOGETHER
def test_sinks_get_their_records_in_the_same_order(size: int) -> None:
    line = StreamFlow("ordering", FromTopic("numbers", Number), Process(not_eight, Gathered), IntoTopic("out"))
    ran = in_memory(line, numbers(*range(20)), config=config_for(consumer={"batch_size": size}))
    assert [p.n for p in ran.payloads()] == [n for n in range(20) if n % 10 not in (7, 8)]
    assert [e.source.offset for e in ran.errors[ErrorKind.TASK] if e.source] == [7, 8, 17, 18]
