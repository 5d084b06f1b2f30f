"""Dead letters as a source: read back as `ErrorEnvelope[P]`, in both forms, and replayed."""

from __future__ import annotations

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    ErrorEnvelope,
    ErrorKind,
    Fork,
    ForkRoute,
    FromMultiTypeTopic,
    FromTopic,
    IntoTopic,
    Message,
    MessageMeta,
    Process,
    RecordStep,
    StreamFlow,
    compile_flow,
    payload,
    step,
)
from loom.streaming.compiler import Code
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


@step
def unchanged(letter: ErrorEnvelope[Order]) -> Order | None:
    return letter.original_message.payload if letter.original_message is not None else None


class Anew(RecordStep[ErrorEnvelope[Order], Order]):
    """A message of its own, which carries no header on."""

    def execute(self, message: Message[ErrorEnvelope[Order]]) -> Message[Order]:
        original = message.payload.original_message
        assert original is not None
        return Message(original.payload, MessageMeta("anew"))


def replaying(repair: object = unchanged) -> StreamFlow[ErrorEnvelope[Order], Order]:
    return StreamFlow("replay", LETTERS, Process(repair), IntoTopic("orders"), IntoTopic("hopeless"))


def replay_config(**consumer: object) -> dict[str, object]:
    return config_for(consumer=consumer)


@pytest.mark.parametrize("repair", [unchanged, Anew])
def test_a_record_that_fails_whenever_it_is_replayed_comes_to_rest_at_the_limit(repair: object) -> None:
    """Both flows, one behind the other, until nothing goes round any more."""
    items, rounds, hopeless = [BAD], 0, []
    while items and rounds < 20:
        rounds += 1
        topics, _ = into_topics(replaying(repair), letters(*items), config=replay_config(replay_limit=3))
        items = [as_read("orders", record, at) for at, record in enumerate(topics.get("orders", []))]
        hopeless += topics.get("hopeless", [])
    assert rounds == 4
    (record,) = hopeless
    headers = dict(record.headers)
    assert headers["x-error-count"] == b"5"
    assert headers["x-error-type"].endswith(b"ReplayLimitError")
    assert b"has failed 4 times (x-error-count), and replay_limit of the source is 3" in headers["x-error-reason"]


def test_without_a_limit_a_record_is_replayed_however_often_it_has_failed() -> None:
    (letter,) = letters(BAD)
    often = KafkaRecord("orders.errors", letter.key, letter.value, {**letter.headers, "x-error-count": b"900"}, 0, 0)
    topics, _ = into_topics(replaying(), [often], config=replay_config(replay_limit=None))
    assert len(topics["orders"]) == 1
    topics, _ = into_topics(replaying(), [often], config=replay_config())
    assert list(topics) == ["hopeless"]


def circles(*beside: StreamFlow[Order, Priced], **consumer: object) -> list[str]:
    plan = compile_flow(replaying(), config=replay_config(**consumer), beside=beside)
    return [warning.message for warning in plan.warnings if warning.code is Code.TOPIC_LOOP]


def test_a_circle_through_a_flow_beside_is_a_warning() -> None:
    (message,) = circles(PRICING)
    assert "the flow 'pricing' reads 'orders' and sends what fails there to the dead letters" in message
    assert "until it has failed more than 5 times (replay_limit)" in message
    elsewhere = StreamFlow("pricing", FromTopic("orders", Order), Process(price), IntoTopic("priced"), IntoTopic("bad"))
    assert circles(elsewhere) == []


def test_a_replay_without_a_limit_is_a_warning_wherever_it_goes() -> None:
    (message,) = circles(replay_limit=None)
    assert "however often they have failed" in message


class Refund(LoomFrozenStruct):
    refund: int


def test_one_error_topic_is_read_as_the_letters_of_several_types() -> None:
    seen: list[object] = []

    @step
    def look(letter: ErrorEnvelope[Order] | ErrorEnvelope[Refund]) -> Order:
        seen.append(letter.original_message.payload if letter.original_message is not None else None)
        return Order(0)

    refund = KafkaRecord("orders", b"k", b'{"refund":9}', {}, 2, 18, 6_000)
    source = FromMultiTypeTopic("orders.errors", payloads=(ErrorEnvelope[Order], ErrorEnvelope[Refund]))
    wire = [KafkaRecord("orders.errors", r.key, r.value, r.headers, 0, 0) for r in letters(BAD, refund)]
    in_memory(StreamFlow("looking", source, Process(look), IntoTopic("out")), wire, catch=())
    assert seen == [Order(-4), Refund(9)]


def test_a_key_that_a_step_set_as_text_is_told_in_bytes() -> None:
    class Keyed(RecordStep[Order, Order]):
        def execute(self, message: Message[Order]) -> Message[Order]:
            return message.with_key("text")

    flow = StreamFlow("pricing", FromTopic("orders", Order), Process(Keyed, price), IntoTopic("priced"))
    ran = in_memory(flow, [BAD])
    (envelope,) = ran.errors[ErrorKind.TASK]
    assert envelope.original_message is not None
    assert envelope.original_message.meta.key == b"text"
