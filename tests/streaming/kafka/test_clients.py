"""The typed clients against the in-process broker: what a producer flushed, a consumer reads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import Message, MessageMeta, Tombstone
from loom.streaming.kafka import (
    BrokerUnavailableError,
    ConsumerSettings,
    DecodeError,
    DecodeOk,
    DeliveryFailedError,
    EmbeddedBroker,
    HeaderPolicy,
    Headers,
    KafkaConsumer,
    KafkaProducer,
    KafkaRecord,
    KafkaTransportError,
    MsgspecCodec,
    ProducerSettings,
    WireFormat,
)
from tests.streaming.orders import Order

OWN = (("own", b"1"), ("own", None), ("own", b""))
META = MessageMeta("m", "c", "t", key=b"k", headers=Headers(OWN))


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


def producer(broker: EmbeddedBroker, topic: str, payload: Any = Order, **options: Any) -> KafkaProducer[Any]:
    broker.create_topic(topic)
    return KafkaProducer(ProducerSettings(broker.bootstrap, **options), topic, payload)


@pytest.fixture(scope="module")
def found(broker: EmbeddedBroker) -> list[DecodeOk[Any] | DecodeError]:
    """What one consumer reads of everything that these tests send; joining a group takes seconds, so it is done once."""
    with producer(broker, "orders") as orders:
        orders.send(Order(1), key="ñ", timestamp_ms=1_700_000_000_000)
        orders.send(Order(2))
        orders.send(Order(5), timestamp_ms=0)
        codec: MsgspecCodec[Any] = MsgspecCodec(Order)
        orders.send_record(codec.encode("orders", Message(Order(3), META)))
        orders.send_record(codec.encode("orders", Message(Tombstone(), META)))
        orders.send_record(KafkaRecord("orders", None, b"\xff no JSON"))
    with producer(broker, "enveloped", format=WireFormat.ENVELOPE, headers=HeaderPolicy.FULL) as enveloped:
        enveloped.send(Order(4))
    with producer(broker, "keyed") as keyed:
        for number in range(300):
            keyed.send(Order(number), key=f"k{number % 7}")
    settings = ConsumerSettings(broker.bootstrap, "readers", ("orders", "enveloped", "keyed"))
    with KafkaConsumer(settings, Order) as reader:
        return list(reader.read(idle_s=1))


def messages(found: list[DecodeOk[Any] | DecodeError], topic: str) -> list[Message[Any]]:
    return [one.message for one in found if isinstance(one, DecodeOk) and one.message.meta.topic == topic]


def order(found: list[DecodeOk[Any] | DecodeError], number: int) -> Message[Any]:
    payloads = [*messages(found, "orders"), *messages(found, "enveloped")]
    (message,) = (m for m in payloads if m.payload is not Tombstone() and m.payload.id == number)
    return message


def test_a_broker_makes_topics_and_tells_their_partitions(broker: EmbeddedBroker) -> None:
    assert broker.create_topic("made") == broker.create_topic("made") > 0
    assert ":" in broker.bootstrap


def test_joining_the_group_is_no_idleness(found: Any) -> None:
    """It takes longer than the reader was willing to idle, and once nothing was read for it."""
    assert len(found) == 307


def test_key_and_time_are_read_as_they_were_sent(found: Any) -> None:
    meta = order(found, 1).meta
    assert (meta.key, meta.produced_at_ms) == ("ñ".encode(), 1_700_000_000_000)


def test_a_record_without_key_and_time_gets_the_time_of_its_writing(found: Any) -> None:
    meta = order(found, 2).meta
    assert meta.key is None
    assert meta.produced_at_ms == pytest.approx(time.time() * 1000, abs=60_000)


def test_the_time_1970_is_sent_as_the_first_moment_that_a_client_can_write(found: Any) -> None:
    assert order(found, 5).meta.produced_at_ms == 1


@pytest.mark.parametrize(
    "record",
    [
        KafkaRecord("refused", 5, b"{}"),  # type: ignore[arg-type]
        KafkaRecord("refused", None, b"{}", {"\udcff": b"1"}),
        KafkaRecord("refused", None, b"{}", {"a\0b": b"1"}),
        KafkaRecord("refused", None, b"{}", timestamp_ms=2**70),
    ],
    ids=["key", "surrogate", "NUL", "time"],
)
def test_a_record_that_is_none_is_refused_before_the_client_sees_it(
    broker: EmbeddedBroker, record: KafkaRecord
) -> None:
    with producer(broker, "refused") as refused, pytest.raises((TypeError, ValueError)):
        refused.send_record(record)


def test_headers_are_read_in_order_and_ids_with_them(found: Any) -> None:
    meta = order(found, 3).meta
    assert Headers.of(meta.headers).pairs == (*OWN, ("x-correlation-id", b"c"), ("x-trace-id", b"t"))
    assert (meta.correlation_id, meta.trace_id, meta.key) == ("c", "t", b"k")


def test_a_tombstone_is_read_with_its_key_and_headers(found: Any) -> None:
    (tombstone,) = (m for m in messages(found, "orders") if m.payload is Tombstone())
    assert tombstone.meta.key == b"k"
    assert Headers.of(tombstone.meta.headers).pairs[:3] == OWN


def test_a_record_that_does_not_decode_is_read_as_data(found: Any) -> None:
    failed = [one for one in found if isinstance(one, DecodeError)]
    assert [(one.raw, one.topic, one.key) for one in failed] == [(b"\xff no JSON", "orders", None)]


def test_an_envelope_is_recognised_and_its_place_is_the_records(found: Any) -> None:
    meta = order(found, 4).meta
    assert meta.headers["content-type"] == b"application/vnd.loom.envelope+msgpack"
    assert (meta.topic, meta.message_id) == ("enveloped", f"enveloped:{meta.partition}:{meta.offset}")


def test_records_of_one_key_stay_in_order_in_one_partition(found: Any) -> None:
    keyed = messages(found, "keyed")
    assert {message.meta.key for message in keyed} == {b"k%d" % number for number in range(7)}
    for key in {message.meta.key for message in keyed}:
        same = [message for message in keyed if message.meta.key == key]
        assert len({message.meta.partition for message in same}) == 1
        assert [m.payload.id for m in same] == sorted(m.payload.id for m in same)


def test_a_record_that_the_client_refuses_is_raised_at_the_latest_by_flush(broker: EmbeddedBroker) -> None:
    class Blob(LoomFrozenStruct):
        body: str

    with pytest.raises(DeliveryFailedError, match="large"), producer(broker, "blobs", Blob) as blobs:
        blobs.send(Blob("x" * 2_000_000))


def test_what_was_not_flushed_is_given_up_when_the_block_fails(broker: EmbeddedBroker) -> None:
    def send_and_fail() -> None:
        with producer(broker, "given-up") as orders:
            orders.send(Order(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        send_and_fail()


def test_a_producer_lets_go_of_its_client_though_flushing_failed(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    orders = producer(broker, "unflushed")
    close = orders.close
    monkeypatch.setattr(orders, "flush", lambda: 1 / 0)
    monkeypatch.setattr(orders, "close", lambda: (close(), closed.append(True)))
    with pytest.raises(ZeroDivisionError), orders:
        pass
    assert closed == [True]


def test_a_broker_that_is_away_is_waited_for_and_then_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """One transient fault once ended the reading; waiting for ever would be no better."""
    monkeypatch.setattr("loom.streaming.kafka.clients._JOIN", 0.5)
    settings = ConsumerSettings("127.0.0.1:1", "g", ("orders",))
    begun = time.monotonic()
    with KafkaConsumer(settings, Order) as reader, pytest.raises(BrokerUnavailableError):
        list(reader.read(idle_s=0.1))
    assert time.monotonic() - begun >= 0.5


def test_a_partition_that_has_not_answered_yet_is_not_idle(broker: EmbeddedBroker) -> None:
    """The broker's first answer once counted as idle: where it took long, nothing was read and nothing was said."""
    with producer(broker, "slow") as slow:
        slow.send(Order(1))
    broker.create_topic("empty")
    settings = ConsumerSettings(broker.bootstrap, "slow", ("slow", "empty"))
    with KafkaConsumer(settings, Order) as reader:
        (found,) = reader.read(idle_s=0.001)
    assert isinstance(found, DecodeOk)


def test_a_consumer_without_topics_is_refused() -> None:
    """An empty list once read nothing."""
    with pytest.raises(ValueError, match="topics"):
        KafkaConsumer(ConsumerSettings("a:1", "g"), Order)


def test_a_property_that_the_client_refuses_is_named_without_its_value() -> None:
    unknown = ProducerSettings("a:1", extra={"no.such.property": "hunter2"})
    with pytest.raises(KafkaTransportError, match=r"refuses its configuration.*no\.such\.property") as caught:
        KafkaProducer(unknown, "orders", Order)
    assert "hunter2" not in str(caught.value)


def test_a_closed_broker_makes_no_topics() -> None:
    running = EmbeddedBroker()
    running.close()
    with pytest.raises(RuntimeError, match="closed"):
        running.create_topic("x")
