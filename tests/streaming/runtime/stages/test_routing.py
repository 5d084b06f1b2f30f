"""Forks: one branch takes each record, and what none takes is an error of that record alone."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    ErrorKind,
    ExpandStep,
    Fork,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RecordStep,
    StreamFlow,
    Tombstone,
    step,
)
from loom.streaming.kafka import KafkaRecord
from tests.support.running import in_memory, numbers, records


class Number(LoomFrozenStruct):
    n: int


@step
def double(number: Number) -> Number:
    return Number(number.n * 2)


def flow(*nodes: Any) -> StreamFlow[Any, Any]:
    return StreamFlow("sorting", FromTopic("numbers", Number), Process(*nodes))


def third(number: Number) -> int:
    return number.n % 3


def test_the_branch_of_the_selected_key_takes_a_record_and_no_other_does() -> None:
    fork = Fork.by(
        third, {0: Process(IntoTopic("a")), 1: Process(double, IntoTopic("b"))}, default=Process(IntoTopic("c"))
    )
    ran = in_memory(flow(fork), numbers(*range(6)))
    assert {path: [p.n for p in ran.payloads(path)] for path in ran.terminals} == {
        (0, 0, 0): [0, 3],
        (0, 1, 1): [2, 8],
        (0, 2, 0): [2, 5],
    }
    assert (ran.counts.read, ran.counts.written) == (6, 6)


def test_a_key_without_a_branch_is_a_routing_error_where_there_is_no_default() -> None:
    ran = in_memory(flow(Fork.by(third, {0: Process(IntoTopic("a"))})), numbers(*range(4)))
    assert [p.n for p in ran.payloads((0, 0, 0))] == [0, 3]
    assert ran.reasons(ErrorKind.ROUTING) == ["no branch for 1 and no default", "no branch for 2 and no default"]


def raises(number: Number) -> int:
    if number.n == 1:
        raise ValueError("cannot tell")
    return 0


def unhashable(number: Number) -> Any:
    return [] if number.n == 1 else 0


def refuses(number: Number) -> int:
    from loom.core.errors import RuleViolation

    if number.n == 1:
        raise RuleViolation("not mine")
    return 0


@pytest.mark.parametrize("default", [None, Process(IntoTopic("rest"))], ids=["no-default", "default"])
@pytest.mark.parametrize("selector", [raises, unhashable, refuses])
def test_a_selector_that_fails_is_a_routing_error_even_with_a_default(selector: Any, default: Process | None) -> None:
    ran = in_memory(flow(Fork.by(selector, {0: Process(IntoTopic("a"))}, default=default)), numbers(0, 1, 2))
    assert [p.n for p in ran.payloads((0, 0, 0))] == [0, 2]
    assert ran.counts.failed == {ErrorKind.ROUTING: 1}
    (envelope,) = ran.errors[ErrorKind.ROUTING]
    assert envelope.original_message is not None
    assert envelope.original_message.payload == Number(1)


def by_key(message: Message[Number]) -> bytes | None:
    return message.meta.key if isinstance(message.meta.key, bytes) else None


class ByKey:
    def select(self, message: Message[Number]) -> Any:
        return message.meta.key


@pytest.mark.parametrize("selector", [by_key, ByKey()], ids=["function", "object"])
def test_a_selector_may_ask_for_the_message(selector: Any) -> None:
    items = [KafkaRecord("numbers", key, b'{"n":1}', {}, 0, at) for at, key in enumerate([b"x", b"y", b"x"])]
    fork = Fork.by(selector, {b"x": Process(IntoTopic("xs"))}, default=Process(IntoTopic("rest")))
    ran = in_memory(flow(fork), items)
    assert [len(ran.terminals[path]) for path in ((0, 0, 0), (0, 1, 0))] == [2, 1]


def test_a_selector_sees_what_the_steps_before_it_have_made() -> None:
    class Rekey(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Message[Number]:
            return message.with_key(b"new")

    ran = in_memory(flow(Rekey, Fork.by(ByKey(), {b"new": Process(IntoTopic("a"))})), numbers(1))
    assert len(ran.terminals[(1, 0, 0)]) == 1


def test_a_none_key_may_name_a_branch() -> None:
    ran = in_memory(flow(Fork.by(ByKey(), {None: Process(IntoTopic("keyless"))})), numbers(1))
    assert len(ran.terminals[(0, 0, 0)]) == 1


def test_a_tombstone_takes_the_default_where_the_selector_does_not_name_it() -> None:
    fork = Fork.by(third, {0: Process(IntoTopic("a"))}, default=Process(double, IntoTopic("rest")))
    ran = in_memory(flow(fork), records(None, b'{"n":0}'))
    assert (ran.payloads((0, 0, 0)), ran.payloads((0, 1, 1))) == ([Number(0)], [Tombstone()])


def test_a_tombstone_without_a_default_is_a_routing_error() -> None:
    ran = in_memory(flow(Fork.by(third, {0: Process(IntoTopic("a"))})), records(None, b'{"n":0}'))
    (envelope,) = ran.errors[ErrorKind.ROUTING]
    assert "tombstone" in envelope.reason
    assert envelope.payload_type == "loom.streaming.message.Tombstone"


def or_gone(number: Number | Tombstone) -> str:
    return "gone" if isinstance(number, Tombstone) else "there"


@pytest.mark.parametrize("selector", [or_gone, ByKey()], ids=["names-it", "takes-messages"])
def test_a_tombstone_reaches_a_selector_that_can_take_it_and_passes_the_steps_of_its_branch(selector: Any) -> None:
    there, gone = (b"there", b"gone") if isinstance(selector, ByKey) else ("there", "gone")
    fork = Fork.by(selector, {there: Process(IntoTopic("there")), gone: Process(double, IntoTopic("gone"))})
    items = [KafkaRecord("numbers", b"there", b'{"n":1}', {}, 0, 0), KafkaRecord("numbers", b"gone", None, {}, 0, 1)]
    ran = in_memory(flow(fork), items)
    assert (ran.payloads((0, 0, 0)), ran.payloads((0, 1, 1))) == ([Number(1)], [Tombstone()])


def test_the_children_of_an_expansion_may_part_ways() -> None:
    class UpTo(ExpandStep[Number, Number]):
        def execute(self, message: Message[Number]) -> list[Number]:
            return [Number(n) for n in range(message.payload.n)]

    fork = Fork.by(third, {0: Process(IntoTopic("a")), 1: Process(IntoTopic("b"))})
    ran = in_memory(flow(UpTo, fork), numbers(3, 2))
    assert ([p.n for p in ran.payloads((1, 0, 0))], [p.n for p in ran.payloads((1, 1, 0))]) == ([0, 0], [1, 1])
    assert (ran.counts.written, ran.counts.failed) == (1, {ErrorKind.ROUTING: 1})


def test_a_string_key_is_not_a_bytes_key() -> None:
    fork = Fork.by(ByKey(), {"x": Process(IntoTopic("text"))}, default=Process(IntoTopic("rest")))
    ran = in_memory(flow(fork), [KafkaRecord("numbers", b"x", b'{"n":1}', {}, 0, 0)])
    # The compiler encodes literals in expressions only; a mapping's keys are what the author wrote.
    assert [len(taken) for taken in ran.terminals.values()] == [0, 1]
