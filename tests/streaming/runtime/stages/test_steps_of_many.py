"""Steps that make or take many records: expansions, and batches that go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from loom.core.errors import RuleViolation
from loom.streaming import (
    BatchStep,
    ErrorKind,
    ExpandStep,
    Message,
)
from tests.streaming.runtime.stages.doubling import (
    Number,
    flow,
    function,
    run,
)
from tests.support.running import in_memory, numbers

# ---- expansions


class Digits(ExpandStep[Number, Number]):
    def execute(self, message: Message[Number]) -> Iterator[Number]:
        for digit in str(message.payload.n):
            if digit == "9":
                raise ValueError("nine")
            yield Number(int(digit))


def test_an_expansion_emits_its_results_in_order() -> None:
    ran = run(Digits, numbers(123, 4, 56))
    assert ran.payloads() == [Number(n) for n in (1, 2, 3, 4, 5, 6)]
    assert (ran.counts.read, ran.counts.written, ran.counts.outputs) == (3, 3, {"output": 6})


def test_an_expansion_that_raises_part_way_emits_nothing_of_its_record() -> None:
    ran = run(Digits, numbers(12, 394, 5))
    assert ran.payloads() == [Number(1), Number(2), Number(5)]
    (envelope,) = ran.errors[ErrorKind.TASK]
    assert envelope.reason == "nine"
    assert envelope.source is not None
    assert envelope.source.value == b'{"n":394}'


def test_an_expansion_to_nothing_is_a_record_dropped() -> None:
    class Nothing(ExpandStep[Number, Number]):
        def execute(self, message: Message[Number]) -> list[Number]:
            return []

    ran = run(Nothing, numbers(1, 2))
    assert (ran.output, ran.counts.read, ran.counts.dropped) == ([], 2, 2)


@pytest.mark.parametrize("result", [None, 7], ids=["none", "number"])
def test_an_expansion_that_is_not_iterable_is_a_task_error(result: Any) -> None:
    class Odd(ExpandStep[Number, Number]):
        def execute(self, message: Message[Number]) -> list[Number]:
            return result  # type: ignore[no-any-return]

    ran = run(Odd, numbers(1))
    assert ["not iterable" in reason for reason in ran.reasons(ErrorKind.TASK)] == [True]


def test_expansions_of_expansions_keep_their_order() -> None:
    class Twice(ExpandStep[Number, Number]):
        def execute(self, message: Message[Number]) -> list[Number]:
            return [message.payload, message.payload]

    assert [p.n for p in in_memory(flow(Digits, Twice), numbers(12, 3)).payloads()] == [1, 1, 2, 2, 3, 3]


def test_one_failing_child_leaves_the_others_and_fails_its_input_once() -> None:
    ran = in_memory(flow(Digits, function), numbers(102, 30, 4))
    assert [p.n for p in ran.payloads()] == [2, 4, 6, 8]
    assert ran.reasons(ErrorKind.BUSINESS) == ["zero", "zero"]
    assert (ran.counts.read, ran.counts.written, ran.counts.failed) == (3, 1, {ErrorKind.BUSINESS: 2})


# ---- batches that go wrong


class Fragile(BatchStep[Number, Number]):
    """Fails as a whole when a 0 is among them; loses an entry when a 1 is."""

    def execute(self, messages: list[Message[Number]]) -> list[Number]:
        found = [message.payload for message in messages]
        if Number(0) in found:
            raise RuleViolation("a zero among them")
        return found[1:] if Number(1) in found else found


def test_a_batch_that_raises_gives_every_item_an_envelope_of_its_own() -> None:
    ran = run(Fragile, numbers(5, 0, 6))
    assert ran.output == []
    envelopes = ran.errors[ErrorKind.BUSINESS]
    assert [envelope.reason for envelope in envelopes] == ["a zero among them"] * 3
    assert [e.original_message.payload for e in envelopes if e.original_message] == [Number(5), Number(0), Number(6)]
    assert [e.source.offset for e in envelopes if e.source] == [0, 1, 2]


def test_a_batch_of_the_wrong_length_gives_every_item_an_envelope_of_its_own() -> None:
    ran = run(Fragile, numbers(5, 1))
    assert ran.output == []
    assert ran.reasons(ErrorKind.TASK) == ["fragile returned 1 entries for 2 messages"] * 2


@pytest.mark.parametrize("result", [None, 7, {}], ids=["none", "number", "empty"])
def test_a_batch_that_returns_no_list_fails_its_items(result: Any) -> None:
    class Odd(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Number]:
            return result  # type: ignore[no-any-return]

    assert len(run(Odd, numbers(1, 2)).errors[ErrorKind.TASK]) == 2


def test_a_failing_batch_is_run_once() -> None:
    calls = []

    class Failing(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Number]:
            calls.append(len(messages))
            raise ValueError("no")

    run(Failing, numbers(1, 2, 3))
    assert calls == [3]


def test_a_batch_that_fails_leaves_the_next_one_alone() -> None:
    ran = run(Fragile, numbers(5, 0, 6, 7), consumer={"batch_size": 2})
    assert ran.payloads() == [Number(6), Number(7)]
    assert len(ran.errors[ErrorKind.BUSINESS]) == 2


def test_an_exception_entry_fails_its_item_alone_with_the_kind_it_has() -> None:
    class Sorting(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Any]:
            return [[Number(9), RuleViolation("rule"), ValueError("task")][m.payload.n] for m in messages]

    ran = run(Sorting, numbers(0, 1, 2, 0))
    assert ran.payloads() == [Number(9), Number(9)]
    assert (ran.reasons(ErrorKind.BUSINESS), ran.reasons(ErrorKind.TASK)) == (["rule"], ["task"])
