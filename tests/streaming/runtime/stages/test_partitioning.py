"""Key policies of an output: who names the key of a message, and what becomes of one for which nobody does."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    Broadcast,
    BroadcastRoute,
    ErrorKind,
    FromTopic,
    IntoTopic,
    Message,
    PartitionGuarantee,
    PartitionPolicy,
    Process,
    RecordStep,
    StreamFlow,
    step,
)
from loom.streaming.kafka import KafkaRecord
from tests.support.running import Written, config_for, in_memory, into_topics

NONE, BEST_EFFORT, ENTITY_STABLE = PartitionGuarantee


class Order(LoomFrozenStruct):
    id: int
    customer: str | None = None


class ByCustomer:
    def partition_key(self, message: Message[Order]) -> str | None:
        if message.payload.customer == "nobody":
            raise RuleViolation("nobody has no partition")
        return message.payload.customer


class ByTopic:
    """Asks for metadata, which is made for it alone."""

    def partition_key(self, message: Message[Order]) -> bytes:
        return f"{message.meta.topic}-{message.meta.offset}".encode()


@step
def same(order: Order) -> Order:
    return order


def flow(
    guarantee: PartitionGuarantee, *, repartition: bool = False, strategy: Any = None, nodes: Any = (same,)
) -> StreamFlow[Any, Any]:
    policy = PartitionPolicy(strategy or ByCustomer(), guarantee, repartition)
    into = IntoTopic[Any]("out", partitioning=policy)
    return StreamFlow("placing", FromTopic("orders", Order), Process(*nodes), into, IntoTopic("errors"))


def order(key: bytes | None, customer: str | None, offset: int = 0) -> KafkaRecord:
    value = b'{"id":1}' if customer is None else b'{"id":1,"customer":"%s"}' % customer.encode()
    return KafkaRecord("orders", key, value, {"a": b"1"}, 0, offset, 5_000)


def written(declared: StreamFlow[Any, Any], *items: KafkaRecord, **producer: Any) -> tuple[list[Written], list[str]]:
    """What stands in the topic, and the kinds of the errors."""
    topics, _ = into_topics(declared, items, config=config_for(producer=producer))
    kinds = [(dict(letter.headers)["x-error-kind"] or b"").decode() for letter in topics.get("errors", [])]
    return topics.get("out", []), kinds


@pytest.mark.parametrize("guarantee", PartitionGuarantee)
def test_a_message_without_a_key_gets_that_of_the_policy(guarantee: PartitionGuarantee) -> None:
    (record,), errors = written(flow(guarantee), order(None, "ada"))
    assert (record.key, errors) == (b"ada", [])


@pytest.mark.parametrize("guarantee", PartitionGuarantee)
def test_a_message_that_has_a_key_keeps_it(guarantee: PartitionGuarantee) -> None:
    (record, other), errors = written(flow(guarantee), order(b"k", "ada"), order(b"", "ada", 1))
    # An empty key is a key.
    assert (record.key, other.key, errors) == (b"k", b"", [])


def test_a_strategy_is_not_asked_about_a_message_that_keeps_its_key() -> None:
    _, errors = written(flow(ENTITY_STABLE), order(b"k", "nobody"))
    assert errors == []


@pytest.mark.parametrize("guarantee", PartitionGuarantee)
def test_a_message_that_has_a_key_gets_another_where_repartitioning_is_allowed(guarantee: PartitionGuarantee) -> None:
    (record,), _ = written(flow(guarantee, repartition=True), order(b"k", "ada"))
    assert record.key == b"ada"


@pytest.mark.parametrize("key", [None, b"k"])
def test_entity_stable_makes_a_routing_error_of_a_message_for_which_the_policy_names_no_key(key: bytes | None) -> None:
    found, errors = written(flow(ENTITY_STABLE, repartition=True), order(key, None), order(key, "ada", 1))
    assert ([record.key for record in found], errors) == ([b"ada"], ["routing"])


@pytest.mark.parametrize("key", [None, b"k"])
def test_best_effort_falls_back_to_the_key_that_came(key: bytes | None) -> None:
    (record,), errors = written(flow(BEST_EFFORT, repartition=True), order(key, None))
    assert (record.key, errors) == (key, [])


@pytest.mark.parametrize("key", [None, b"k"])
def test_no_promise_writes_a_message_without_a_key_where_the_policy_names_none(key: bytes | None) -> None:
    (record,), errors = written(flow(NONE, repartition=True), order(key, None))
    assert (record.key, errors) == (None, [])


@pytest.mark.parametrize("guarantee", PartitionGuarantee)
def test_a_strategy_that_raises_is_a_routing_error_of_that_message_at_the_output(guarantee: PartitionGuarantee) -> None:
    items = [order(None, "nobody"), order(None, "ada", 1)]
    topics, counts = into_topics(flow(guarantee), items)
    (letter,) = topics["errors"]
    told = dict(letter.headers)
    assert (told["x-error-kind"], told["x-error-step"]) == (b"routing", b"placing.output")
    assert told["x-error-type"] == b"loom.core.errors.RuleViolation"
    assert [record.key for record in topics["out"]] == [b"ada"]
    assert counts.failed == {ErrorKind.ROUTING: 1}


def test_everything_but_the_key_stays_as_it_was() -> None:
    (record,), _ = written(flow(ENTITY_STABLE), order(None, "ada"))
    assert (record.headers, record.timestamp_ms) == ((("a", b"1"),), 5_000)


@pytest.mark.parametrize("format", ["json", "msgpack", "envelope"])
def test_a_policy_holds_in_every_format(format: str) -> None:
    (record,), _ = written(flow(ENTITY_STABLE, strategy=ByTopic()), order(None, "ada", 7), format=format)
    assert record.key == b"orders-7"


def test_a_key_that_a_step_has_set_is_one_that_came() -> None:
    class Rekey(RecordStep[Order, Order]):
        def execute(self, message: Message[Order]) -> Message[Order]:
            return message.with_key("mine")

    (record,), _ = written(flow(ENTITY_STABLE, nodes=(Rekey,)), order(None, "ada"))
    assert record.key == b"mine"


def test_a_tombstone_keeps_its_key_and_without_one_cannot_be_placed() -> None:
    keyed = KafkaRecord("orders", b"k", None, {}, 0, 0)
    (record,), errors = written(flow(ENTITY_STABLE), keyed, KafkaRecord("orders", None, None, {}, 0, 1))
    assert (record.key, record.value, errors) == (b"k", None, ["routing"])


def test_each_output_has_a_policy_of_its_own() -> None:
    policy = PartitionPolicy(ByCustomer(), BEST_EFFORT, allow_repartition=True)
    spread = Broadcast(
        BroadcastRoute(Process(same), IntoTopic("a", partitioning=policy)),
        BroadcastRoute(Process(IntoTopic("b", partitioning=PartitionPolicy(ByTopic(), NONE, True)))),
        BroadcastRoute(Process(IntoTopic("c"))),
    )
    declared = StreamFlow("placing", FromTopic("orders", Order), Process(spread))
    topics, _ = into_topics(declared, [order(b"k", "ada", 3)])
    assert {name: record.key for name, (record,) in topics.items()} == {"a": b"ada", "b": b"orders-3", "c": b"k"}


def test_a_policy_holds_in_front_of_a_sink_in_the_place_of_the_topic_too() -> None:
    ran = in_memory(flow(ENTITY_STABLE), [order(None, "ada"), order(b"k", None, 1), order(None, None, 2)])
    assert [message.meta.key for message in ran.output] == [b"ada", b"k"]
    assert [envelope.step_id for envelope in ran.errors[ErrorKind.ROUTING]] == ["placing.output"]
