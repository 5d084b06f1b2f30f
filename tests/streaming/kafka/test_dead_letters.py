"""Dead letters of anybody, as an operator looks at them; and the marks of those that were replayed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.streaming import ErrorEnvelope, ErrorKind, ErrorMessage, ErrorMessageMeta
from loom.streaming.kafka import Headers, KafkaRecord
from loom.streaming.kafka.dead_letter import dead_letter_writer
from loom.streaming.kafka.dead_letters import letter_reader, replayed_headers
from loom.streaming.kafka.replay_marks import ReplayMarks
from tests.streaming.orders import Order

SOURCE = KafkaRecord("orders", b"k", b'{"id":7}', Headers([("h", b"1"), ("h", None)]), 2, 9, 1000)
ENVELOPE = ErrorEnvelope(
    ErrorKind.TASK,
    "no price",
    original_message=ErrorMessage(Order(7), ErrorMessageMeta("orders:2:9", b"given", {"h": b"1"}, "orders", 2, 9)),
    step_id="orders.price",
    path=(0, 1, 2),
    error_type="builtins.KeyError",
    source=SOURCE,
    index="3",
    at="steps.py:7",
)


def written(wire_format: str) -> KafkaRecord:
    made = dead_letter_writer(wire_format)(ENVELOPE, "orders")
    return KafkaRecord("errors", made.key, made.value, made.headers, 0, 4, 5000)


@pytest.mark.parametrize("wire_format", ["json", "envelope"])
def test_a_letter_of_loom_tells_what_failed_and_holds_the_record_as_it_was(wire_format: str) -> None:
    letter = letter_reader()(written(wire_format))
    assert letter.original == SOURCE
    told = (
        letter.kind,
        letter.step,
        letter.path,
        letter.reason,
        letter.error_type,
        letter.at,
        letter.index,
        letter.count,
    )
    assert told == ("task", "orders.price", (0, 1, 2), "no price", "builtins.KeyError", "steps.py:7", "3", 1)
    assert (letter.written_by, letter.flow, letter.entered) == ("loom", "orders", None)


def test_a_whole_envelope_holds_what_the_step_was_given_as_the_type_that_it_takes() -> None:
    def payload_of(step: str | None) -> Any:
        return Order if step == "orders.price" else Any

    letter = letter_reader(payload_of)(written("envelope"))
    assert letter.message is not None
    assert letter.message.payload == Order(7)
    assert letter.message.meta.key == b"given"


def test_a_letter_that_is_not_whole_does_not_say_what_the_step_was_given() -> None:
    assert letter_reader()(written("json")).message is None


def test_bytes_of_another_format_that_begin_as_an_envelope_does_are_the_record() -> None:
    value = msgspec.msgpack.encode({str(n): n for n in range(9)})
    record = written("json")
    letter = letter_reader()(KafkaRecord("errors", b"k", value, record.headers, 0, 4, 5000))
    assert (letter.written_by, letter.original.value, letter.kind) == ("loom", value, "task")


def test_a_letter_of_kafka_streams_is_read() -> None:
    names = ("exception", "message", "stacktrace", "topic", "partition", "offset")
    values = (b"java.lang.Oops", b"no", b"at a\nat b", b"orders", b"2", b"9")
    said = [(f"__streams.errors.{name}", value) for name, value in zip(names, values, strict=True)]
    letter = letter_reader()(KafkaRecord("dlq", b"k", b"v", Headers([("h", b"1"), *said]), 0, 1, 5000))
    assert letter.original == KafkaRecord("orders", b"k", b"v", Headers([("h", b"1")]), 2, 9, 5000)
    assert (letter.written_by, letter.error_type, letter.reason) == ("kafka streams", "java.lang.Oops", "no")
    assert letter.stack == "at a\nat b"


def test_a_letter_of_kafka_connect_is_read() -> None:
    said = {
        "topic": b"orders",
        "partition": b"2",
        "offset": b"9",
        "connector.name": b"sink",
        "stage": b"VALUE_CONVERTER",
        "class.name": b"org.JsonConverter",
        "exception.class.name": b"org.DataException",
        "exception.message": b"no JSON",
    }
    headers = Headers([(f"__connect.errors.{name}", value) for name, value in said.items()])
    letter = letter_reader()(KafkaRecord("dlq", None, b"v", headers, 0, 1, 5000))
    assert (letter.original.topic, letter.original.partition, letter.original.offset) == ("orders", 2, 9)
    told = (letter.written_by, letter.kind, letter.step, letter.flow, letter.error_type, letter.reason)
    assert told == ("kafka connect", "value_converter", "org.JsonConverter", "sink", "org.DataException", "no JSON")


@pytest.mark.parametrize(
    "record", [KafkaRecord("t", None, b"x"), KafkaRecord("t", None, b"\x8a\x01"), KafkaRecord("t", None, None)]
)
def test_what_says_nothing_is_shown_as_it_is(record: KafkaRecord) -> None:
    letter = letter_reader()(record)
    assert (letter.written_by, letter.original) == ("unknown", record)


def test_a_replayed_record_has_its_own_headers_and_counts_its_failures() -> None:
    record = written("json")
    replay = [("x-loom-replay-of", b"old"), ("x-loom-replay-step", b"orders.price")]
    again = KafkaRecord("errors", b"k", b"v", Headers.of(record.headers).replaced((), replay))
    letter = letter_reader()(again)
    assert letter.entered == "orders.price"
    headers = replayed_headers(letter, {"x-loom-replay-of": b"errors[0]@4"})
    assert headers.pairs == (("h", b"1"), ("h", None), ("x-error-count", b"1"), ("x-loom-replay-of", b"errors[0]@4"))


@given(st.sets(st.integers(0, 20_000), max_size=60), st.sets(st.integers(0, 20_000), max_size=60))
def test_marks_are_read_back_as_they_were_written(first: set[int], second: set[int]) -> None:
    marks = ReplayMarks({"errors": "id"})
    kept: dict[bytes, bytes] = {}
    for batch in (first, second):
        kept |= marks.mark(("errors", 1, offset) for offset in batch)
    read = ReplayMarks({"errors": "id"})
    read._blocks = {key: bytearray(value) for key, value in kept.items()}
    probes = {*first, *second, *(offset + 1 for offset in first), 0}
    for offset in probes:
        assert (("errors", 1, offset) in read) == (offset in first | second)
        assert ("errors", 0, offset) not in read
    assert not any(("errors", 1, offset) in ReplayMarks({"errors": "recreated"}) for offset in probes)
