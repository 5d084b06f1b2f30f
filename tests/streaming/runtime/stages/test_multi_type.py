"""A source of several payload types: each record is decoded as what its label names, in the header or in the envelope."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    ErrorKind,
    FromMultiTypeTopic,
    FromTopic,
    IntoTopic,
    Message,
    MessageMeta,
    Process,
    Router,
    StreamFlow,
    Tombstone,
    step,
)
from loom.streaming.formats.envelope_format import EnvelopeFormat
from loom.streaming.kafka import KafkaRecord
from loom.streaming.message import loom_message_type
from tests.support.running import Ran, config_for, in_memory, into_topics


class Placed(LoomFrozenStruct):
    __loom_message_type__: ClassVar[str] = "orders.placed"
    id: int


class Cancelled(LoomFrozenStruct):
    id: int
    reason: str = ""


CANCELLED = loom_message_type(Cancelled)


@step
def same(event: Placed | Cancelled) -> Placed | Cancelled:
    return event


def flow(*nodes: Any, output: Any = None) -> StreamFlow[Any, Any]:
    events = FromMultiTypeTopic[Any]("events", payloads=(Placed, Cancelled))
    into = output or IntoTopic("out", payload=Placed | Cancelled)  # type: ignore[arg-type]
    return StreamFlow("events", events, Process(*(nodes or (same,))), into, IntoTopic("errors"))


def labelled(label: str | None, value: bytes | None, offset: int = 0) -> KafkaRecord:
    headers = {} if label is None else {"x-message-type": label.encode()}
    return KafkaRecord("events", b"k", value, headers, 0, offset)


def run(*items: Any, format: str | None = None) -> Ran:
    consumer = {} if format is None else {"format": format}
    return in_memory(flow(), items, config=config_for(consumer=consumer))


def test_each_record_is_what_its_header_names() -> None:
    ran = run(labelled("orders.placed", b'{"id":1}'), labelled(CANCELLED, b'{"id":2,"reason":"late"}', 1))
    assert ran.payloads() == [Placed(1), Cancelled(2, "late")]


def test_each_record_is_what_its_envelope_names() -> None:
    sealed = EnvelopeFormat().framer()
    items = [
        labelled(None, sealed(payload, MessageMeta("m")), at) for at, payload in enumerate([Placed(1), Cancelled(2)])
    ]
    assert run(*items).payloads() == [Placed(1), Cancelled(2)]
    assert run(*items, format="envelope").payloads() == [Placed(1), Cancelled(2)]


def test_of_several_labels_the_last_wins_as_it_does_in_any_header() -> None:
    pairs = [("x-message-type", b"orders.placed"), ("x-message-type", CANCELLED.encode())]
    from loom.streaming.kafka import Headers

    ran = run(KafkaRecord("events", b"k", b'{"id":1}', Headers(pairs), 0, 0))
    assert ran.payloads() == [Cancelled(1)]


@pytest.mark.parametrize("label", [None, ""])
def test_a_record_without_a_label_is_a_wire_error_that_says_how_to_switch_it_on(label: str | None) -> None:
    ran = run(labelled(label, b'{"id":1}'), labelled("orders.placed", b'{"id":2}', 1))
    (envelope,) = ran.errors[ErrorKind.WIRE]
    assert "headers: full" in envelope.reason
    assert "__loom_message_type__" in envelope.reason
    assert envelope.original_message is None
    assert envelope.source is not None
    assert envelope.source.value == b'{"id":1}'
    assert ran.payloads() == [Placed(2)]


def test_a_label_that_nobody_knows_is_a_wire_error_that_names_the_known() -> None:
    ran = run(labelled("orders.shipped", b'{"id":1}'))
    (envelope,) = ran.errors[ErrorKind.WIRE]
    assert envelope.reason == f"the message type 'orders.shipped' is none of orders.placed, {CANCELLED}"


def test_an_envelope_without_a_label_or_with_an_unknown_one_is_a_wire_error() -> None:
    class Strange(LoomFrozenStruct):
        id: int

    ran = run(labelled(None, EnvelopeFormat().framer()(Strange(1), MessageMeta("m"))))
    assert len(ran.errors[ErrorKind.WIRE]) == 1


def test_a_value_that_is_not_what_its_label_says_is_a_wire_error() -> None:
    ran = run(labelled("orders.placed", b'{"id":"x"}'), labelled(CANCELLED, b"\x82\x00", 1))
    assert len(ran.errors[ErrorKind.WIRE]) == 2


def test_a_tombstone_needs_no_label() -> None:
    ran = run(labelled(None, None))
    assert ran.payloads() == [Tombstone()]


def test_a_message_of_a_source_of_the_callers_own_needs_no_label() -> None:
    assert run(Message(Placed(1), MessageMeta("m"))).payloads() == [Placed(1)]


def test_a_single_type_source_ignores_labels() -> None:
    @step
    def placed(event: Placed) -> Placed:
        return event

    one = StreamFlow("events", FromTopic("events", Placed), Process(placed), IntoTopic("out"))
    assert in_memory(one, [labelled("something.else", b'{"id":1}')]).payloads() == [Placed(1)]


def test_types_are_routed_by_what_they_are_and_written_under_their_own_labels() -> None:
    def kind(event: Placed | Cancelled) -> type:
        return type(event)

    @step
    def cancel(event: Placed | Cancelled) -> Cancelled:
        return event if isinstance(event, Cancelled) else Cancelled(event.id, "new")

    router = Router.by(kind, {Placed: Process(cancel)}, default=Process(same))
    topics, _ = into_topics(
        flow(router), [labelled("orders.placed", b'{"id":1}'), labelled("orders.placed", b'{"id":2}', 1)]
    )
    # Labelled with the type of its own payload, not with that of the record that it was made of.
    assert [dict(record.headers)["x-message-type"] for record in topics["out"]] == [CANCELLED.encode()] * 2


def test_an_output_of_several_types_can_be_read_back_by_a_source_of_several() -> None:
    topics, _ = into_topics(flow(), [labelled("orders.placed", b'{"id":1}'), labelled(CANCELLED, b'{"id":2}', 1)])
    again = [
        KafkaRecord("events", record.key, record.value, {n: v or b"" for n, v in record.headers}, 0, at)
        for at, record in enumerate(topics["out"])
    ]
    assert run(*again).payloads() == [Placed(1), Cancelled(2)]


@pytest.mark.parametrize("payloads", [(), (Placed,)])
def test_a_source_of_several_types_needs_two(payloads: Any) -> None:
    with pytest.raises(ValueError, match="two payload types or more"):
        FromMultiTypeTopic("events", payloads=payloads)


def test_an_envelope_whose_descriptor_holds_objects_is_told_apart_too() -> None:
    descriptor = {"message_type": CANCELLED, "content_type": {"media_type": "x"}, "schema_ref": {"name": "cancelled"}}
    value = msgspec.msgpack.encode({"meta": {"descriptor": descriptor}, "payload": {"id": 4}})
    assert run(labelled(None, value)).payloads() == [Cancelled(4)]


class OrderV1(LoomFrozenStruct):
    __loom_message_type__: ClassVar[str] = "order"
    id: int


class OrderV2(LoomFrozenStruct):
    __loom_message_type__: ClassVar[str] = "order"
    __loom_message_version__: ClassVar[int] = 2
    id: int
    country: str = "ES"


@step
def either(order: OrderV1 | OrderV2) -> OrderV1 | OrderV2:
    return order


def versions(*items: Any, format: str | None = None) -> Ran:
    orders = FromMultiTypeTopic[Any]("orders", payloads=(OrderV1, OrderV2))
    into = IntoTopic("out", payload=OrderV1 | OrderV2)  # type: ignore[arg-type]
    consumer = {} if format is None else {"format": format}
    declared = StreamFlow("orders", orders, Process(either), into, IntoTopic("errors"))
    return in_memory(declared, items, config=config_for(consumer=consumer))


def of_version(*versions: bytes, label: bytes = b"order") -> KafkaRecord:
    pairs = [("x-message-type", label), *(("x-message-version", version) for version in versions)]
    return KafkaRecord("orders", None, b'{"id":1}', pairs, 0, 0)  # type: ignore[arg-type]


def test_two_versions_of_one_type_are_told_apart_by_the_header_of_the_version() -> None:
    assert versions(of_version(b"2"), of_version(b"1"), of_version(b"1", b"2")).payloads() == [
        OrderV2(1),
        OrderV1(1),
        OrderV2(1),
    ]


def test_two_versions_of_one_type_are_told_apart_by_their_envelopes() -> None:
    sealed = EnvelopeFormat().framer()
    items = [labelled(None, sealed(order, MessageMeta("m"))) for order in (OrderV2(1, "PT"), OrderV1(2))]
    assert versions(*items).payloads() == [OrderV2(1, "PT"), OrderV1(2)]
    assert versions(*items, format="envelope").payloads() == [OrderV2(1, "PT"), OrderV1(2)]


@pytest.mark.parametrize(
    ("record", "found"),
    [(of_version(), "says none"), (of_version(b"3"), "says 3"), (of_version(b"two"), "says none")],
    ids=["none", "unknown", "no number"],
)
def test_a_record_of_a_version_that_the_source_does_not_read_is_a_wire_error(record: KafkaRecord, found: str) -> None:
    (reason,) = versions(record).reasons(ErrorKind.WIRE)
    assert "the versions 1, 2 of the message type 'order'" in reason
    assert found in reason
    assert "x-message-version" in reason


def test_a_type_of_which_there_is_one_version_is_read_whatever_its_records_say() -> None:
    item = labelled("orders.placed", b'{"id":1}')
    pairs = [("x-message-type", b"orders.placed"), ("x-message-version", b"7")]
    other = KafkaRecord("events", b"k", b'{"id":2}', pairs, 0, 1)  # type: ignore[arg-type]
    assert run(item, other).payloads() == [Placed(1), Placed(2)]
