"""Dead letters as a source: read back as `ErrorEnvelope[P]`, in both forms, and replayed."""

from __future__ import annotations

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    ErrorEnvelope,
    ErrorKind,
    Fork,
    ForkRoute,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RecordStep,
    StreamFlow,
    payload,
    step,
)
from loom.streaming.kafka import KafkaRecord
from tests.support.running import Written, config_for, in_memory, into_topics


class Order(LoomFrozenStruct):
    id: int


class Priced(LoomFrozenStruct):
    id: int
    cents: int


@step
def price(order: Order) -> Priced:
    if order.id < 0:
        raise ValueError("negative")
    return Priced(order.id, order.id * 100)


PRICING = StreamFlow(
    "pricing", FromTopic("orders", Order), Process(price), IntoTopic("priced"), IntoTopic("orders.errors")
)


def letters(*items: KafkaRecord, format: str = "json") -> list[KafkaRecord]:
    """The dead letters of a run, as they would be read again."""
    config = config_for()
    config["kafka"]["producers"] = {"orders.errors": {"format": format}}
    topics, _ = into_topics(PRICING, items, config=config)
    return [as_read("orders.errors", record, at) for at, record in enumerate(topics.get("orders.errors", []))]


def as_read(topic: str, record: Written, offset: int) -> KafkaRecord:
    headers = {name: value or b"" for name, value in record.headers}
    return KafkaRecord(topic, record.key, record.value, headers, 0, offset, record.timestamp_ms)


BAD = KafkaRecord("orders", b"k", b'{ "id": -4 }', {"a": b"1"}, 2, 17, 5_000)
BROKEN = KafkaRecord("orders", b"k", b"{", {}, 2, 18, 6_000)
GOOD = KafkaRecord("orders", b"k", b'{"id":3}', {}, 2, 19, 7_000)

LETTERS = FromTopic("orders.errors", payload=ErrorEnvelope[Order])


def read_back(*items: KafkaRecord) -> list[ErrorEnvelope[Order]]:
    seen: list[ErrorEnvelope[Order]] = []

    class Look(RecordStep[ErrorEnvelope[Order], Order]):
        def execute(self, message: Message[ErrorEnvelope[Order]]) -> Order:
            seen.append(message.payload)
            return Order(0)

    in_memory(StreamFlow("looking", LETTERS, Process(Look), IntoTopic("out")), items, catch=())
    return seen


@pytest.mark.parametrize("format", ["json", "envelope"])
def test_a_dead_letter_becomes_the_envelope_that_it_was(format: str) -> None:
    (envelope,) = read_back(*letters(BAD, format=format))
    assert (envelope.kind, envelope.reason, envelope.step_id, envelope.path) == (
        ErrorKind.TASK,
        "negative",
        "pricing.price",
        (0,),
    )
    assert envelope.error_type == "builtins.ValueError"
    assert envelope.original_message is not None
    assert envelope.original_message.payload == Order(-4)
    meta = envelope.original_message.meta
    assert (meta.key, meta.topic, meta.partition, meta.offset) == (b"k", "orders", 2, 17)
    source = envelope.source
    assert source is not None
    assert (source.topic, source.key, source.value, source.partition, source.offset, source.timestamp_ms) == (
        "orders",
        b"k",
        b'{ "id": -4 }',
        2,
        17,
        5_000,
    )
    assert dict(source.headers) == {"a": b"1"}


@pytest.mark.parametrize("format", ["json", "envelope"])
def test_a_letter_whose_bytes_do_not_decode_is_read_back_without_its_message(format: str) -> None:
    (envelope,) = read_back(*letters(BROKEN, format=format))
    assert (envelope.kind, envelope.original_message) == (ErrorKind.WIRE, None)
    assert envelope.source is not None
    assert envelope.source.value == b"{"


def test_the_letter_of_a_tombstone_is_read_back() -> None:
    (letter,) = letters(BAD)
    (envelope,) = read_back(KafkaRecord(letter.topic, letter.key, None, letter.headers, 0, 0))
    assert envelope.original_message is None
    assert envelope.source is not None
    assert envelope.source.value is None


def test_a_record_that_is_no_dead_letter_is_a_wire_error_of_its_own() -> None:
    ran = in_memory(StreamFlow("looking", LETTERS, Process(replay), IntoTopic("out")), [GOOD, *letters(BAD)])
    (envelope,) = ran.errors[ErrorKind.WIRE]
    assert "is no dead letter" in envelope.reason
    assert len(ran.payloads()) == 1


@step
def replay(envelope: ErrorEnvelope[Order]) -> Order | None:
    return envelope.original_message.payload if envelope.original_message is not None else None


@step
def mend(order: Order) -> Order:
    return Order(abs(order.id))


def test_dead_letters_are_mended_and_replayed_to_where_they_came_from() -> None:
    mending = StreamFlow("mending", LETTERS, Process(replay, mend), IntoTopic("orders"))
    topics, counts = into_topics(mending, letters(BAD, BROKEN))
    (record,) = topics["orders"]
    assert (record.key, record.value) == (b"k", b'{"id":4}')
    assert counts.drops == {"mending.replay": 1}
    priced, _ = into_topics(PRICING, [as_read("orders", record, 0)])
    assert [one.value for one in priced["priced"]] == [b'{"id":4,"cents":400}']


def test_the_count_grows_each_time_a_replayed_record_fails_again() -> None:
    replaying = StreamFlow("replaying", LETTERS, Process(replay), IntoTopic("orders"))
    found = letters(BAD)
    counts = []
    for _ in range(3):
        counts.append(found[0].headers["x-error-count"])
        topics, _ = into_topics(replaying, found)
        found = letters(as_read("orders", topics["orders"][0], 0))
    assert counts == [b"1", b"2", b"3"]


def test_a_letter_that_fails_once_more_on_its_way_is_a_dead_letter_of_its_own_with_a_higher_count() -> None:
    @step
    def refuse(envelope: ErrorEnvelope[Order]) -> Order:
        raise ValueError("still")

    refusing = StreamFlow("refusing", LETTERS, Process(refuse), IntoTopic("out"), IntoTopic("hopeless"))
    topics, _ = into_topics(refusing, letters(BAD))
    told = dict(topics["hopeless"][0].headers)
    assert (told["x-error-count"], told["x-error-topic"], told["x-error-reason"]) == (b"2", b"orders.errors", b"still")
    assert topics["hopeless"][0].value == b'{ "id": -4 }'


def test_letters_are_sorted_by_expressions_on_the_envelope() -> None:
    fork = Fork.when(
        [ForkRoute(payload.kind == ErrorKind.WIRE, Process(IntoTopic("unreadable")), name="wire")],
        default=Process(replay, IntoTopic("orders")),
    )
    ran = in_memory(StreamFlow("sorting", LETTERS, Process(fork)), letters(BAD, BROKEN))
    assert [len(taken) for taken in ran.terminals.values()] == [1, 1]
