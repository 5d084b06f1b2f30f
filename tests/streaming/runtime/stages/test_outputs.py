"""What stands in a topic: value, key, headers and time of each record, and what becomes of a value that cannot stand there."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct, LoomStruct
from loom.streaming import (
    ErrorKind,
    ExpandStep,
    FromTopic,
    IntoTopic,
    Message,
    MessageMeta,
    Process,
    RecordStep,
    StreamFlow,
    Tombstone,
    step,
)
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from tests.support.running import Written, config_for, content, in_memory, into_topics, numbers


class Number(LoomFrozenStruct):
    n: int


class Text(LoomStruct):
    text: str


class Labelled(LoomFrozenStruct):
    __loom_message_type__ = "shop.labelled"
    __loom_message_version__ = 3
    n: int


@step
def double(number: Number) -> Number:
    return Number(number.n * 2)


def flow(*nodes: Any) -> StreamFlow[Any, Any]:
    return StreamFlow("writing", FromTopic("numbers", Number), Process(*(nodes or (double,))), IntoTopic("out"))


def written(items: list[Any], *nodes: Any, producer: dict[str, Any] | None = None) -> list[Written]:
    topics, _ = into_topics(flow(*nodes), items, config=config_for(producer=producer))
    return topics["out"]


SOURCE = KafkaRecord("numbers", b"k", b'{"n":4}', {"mine": b"1", "x-message-type": b"of.the.input"}, 2, 17, 5_000)


def test_a_record_keeps_its_key_its_time_and_the_headers_that_are_not_ours() -> None:
    (record,) = written([SOURCE])
    assert (record.key, record.value, record.timestamp_ms) == (b"k", b'{"n":8}', 5_000)
    # The label spoke of the incoming payload.
    assert record.headers == (("mine", b"1"),)


def test_every_pair_of_headers_is_written_in_its_order() -> None:
    from loom.streaming.kafka import Headers

    pairs = (("a", b"1"), ("b", None), ("a", b"2"), ("c", b""))
    (record,) = written([KafkaRecord("numbers", b"k", b'{"n":4}', Headers(pairs), 2, 17)])
    assert record.headers == pairs


def test_a_record_without_a_key_stays_without_one() -> None:
    (record,) = written(numbers(1))
    assert (record.key, record.headers) == (None, ())


@pytest.mark.parametrize("nodes", [(double,), ("look", double)], ids=["untouched", "looked-at"])
def test_a_tombstone_is_written_as_a_null_value(nodes: tuple[Any, ...]) -> None:
    class Look(RecordStep[Number | Tombstone, Number]):
        def execute(self, message: Message[Number | Tombstone]) -> Message[Number | Tombstone]:
            return message.with_headers(b=b"2")

    gone = KafkaRecord("numbers", b"k", None, {"a": b"1", "x-message-type": b"Old"}, 2, 17, 5_000)
    (record,) = written([gone], *(Look if node == "look" else node for node in nodes))
    assert (record.key, record.value, record.timestamp_ms) == (b"k", None, 5_000)
    assert record.headers == ((("a", b"1"), ("b", b"2")) if len(nodes) == 2 else (("a", b"1"),))


def test_a_step_sets_key_headers_and_time() -> None:
    class Replace(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Message[Number]:
            return Message(Number(1), MessageMeta("mine", produced_at_ms=9_000, key="text", headers={"b": b"2"}))

    (record,) = written([SOURCE], Replace)
    assert (record.key, record.value, record.timestamp_ms) == (b"text", b'{"n":1}', 9_000)
    assert record.headers == (("b", b"2"),)


@pytest.mark.parametrize("wire_format", ["json", "msgpack", "envelope"])
@pytest.mark.parametrize("payload", [Number(1), Tombstone()], ids=["payload", "tombstone"])
def test_the_time_is_that_of_the_incoming_record_unless_a_step_sets_it(wire_format: str, payload: Any) -> None:
    class Rebuilt(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Message[Number | Tombstone]:
            return Message(payload, MessageMeta("mine", key=b"k"))

    (record,) = written([SOURCE], Rebuilt, producer={"format": wire_format})
    assert record.timestamp_ms == 5_000


def test_results_of_an_expansion_each_carry_key_headers_and_time() -> None:
    class Twice(ExpandStep[Number, Number]):
        def execute(self, message: Message[Number]) -> list[Number]:
            return [Number(1), Number(2)]

    first, second = written([SOURCE], Twice)
    assert (first.value, second.value) == (b'{"n":1}', b'{"n":2}')
    assert (first.key, first.headers, first.timestamp_ms) == (second.key, second.headers, second.timestamp_ms)
    assert (first.key, first.timestamp_ms) == (b"k", 5_000)


def test_a_payload_that_names_its_type_is_labelled_with_it() -> None:
    @step
    def label(number: Number) -> Labelled:
        return Labelled(number.n)

    (record,) = written([SOURCE], label)
    assert record.headers == (("mine", b"1"), ("x-message-type", b"shop.labelled"), ("x-message-version", b"3"))


def test_an_output_of_several_types_labels_each_with_its_own() -> None:
    @step
    def either(number: Number) -> Number | Text:
        return Text("odd") if number.n % 2 else number

    found = written([KafkaRecord("numbers", b"k", b'{"n":%d}' % n, {}, 0, n) for n in (1, 2)], either)
    types = [dict(record.headers)["x-message-type"] for record in found]
    assert types == [f"{Text.__module__}.Text".encode(), f"{Number.__module__}.Number".encode()]


def test_full_headers_say_all_that_is_known() -> None:
    (record,) = written([SOURCE], producer={"headers": "full"})
    assert dict(record.headers) == {
        "mine": b"1",
        "content-type": b"application/json",
        "x-message-type": f"{Number.__module__}.Number".encode(),
        "x-message-version": b"1",
        "x-causation-id": b"numbers:2:17",
    }


def test_no_headers_are_written_where_none_are_wanted() -> None:
    (record,) = written([SOURCE], producer={"headers": "none"})
    assert (record.headers, record.key, record.timestamp_ms) == ((), b"k", 5_000)


def test_ids_that_a_step_sets_are_written() -> None:
    from msgspec.structs import replace

    class Correlate(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Message[Number]:
            return Message(message.payload, replace(message.meta, correlation_id="c", trace_id="t"))

    (record,) = written(numbers(1), Correlate)
    assert dict(record.headers) == {"x-correlation-id": b"c", "x-trace-id": b"t"}


@pytest.mark.parametrize(
    ("wire_format", "value"), [("json", b'{"n":8}'), ("msgpack", b"\x81\xa1n\x08")], ids=["json", "msgpack"]
)
def test_a_producers_format_is_how_its_values_stand(wire_format: str, value: bytes) -> None:
    (record,) = written([SOURCE], producer={"format": wire_format})
    assert record.value == value


def test_an_envelope_holds_payload_and_metadata_and_is_read_back() -> None:
    (record,) = written([SOURCE], producer={"format": "envelope"})
    assert record.value is not None
    again = KafkaRecord("numbers", record.key, record.value, {}, 0, 0)
    (message,) = in_memory(flow(), [again]).output
    assert message.payload == Number(16)
    assert (message.meta.message_type, message.meta.message_version) == (f"{Number.__module__}.Number", 1)


class Unencodable(LoomFrozenStruct):
    value: Any


@pytest.mark.parametrize("producer", [{}, {"format": "msgpack"}, {"format": "envelope"}, {"headers": "full"}])
@pytest.mark.parametrize("steps", ["function", "record"])
def test_a_value_that_does_not_encode_is_a_task_error_at_its_output_and_of_its_record_alone(
    producer: dict[str, Any], steps: str
) -> None:
    @step
    def function(number: Number) -> Unencodable:
        return Unencodable(object() if number.n == 2 else number.n)

    class Record(RecordStep[Number, Unencodable]):
        def execute(self, message: Message[Number]) -> Message[Unencodable]:
            return message.with_payload(function(message.payload)).with_key(b"k")

    node = function if steps == "function" else Record
    items = [KafkaRecord("numbers", b"k", b'{"n":%d}' % n, {}, 0, n) for n in (1, 2, 3)]
    failing = StreamFlow("writing", FromTopic("numbers", Number), Process(node), IntoTopic("out"), IntoTopic("errors"))
    topics, counts = into_topics(failing, items, config=config_for(producer=producer))
    (letter,) = topics["errors"]
    assert dict(letter.headers)["x-error-kind"] == b"task"
    assert dict(letter.headers)["x-error-step"] == b"writing.output"
    assert dict(letter.headers)["x-error-offset"] == b"2"
    assert len(topics["out"]) == 2
    assert (counts.written, counts.failed) == (2, {ErrorKind.TASK: 1})


@step
def spoil(number: Number) -> Unencodable:
    return Unencodable(object() if number.n == 2 else number.n)


@pytest.mark.bytewax
def test_a_value_that_does_not_encode_never_reaches_the_broker(broker: EmbeddedBroker) -> None:
    broker.create_topic("out")
    ran = in_memory(flow(spoil), numbers(1, 2, 3), config=config_for(broker.bootstrap), sink=None)
    (envelope,) = ran.errors[ErrorKind.TASK]
    assert (envelope.step_id, envelope.path, envelope.source) == ("writing.output", (), numbers(1, 2)[1])
    values = [record.value for record in content(broker.bootstrap, "out")["out"]]
    assert sorted(filter(None, values)) == [b'{"value":1}', b'{"value":3}']


@pytest.mark.parametrize("payload", [Number(1), Tombstone()], ids=["payload", "tombstone"])
@pytest.mark.parametrize("wire_format", ["json", "msgpack", "envelope"])
def test_a_key_that_is_no_text_is_a_task_error_at_its_output(wire_format: str, payload: Any) -> None:
    class Rekey(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Message[Number | Tombstone]:
            return message.with_payload(payload).with_key("\udcff" if message.payload.n == 2 else "fine")

    failing = StreamFlow("writing", FromTopic("numbers", Number), Process(Rekey), IntoTopic("out"), IntoTopic("errors"))
    topics, _ = into_topics(failing, numbers(1, 2, 3), config=config_for(producer={"format": wire_format}))
    assert [record.key for record in topics["out"]] == [b"fine", b"fine"]
    assert [dict(letter.headers)["x-error-step"] for letter in topics["errors"]] == [b"writing.output"]


def test_a_value_that_does_not_encode_at_a_terminal_is_told_by_the_terminals_place() -> None:
    process = Process(spoil, IntoTopic("out"))
    ends_inside = StreamFlow("writing", FromTopic("numbers", Number), process, errors=IntoTopic("errors"))
    topics, _ = into_topics(ends_inside, numbers(2))
    told = dict(topics["errors"][0].headers)
    assert (told["x-error-step"], told["x-error-path"]) == (b"writing.into-out", b"1")


def test_bytes_pass_as_they_are() -> None:
    @step
    def reversed_bytes(value: bytes) -> bytes:
        return value[::-1]

    raw = StreamFlow("raw", FromTopic("numbers", bytes), Process(reversed_bytes), IntoTopic("out"))
    config = config_for(consumer={"format": "bytes"}, producer={"format": "bytes"})
    topics, _ = into_topics(raw, [KafkaRecord("numbers", b"k", b"\x00\xffx", {}, 0, 0)], config=config)
    assert [record.value for record in topics["out"]] == [b"x\xff\x00"]
