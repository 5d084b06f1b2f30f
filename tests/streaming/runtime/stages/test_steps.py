"""Steps of every kind: what they are handed, what their results become, and what becomes of a record they do not take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from loom.streaming import (
    BatchStep,
    ErrorKind,
    ExpandStep,
    Message,
    MessageMeta,
    RecordStep,
    Tombstone,
    step,
)
from loom.streaming.kafka import KafkaRecord
from tests.streaming.runtime.stages.doubling import (
    IN_BATCHES_OF,
    KINDS,
    Negative,
    Number,
    Text,
    flow,
    function,
    run,
)
from tests.support.running import in_memory, numbers, records


@KINDS
@IN_BATCHES_OF
def test_a_step_of_any_kind_maps_records_and_one_failure_leaves_its_neighbours_alone(node: Any, size: int) -> None:
    ran = run(node, numbers(1, 0, 2, -1, 3), consumer={"batch_size": size})
    assert ran.payloads() == [Number(2), Number(4), Number(6)]
    assert ran.reasons(ErrorKind.BUSINESS) == ["zero"]
    assert ran.reasons(ErrorKind.TASK) == ["negative"]
    assert (ran.counts.read, ran.counts.written, ran.counts.accounted) == (5, 3, 5)


@KINDS
def test_metadata_survives_every_kind_of_step(node: Any) -> None:
    headers = {"traceparent": b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", "mine": b"1", "x-correlation-id": b"c"}
    ran = run(node, [KafkaRecord("numbers", b"k", b'{"n":1}', headers, 2, 17, 5_000)])
    (message,) = ran.output
    assert message.meta == MessageMeta(
        "numbers:2:17",
        correlation_id="c",
        trace_id="a" * 32,
        parent_trace_id="b" * 16,
        produced_at_ms=5_000,
        topic="numbers",
        partition=2,
        offset=17,
        key=b"k",
        headers=headers,
    )


@KINDS
def test_metadata_of_a_message_survives_every_kind_of_step(node: Any) -> None:
    meta = MessageMeta("mine", trace_id="t", causation_id="z", key="text", headers={"a": b"1"})
    (message,) = run(node, [Message(Number(1), meta)]).output
    assert message == Message(Number(2), meta)


def test_a_function_is_handed_the_payload_and_a_class_the_message() -> None:
    seen: list[Any] = []

    @step
    def look(number: Number) -> Number:
        seen.append(number)
        return number

    class LookAgain(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Number:
            seen.append(message)
            return message.payload

    in_memory(flow(look, LookAgain), numbers(4))
    payload, message = seen
    assert payload == Number(4)
    assert isinstance(message, Message)
    assert (message.payload, message.meta.message_id, message.meta.offset) == (Number(4), "numbers:0:0", 0)
    assert message == Message(Number(4), message.meta)


def test_a_batch_step_on_records_is_handed_the_engines_batch() -> None:
    sizes = []

    class Measure(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Number]:
            sizes.append(len(messages))
            return [message.payload for message in messages]

    ran = run(Measure, numbers(*range(7)), consumer={"batch_size": 3})
    assert sizes == [3, 3, 1]
    assert ran.payloads() == [Number(n) for n in range(7)]


def test_a_batch_step_is_not_called_without_records() -> None:
    class Never(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Number]:
            assert messages
            return [message.payload for message in messages]

    assert run(Never, records(b"{", None)).payloads() == [Tombstone()]


# ---- None


@step
def even_only(number: Number) -> Number | None:
    return number if number.n % 2 == 0 else None


@step
def forgetful(number: Number) -> Number:
    return number if number.n % 2 == 0 else None  # type: ignore[return-value]


class EvenOnly(RecordStep[Number, Number | None]):
    def execute(self, message: Message[Number]) -> Number | None:
        return even_only(message.payload)


class Forgetful(RecordStep[Number, Number]):
    def execute(self, message: Message[Number]) -> Number:
        return forgetful(message.payload)


class EvenOnlyExpand(ExpandStep[Number, Number | None]):
    def execute(self, message: Message[Number]) -> Iterable[Number | None]:
        return [even_only(message.payload)]


class ForgetfulExpand(ExpandStep[Number, Number]):
    def execute(self, message: Message[Number]) -> Iterable[Number]:
        return [forgetful(message.payload)]


class EvenOnlyBatch(BatchStep[Number, Number | None]):
    def execute(self, messages: list[Message[Number]]) -> list[Number | None]:
        return [even_only(message.payload) for message in messages]


class ForgetfulBatch(BatchStep[Number, Number]):
    def execute(self, messages: list[Message[Number]]) -> list[Number]:
        return [forgetful(message.payload) for message in messages]


@pytest.mark.parametrize("node", [even_only, EvenOnly, EvenOnlyExpand, EvenOnlyBatch])
def test_none_drops_the_record_where_it_is_annotated_and_is_counted_under_the_step(node: Any) -> None:
    ran = run(node, numbers(1, 2, 3, 4))
    assert ran.payloads() == [Number(2), Number(4)]
    assert list(ran.counts.drops.values()) == [2]
    assert next(iter(ran.counts.drops)).startswith("steps.even_only")
    assert (ran.counts.written, ran.counts.dropped, ran.counts.failed) == (2, 2, {})


@pytest.mark.parametrize("node", [forgetful, Forgetful, ForgetfulExpand, ForgetfulBatch])
def test_none_is_a_task_error_where_it_is_not_annotated(node: Any) -> None:
    ran = run(node, numbers(1, 2, 3, 4))
    assert ran.payloads() == [Number(2), Number(4)]
    assert ["returned None" in reason for reason in ran.reasons(ErrorKind.TASK)] == [True, True]
    assert (ran.counts.written, ran.counts.dropped, ran.counts.failed) == (2, 0, {ErrorKind.TASK: 2})


def test_a_step_annotated_to_return_nothing_drops_everything() -> None:
    seen = []

    @step
    def look(number: Number) -> None:
        seen.append(number.n)

    ran = run(look, numbers(1, 2))
    assert (seen, ran.output, ran.counts.dropped) == ([1, 2], [], 2)


# ---- results that are not just a payload of the declared class


@pytest.mark.parametrize("kind", ["function", "record", "expand", "batch"])
def test_a_whole_message_replaces_payload_key_and_headers(kind: str) -> None:
    def other(number: Number) -> Message[Text]:
        return Message(Text(str(number.n)), MessageMeta("mine", key="new", headers={"b": b"2"}))

    @step
    def function(number: Number) -> Message[Text]:
        return other(number)

    class Record(RecordStep[Number, Text]):
        def execute(self, message: Message[Number]) -> Message[Text]:
            return other(message.payload)

    class Expand(ExpandStep[Number, Text]):
        def execute(self, message: Message[Number]) -> list[Message[Text]]:
            return [other(message.payload)]

    class Batch(BatchStep[Number, Text]):
        def execute(self, messages: list[Message[Number]]) -> list[Message[Text]]:
            return [other(message.payload) for message in messages]

    node = {"function": function, "record": Record, "expand": Expand, "batch": Batch}[kind]
    (message,) = run(node, [KafkaRecord("numbers", b"old", b'{"n":1}', {"a": b"1"}, 0, 0)]).output
    assert message.payload == Text("1")
    assert (message.meta.key, dict(message.meta.headers)) == ("new", {"b": b"2"})


def test_a_message_that_was_replaced_is_what_the_next_step_is_handed() -> None:
    seen = []

    class Rekey(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Message[Number]:
            return message.with_key(b"new").with_headers(b=b"2")

    class Look(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Number:
            seen.append((message.meta.key, dict(message.meta.headers), message.meta.offset))
            return message.payload

    in_memory(flow(Rekey, function, Look), [KafkaRecord("numbers", b"old", b'{"n":1}', {"a": b"1"}, 0, 7)])
    assert seen == [(b"new", {"a": b"1", "b": b"2"}, 7)]


def test_a_message_handed_back_as_it_is_changes_nothing() -> None:
    class Same(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Message[Number]:
            return message

    record = KafkaRecord("numbers", b"k", b'{"n":1}', {"a": b"1"}, 0, 7, 9)
    untouched = in_memory(flow(function), [record]).output[0].meta
    (message,) = in_memory(flow(Same, function), [record]).output
    assert message == Message(Number(2), untouched)


def test_a_payload_of_a_subclass_goes_on_like_any_other() -> None:
    @step
    def sign(number: Number) -> Number:
        return Negative(number.n) if number.n < 0 else number

    assert run(sign, numbers(1, -1)).payloads() == [Number(1), Negative(-1)]


def test_a_step_without_annotations_may_return_anything_but_none() -> None:
    @step
    def anything(number):  # type: ignore[no-untyped-def]
        return {0: None, 1: Text("one"), 2: Message(Text("two"), MessageMeta("mine"))}.get(number.n, number)

    ran = run(anything, numbers(0, 1, 2, 3))
    assert ran.payloads() == [Text("one"), Text("two"), Number(3)]
    assert ran.counts.failed == {ErrorKind.TASK: 1}


# ---- tombstones


DELETED = KafkaRecord("numbers", b"k", None, {"a": b"1"}, 0, 1, 5_000)


@KINDS
def test_a_tombstone_passes_a_step_that_does_not_name_it_unchanged(node: Any) -> None:
    ran = run(node, [*numbers(1), DELETED])
    assert ran.payloads() == [Number(2), Tombstone()]
    meta = ran.output[1].meta
    assert (meta.key, meta.offset, meta.produced_at_ms, dict(meta.headers)) == (b"k", 1, 5_000, {"a": b"1"})
    assert (ran.counts.written, ran.counts.failed) == (2, {})


@step
def named(number: Number | Tombstone) -> Number:
    return Number(-1) if isinstance(number, Tombstone) else number


class Named(RecordStep[Number | Tombstone, Number]):
    def execute(self, message: Message[Number | Tombstone]) -> Number:
        return named(message.payload)


class NamedExpand(ExpandStep[Number | Tombstone, Number]):
    def execute(self, message: Message[Number | Tombstone]) -> list[Number]:
        return [named(message.payload)]


class NamedBatch(BatchStep[Number | Tombstone, Number]):
    def execute(self, messages: list[Message[Number | Tombstone]]) -> list[Number]:
        return [named(message.payload) for message in messages]


@pytest.mark.parametrize("node", [named, Named, NamedExpand, NamedBatch])
def test_a_tombstone_reaches_a_step_that_names_it(node: Any) -> None:
    assert run(node, [*numbers(1), DELETED]).payloads() == [Number(1), Number(-1)]


def test_a_step_may_make_a_tombstone_which_then_passes_the_rest() -> None:
    @step
    def forget_odd(number: Number) -> Number | Tombstone:
        return Tombstone() if number.n % 2 else number

    assert in_memory(flow(forget_odd, function), numbers(1, 2)).payloads() == [Tombstone(), Number(4)]


def test_a_tombstone_keeps_what_an_earlier_step_gave_it() -> None:
    class Rekey(RecordStep[Number | Tombstone, Number]):
        def execute(self, message: Message[Number | Tombstone]) -> Message[Number | Tombstone]:
            return message.with_key(b"new")

    (message,) = in_memory(flow(Rekey, function), [DELETED]).output
    assert (message.payload, message.meta.key) == (Tombstone(), b"new")


# ---- what a step is made of


def test_one_instance_serves_a_whole_run() -> None:
    class Counting(RecordStep[Number, Number]):
        made = 0

        def __init__(self) -> None:
            type(self).made += 1
            self.seen = 0

        def execute(self, message: Message[Number]) -> Number:
            self.seen += 1
            return Number(self.seen)

    assert run(Counting, numbers(7, 7, 7)).payloads() == [Number(1), Number(2), Number(3)]
    assert Counting.made == 1


def test_a_step_takes_its_arguments_from_the_config() -> None:
    class Add(RecordStep[Number, Number]):
        def __init__(self, amount: int, sign: int = 1) -> None:
            self.amount = amount * sign

        def execute(self, message: Message[Number]) -> Number:
            return Number(message.payload.n + self.amount)

    ran = run(Add.from_config("adding", sign=-1), numbers(10), adding={"amount": 3})
    assert ran.payloads() == [Number(7)]


def test_an_interrupt_is_no_error_of_a_record() -> None:
    @step
    def interrupted(number: Number) -> Number:
        raise KeyboardInterrupt

    with pytest.raises(BaseException) as ended:
        run(interrupted, numbers(1))
    from tests.support.running import causes

    assert any(isinstance(cause, KeyboardInterrupt) for cause in causes(ended.value))
