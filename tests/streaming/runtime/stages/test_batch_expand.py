"""`BatchExpandStep`: a batch in, any number of results for each of its records out; they are one batch again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchExpandStep,
    BatchStep,
    CollectBatch,
    ErrorKind,
    ForEach,
    FromTopic,
    IntoTopic,
    Message,
    MessageMeta,
    Process,
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
        yield Number(number.n * 10 + n)


class Expand(BatchExpandStep[Number, Number]):
    def execute(self, messages: list[Message[Number]]) -> list[Any]:
        return [up_to(message.payload) for message in messages]


def flow(*nodes: Any) -> StreamFlow[Any, Any]:
    inside = (CollectBatch(10, timeout_ms=60_000), *nodes, ForEach())
    return StreamFlow(
        "expanding", FromTopic("numbers", Number), Process(*inside), IntoTopic("out"), IntoTopic("errors")
    )


def test_each_record_becomes_any_number_in_order() -> None:
    ran = in_memory(flow(Expand), numbers(2, 0, 3))
    assert [p.n for p in ran.payloads()] == [20, 21, 30, 31, 32]
    assert (ran.counts.written, ran.counts.dropped) == (2, 1)


def test_the_results_are_one_batch_for_the_next_step() -> None:
    sizes: list[int] = []

    class Sized(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Number]:
            sizes.append(len(messages))
            return [message.payload for message in messages]

    in_memory(flow(Expand, Sized), numbers(2, 3))
    assert sizes == [5]


def test_an_entry_that_raises_part_way_fails_its_item_alone_and_emits_nothing_of_it() -> None:
    ran = in_memory(flow(Expand), numbers(1, 4, 2))
    assert [p.n for p in ran.payloads()] == [10, 20, 21]
    (envelope,) = ran.errors[ErrorKind.TASK]
    assert (envelope.reason, envelope.step_id, envelope.path) == ("three", "expanding.expand", (1,))
    assert envelope.source is not None
    assert envelope.source.offset == 1


def test_an_exception_entry_fails_its_item_alone_with_the_kind_it_has() -> None:
    class Some(BatchExpandStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Any]:
            return [RuleViolation("one") if m.payload.n == 1 else [m.payload] for m in messages]

    ran = in_memory(flow(Some), numbers(0, 1, 2))
    assert [p.n for p in ran.payloads()] == [0, 2]
    assert ran.reasons(ErrorKind.BUSINESS) == ["one"]


@pytest.mark.parametrize("result", [None, [], [[]], 7, "raise"])
def test_a_batch_of_the_wrong_length_or_that_raises_gives_every_item_an_envelope_of_its_own(result: Any) -> None:
    calls: list[int] = []

    class Wrong(BatchExpandStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Iterable[Number]]:
            calls.append(len(messages))
            if result == "raise":
                raise ValueError("no")
            return result  # type: ignore[no-any-return]

    ran = in_memory(flow(Wrong), numbers(1, 2, 3))
    assert [e.source.offset for e in ran.errors[ErrorKind.TASK] if e.source] == [0, 1, 2]
    # Nothing is run twice.
    assert calls == [3]


def test_an_entry_that_is_not_iterable_fails_its_item_alone() -> None:
    class Odd(BatchExpandStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Any]:
            return [7 if m.payload.n == 1 else [m.payload] for m in messages]

    ran = in_memory(flow(Odd), numbers(0, 1))
    assert ([p.n for p in ran.payloads()], len(ran.errors[ErrorKind.TASK])) == ([0], 1)


def test_a_result_may_be_a_message_a_tombstone_or_where_it_is_annotated_none() -> None:
    class Many(BatchExpandStep[Number, Number | Tombstone | None]):
        def execute(self, messages: list[Message[Number]]) -> list[Any]:
            made = Message(Number(7), MessageMeta("m", key=b"mine"))
            return [[made, Tombstone(), None] for _ in messages]

    topics, counts = into_topics(flow(Many), records(b'{"n":1}', key=b"k"))
    assert [(record.key, record.value) for record in topics["out"]] == [(b"mine", b'{"n":7}'), (b"k", None)]
    assert counts.drops == {"expanding.many": 1}


def test_none_is_a_task_error_of_the_child_where_it_is_not_annotated() -> None:
    class Gap(BatchExpandStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Any]:
            return [[m.payload, None] for m in messages]

    topics, _ = into_topics(flow(Gap), numbers(1))
    (letter,) = topics["errors"]
    assert dict(letter.headers)["x-error-index"] == b"1"


def test_a_failing_step_behind_it_tells_which_child_it_was() -> None:
    @step
    def not_21(number: Number) -> Number:
        if number.n == 21:
            raise ValueError("no")
        return number

    inside = (CollectBatch(10, timeout_ms=60_000), Expand, ForEach(), not_21)
    line = StreamFlow(
        "expanding", FromTopic("numbers", Number), Process(*inside), IntoTopic("out"), IntoTopic("errors")
    )
    topics, _ = into_topics(line, numbers(1, 2))
    (letter,) = topics["errors"]
    told = dict(letter.headers)
    assert (told["x-error-offset"], told["x-error-index"]) == (b"1", b"1")


def test_a_tombstone_keeps_its_place_and_is_not_asked_about() -> None:
    topics, _ = into_topics(flow(Expand), records(b'{"n":1}', None, b'{"n":2}'))
    assert [record.value for record in topics["out"]] == [b'{"n":10}', None, b'{"n":20}', b'{"n":21}']


def test_a_tombstone_reaches_a_step_that_names_it() -> None:
    class Sees(BatchExpandStep[Number | Tombstone, Number]):
        def execute(self, messages: list[Message[Number | Tombstone]]) -> list[Any]:
            return [[Number(0)] if isinstance(m.payload, Tombstone) else [m.payload] for m in messages]

    ran = in_memory(flow(Sees), records(None, b'{"n":1}'))
    assert [p.n for p in ran.payloads()] == [0, 1]
