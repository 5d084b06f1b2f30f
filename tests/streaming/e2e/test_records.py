"""From topic to topic: key, headers, time and order of a record survive, and what is broken is kept as it was."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    ErrorKind,
    ErrorRoute,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RecordStep,
    StreamFlow,
    step,
)
from loom.streaming.kafka import EmbeddedBroker, Headers, KafkaRecord
from tests.support.kafka_io import ReadRecord
from tests.support.running import config_for, content, produce, run_all


class Number(LoomFrozenStruct):
    n: int


@step
def double(number: Number) -> Number:
    if number.n == 0:
        raise RuleViolation("zero")
    return Number(number.n * 2)


class Looked(RecordStep[Number, Number]):
    def execute(self, message: Message[Number]) -> Message[Number]:
        return message.with_payload(double(message.payload))


class Batched(BatchStep[Number, Number]):
    def execute(self, messages: list[Message[Number]]) -> list[Number]:
        return [double(message.payload) for message in messages]


KINDS = pytest.mark.parametrize("node", [double, Looked, Batched], ids=["function", "record", "batch"])


def through(broker: EmbeddedBroker, *records: KafkaRecord, node: Any = double) -> dict[str, list[ReadRecord]]:
    for topic in ("numbers", "out", "errors"):
        broker.create_topic(topic)
    produce(broker.bootstrap, "numbers", *records)
    flow = StreamFlow("copying", FromTopic("numbers", Number), Process(node), IntoTopic("out"), IntoTopic("errors"))
    run_all(flow, config_for(broker.bootstrap, consumer={"delivery": "at_least_once"}), len(records))
    return content(broker.bootstrap, "out", "errors")


PAIRS = (("a", b"1"), ("b", None), ("a", b"2"), ("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"))


@KINDS
def test_key_headers_and_time_survive(broker: EmbeddedBroker, node: Any) -> None:
    record = KafkaRecord("numbers", b"\x00key", b'{"n":4}', Headers(PAIRS), 2, None, 1_700_000_000_123)
    (found,) = through(broker, record, node=node)["out"]
    assert (found.key, found.value, found.headers) == (b"\x00key", b'{"n":8}', PAIRS)
    assert found.timestamp_ms == 1_700_000_000_123


@pytest.mark.parametrize("node", [double, Looked], ids=["function", "record"])
def test_a_record_without_a_time_stays_without_and_a_step_sees_none(broker: EmbeddedBroker, node: Any) -> None:
    seen: list[int | None] = []

    class Look(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Number:
            seen.append(message.meta.produced_at_ms)
            return message.payload

    for topic in ("numbers", "out", "errors"):
        broker.create_topic(topic)
    produce(
        broker.bootstrap, "numbers", *(KafkaRecord("numbers", b"k", b'{"n":%d}' % n, {}, 0, None, -1) for n in (0, 1))
    )
    flow = StreamFlow(
        "looking", FromTopic("numbers", Number), Process(Look, node), IntoTopic("out"), IntoTopic("errors")
    )
    run_all(flow, config_for(broker.bootstrap, consumer={"delivery": "at_least_once"}), 2)
    found = content(broker.bootstrap, "out", "errors")
    assert (seen, found["out"][0].timestamp_ms) == ([None, None], -1)
    assert "x-error-timestamp" not in dict(found["errors"][0].headers)


def test_a_record_without_key_and_headers_stays_without(broker: EmbeddedBroker) -> None:
    (found,) = through(broker, KafkaRecord("numbers", None, b'{"n":4}'))["out"]
    assert (found.key, found.headers) == (None, ())


def test_an_empty_key_is_not_no_key(broker: EmbeddedBroker) -> None:
    (found,) = through(broker, KafkaRecord("numbers", b"", b'{"n":4}'))["out"]
    assert found.key == b""


def test_a_tombstone_passes_from_topic_to_topic(broker: EmbeddedBroker) -> None:
    (found,) = through(broker, KafkaRecord("numbers", b"k", None, Headers(PAIRS), 1, None, 1_700_000_000_123))["out"]
    assert (found.key, found.value, found.headers, found.timestamp_ms) == (b"k", None, PAIRS, 1_700_000_000_123)


def test_a_key_is_placed_where_jvm_producers_place_it(broker: EmbeddedBroker) -> None:
    hashes = {b"foobar": -790332482, b"21": -973932308, b"abc": 479470107, b"a-little-bit-long-string": -985981536}
    found = through(broker, *(KafkaRecord("numbers", key, b'{"n":4}') for key in hashes))["out"]
    assert {record.key: record.partition for record in found} == {
        key: (hashed & 0x7FFFFFFF) % 4 for key, hashed in hashes.items()
    }


def test_records_that_do_not_decode_are_kept_byte_for_byte(broker: EmbeddedBroker) -> None:
    values = [b"{", b"\xff\x00\xfe", b"", b'{"n":"four"}']
    headers = Headers(PAIRS)
    broken = [KafkaRecord("numbers", b"k", value, headers, 3, None, 1_700_000_000_123) for value in values]
    found = through(broker, KafkaRecord("numbers", b"k", b'{"n":1}', partition=3), *broken)
    assert [record.value for record in found["out"]] == [b'{"n":2}']
    assert [letter.value for letter in found["errors"]] == values
    for offset, letter in enumerate(found["errors"], 1):
        assert letter.key == b"k"
        assert letter.headers[: len(PAIRS)] == PAIRS
        told = dict(letter.headers[len(PAIRS) :])
        assert told["x-error-kind"] == b"wire"
        assert (told["x-error-topic"], told["x-error-partition"]) == (b"numbers", b"3")
        assert (told["x-error-offset"], told["x-error-timestamp"]) == (b"%d" % offset, b"1700000000123")


def test_one_bad_record_among_many_fails_alone(broker: EmbeddedBroker) -> None:
    records = [KafkaRecord("numbers", b"k", b'{"n":%d}' % (n % 10), partition=n % 4) for n in range(100)]
    found = through(broker, *records)
    assert (len(found["out"]), len(found["errors"])) == (90, 10)
    assert {dict(letter.headers)["x-error-kind"] for letter in found["errors"]} == {b"business"}


def test_errors_of_each_kind_go_their_own_way(broker: EmbeddedBroker) -> None:
    for topic in ("numbers", "out", "rules", "broken"):
        broker.create_topic(topic)
    produce(broker.bootstrap, "numbers", b'{"n":0}', b"{", b'{"n":1}')
    flow = StreamFlow(
        "copying",
        FromTopic("numbers", Number),
        Process(double),
        IntoTopic("out"),
        [ErrorRoute(ErrorKind.BUSINESS, IntoTopic("rules")), ErrorRoute(ErrorKind.WIRE, IntoTopic("broken"))],
    )
    counts = run_all(flow, config_for(broker.bootstrap, consumer={"delivery": "at_least_once"}), 3)
    found = content(broker.bootstrap, "out", "rules", "broken")
    assert {topic: [record.value for record in records] for topic, records in found.items()} == {
        "out": [b'{"n":2}'],
        "rules": [b'{"n":0}'],
        "broken": [b"{"],
    }
    assert counts.outputs == {"out": 1, "rules": 1, "broken": 1}


def test_a_dead_letter_can_be_read_again_as_what_it_was(broker: EmbeddedBroker) -> None:
    through(broker, KafkaRecord("numbers", b"k", b'{"n":0}'))
    broker.create_topic("mended")

    @step
    def mend(number: Number) -> Number:
        return Number(number.n + 1)

    replay = StreamFlow("replay", FromTopic("errors", Number), Process(mend), IntoTopic("mended"))
    run_all(replay, config_for(broker.bootstrap, consumer={"group_id": "menders"}), 1)
    (found,) = content(broker.bootstrap, "mended")["mended"]
    assert (found.key, found.value) == (b"k", b'{"n":1}')
