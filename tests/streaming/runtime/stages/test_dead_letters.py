"""An error route to a topic: the record as its source read it, and headers that tell what went wrong, so it can be replayed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    ErrorKind,
    ErrorRoute,
    ExpandStep,
    Fork,
    FromTopic,
    IntoTopic,
    Message,
    MessageMeta,
    Process,
    RecordStep,
    StreamFlow,
    step,
)
from loom.streaming.kafka import Headers, KafkaRecord
from tests.support.running import Written, config_for, in_memory, into_topics, records


class Number(LoomFrozenStruct):
    n: int


class Odd(LoomFrozenStruct):
    value: Any


@step
def positive(number: Number) -> Number:
    if number.n == 0:
        raise RuleViolation("zero")
    if number.n < 0:
        raise ArithmeticError("negative")
    return number


#: the line of this file that raises
RAISING = positive.function.__code__.co_firstlineno + 5


def flow(*nodes: Any, errors: Any = IntoTopic("errors")) -> StreamFlow[Any, Any]:  # noqa: B008
    return StreamFlow("checking", FromTopic("numbers", Number), Process(*nodes), IntoTopic("out"), errors)


def letters(flow: StreamFlow[Any, Any], items: list[Any], **producer: Any) -> list[Written]:
    config = config_for()
    config["kafka"]["producers"] = {"errors": producer}
    topics, _ = into_topics(flow, items, config=config)
    return topics.get("errors", [])


def told(record: Written) -> dict[str, bytes | None]:
    return {name.removeprefix("x-error-"): value for name, value in record.headers if name.startswith("x-error-")}


SOURCE = KafkaRecord("numbers", b"k", b'{ "n": -4 }', {"a": b"1"}, 2, 17, 5_000)


def test_a_dead_letter_is_the_record_as_it_was_read() -> None:
    class Rekey(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Message[Number]:
            return message.with_key(b"new").with_headers(b=b"2")

    (letter,) = letters(flow(Rekey, positive), [SOURCE])
    # No timestamp: the client dates it.
    assert (letter.key, letter.value, letter.timestamp_ms) == (b"k", b'{ "n": -4 }', None)
    assert [pair for pair in letter.headers if not pair[0].startswith("x-error-")] == [("a", b"1")]


def test_a_dead_letter_tells_what_went_wrong_where_and_to_what() -> None:
    (letter,) = letters(flow(positive), [SOURCE])
    assert told(letter) == {
        "kind": b"task",
        "reason": b"negative",
        "type": b"builtins.ArithmeticError",
        "flow": b"checking",
        "step": b"checking.positive",
        "topic": b"numbers",
        "partition": b"2",
        "offset": b"17",
        "timestamp": b"5000",
        "path": b"0",
        "at": f"{__file__}:{RAISING}".encode(),
        "count": b"1",
    }


def test_bytes_that_do_not_decode_are_kept_as_they_are() -> None:
    broken = KafkaRecord("numbers", b"\xff", b"\x00{\xfe", {"a": b"\xff"}, 2, 17, 5_000)
    (letter,) = letters(flow(positive), [broken])
    assert (letter.key, letter.value, letter.headers[0]) == (b"\xff", b"\x00{\xfe", ("a", b"\xff"))
    assert (told(letter)["kind"], told(letter)["step"]) == (b"wire", b"checking.source")


def test_a_failed_tombstone_is_a_dead_letter_without_a_value() -> None:
    forked = StreamFlow(
        "sorting",
        FromTopic("numbers", Number),
        Process(Fork.by(lambda number: 0, {0: Process(IntoTopic("out"))})),
        errors=IntoTopic("errors"),
    )
    (letter,) = letters(forked, [KafkaRecord("numbers", b"k", None, {}, 2, 17)])
    assert (letter.key, letter.value, told(letter)["kind"]) == (b"k", None, b"routing")


class Digits(ExpandStep[Number, Number]):
    def execute(self, message: Message[Number]) -> Iterator[Number]:
        return (Number(int(digit)) for digit in str(message.payload.n))


def test_after_an_expansion_the_index_tells_which_child_it_was() -> None:
    found = letters(flow(Digits, positive), [KafkaRecord("numbers", b"k", b'{"n":10203}', {}, 0, 0)])
    assert [told(letter)["index"] for letter in found] == [b"1", b"3"]
    assert {letter.value for letter in found} == {b'{"n":10203}'}


def test_after_two_expansions_the_index_is_a_path() -> None:
    class Halves(ExpandStep[Number, Number]):
        def execute(self, message: Message[Number]) -> list[Number]:
            return [Number(message.payload.n // 100), Number(message.payload.n % 100)]

    found = letters(flow(Halves, Digits, positive), [KafkaRecord("numbers", b"k", b'{"n":1130}', {}, 0, 0)])
    assert [told(letter)["index"] for letter in found] == [b"1.1"]


def test_behind_a_batch_step_the_index_is_still_that_of_the_child() -> None:
    class Same(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Number]:
            return [message.payload for message in messages]

    class Refuse(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Any]:
            return [ValueError("zero") if m.payload.n == 0 else m.payload for m in messages]

    items = [KafkaRecord("numbers", b"k", b'{"n":%d}' % n, {}, 0, at) for at, n in enumerate((10203, 5, 110))]
    found = letters(flow(Digits, Same, Refuse), items)
    assert [(told(letter)["offset"], told(letter)["index"]) for letter in found] == [
        (b"0", b"1"),
        (b"0", b"3"),
        (b"2", b"2"),
    ]


def test_an_expansion_that_fails_itself_has_no_index() -> None:
    class Failing(ExpandStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Iterator[Number]:
            yield message.payload
            raise ValueError("no")

    (letter,) = letters(flow(Failing), [SOURCE])
    assert "index" not in told(letter)


def test_a_value_that_does_not_encode_behind_an_expansion_is_told_with_its_index() -> None:
    class Both(ExpandStep[Number, Odd]):
        def execute(self, message: Message[Number]) -> list[Odd]:
            return [Odd(1), Odd(object())]

    (letter,) = letters(flow(Both), [SOURCE])
    assert (told(letter)["index"], told(letter)["step"]) == (b"1", b"checking.output")


def test_a_dead_letter_that_fails_again_counts_on_and_tells_only_the_last_failure() -> None:
    (first,) = letters(flow(positive), [SOURCE])
    headers = Headers((name, value) for name, value in first.headers)
    again = KafkaRecord("errors", first.key, first.value, headers, 0, 3, first.timestamp_ms)
    replay = StreamFlow(
        "replay", FromTopic("numbers", Number), Process(positive), IntoTopic("out"), IntoTopic("errors")
    )
    (second,) = letters(replay, [again])
    assert (told(second)["count"], told(second)["flow"], told(second)["topic"]) == (b"2", b"replay", b"errors")
    names = [name for name, _ in second.headers]
    assert len(names) == len(set(names))
    assert second.value == SOURCE.value


def test_headers_are_told_whatever_the_producers_policy() -> None:
    (letter,) = letters(flow(positive), [SOURCE], headers="none")
    assert told(letter)["reason"] == b"negative"


def test_a_reason_of_any_length_fits() -> None:
    @step
    def verbose(number: Number) -> Number:
        raise ValueError("€" * 2_000_000)

    (letter,) = letters(flow(verbose), [SOURCE])
    reason = told(letter)["reason"]
    assert reason is not None
    assert reason.startswith("€".encode())
    assert len(reason) < 10_000


def test_a_message_that_came_from_no_bytes_is_encoded_in_the_sources_format() -> None:
    (letter,) = letters(flow(positive), [Message(Number(0), MessageMeta("mine", key="k", produced_at_ms=9_000))])
    assert (letter.key, letter.value, letter.timestamp_ms) == (b"k", b'{"n":0}', None)
    assert dict(letter.headers)["x-error-timestamp"] == b"9000"


@pytest.mark.parametrize("wire_format", ["json", "msgpack", "envelope"])
def test_a_dead_letter_can_be_replayed_in_every_format_of_the_source(wire_format: str) -> None:
    config = config_for(consumer={"format": wire_format})
    topics, _ = into_topics(flow(positive), [Message(Number(0), MessageMeta("m"))], config=config)
    (letter,) = topics["errors"]

    @step
    def anything(number: Number) -> Number:
        return number

    again = KafkaRecord("errors", letter.key, letter.value, Headers(letter.headers), 0, 0)
    assert in_memory(flow(anything), [again], config=config).payloads() == [Number(0)]


def test_with_the_envelope_format_the_whole_error_is_written() -> None:
    (letter,) = letters(flow(positive), [SOURCE], format="envelope")
    assert letter.value is not None
    found = msgspec.msgpack.decode(letter.value)
    assert (found["kind"], found["reason"], found["step_id"], found["path"]) == (
        "task",
        "negative",
        "checking.positive",
        [0],
    )
    assert found["original_message"]["payload"] == {"n": -4}
    assert found["source"]["value"] == SOURCE.value
    assert told(letter)["kind"] == b"task"


def test_each_kind_goes_where_its_author_routed_it() -> None:
    routed = flow(
        positive,
        errors=[
            ErrorRoute(ErrorKind.BUSINESS, IntoTopic("rules")),
            ErrorRoute([ErrorKind.TASK, ErrorKind.WIRE, ErrorKind.ROUTING], IntoTopic("errors")),
        ],
    )
    topics, counts = into_topics(routed, records(b'{"n":0}', b'{"n":-1}', b"{", b'{"n":1}', key=b"k"))
    assert [told(letter)["kind"] for letter in topics["errors"]] == [b"task", b"wire"]
    assert [told(letter)["kind"] for letter in topics["rules"]] == [b"business"]
    assert [record.value for record in topics["out"]] == [b'{"n":1}']
    assert counts.outputs == {"errors": 2, "rules": 1, "out": 1}
