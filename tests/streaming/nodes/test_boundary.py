"""Sources and outputs are declared by logical names, positionally as the contract lists their fields."""

from __future__ import annotations

import pytest

from loom.streaming import FromTopic, IntoTopic, Message, MessageMeta, PartitionGuarantee, PartitionPolicy, StreamShape
from tests.streaming.orders import Order


def test_a_source_reads_records_of_one_type() -> None:
    source = FromTopic("orders.raw", Order)
    assert (source.name, source.payload, source.shape) == ("orders.raw", Order, StreamShape.RECORD)


def test_an_output_takes_whatever_arrives_one_record_at_a_time() -> None:
    output = IntoTopic[Order]("orders.priced")
    assert output == IntoTopic("orders.priced", None, StreamShape.RECORD, None, None)


def test_the_fields_of_an_output_stand_in_the_order_of_the_contract() -> None:
    policy = PartitionPolicy(ById(), PartitionGuarantee.BEST_EFFORT, True)
    output = IntoTopic("orders.priced", Order, StreamShape.MANY, policy, "orders.dead")
    assert (output.payload, output.shape, output.partitioning, output.dlq) == (
        Order,
        StreamShape.MANY,
        policy,
        "orders.dead",
    )
    assert (policy.guarantee, policy.allow_repartition) == ("best_effort", True)


class ById:
    def partition_key(self, message: Message[Order]) -> bytes:
        return b"%d" % message.payload.id


def test_a_key_strategy_is_any_object_that_names_a_key() -> None:
    assert ById().partition_key(Message(Order(7), MessageMeta("m"))) == b"7"


def test_declarations_compare_by_value() -> None:
    assert FromTopic("a", Order) == FromTopic("a", Order)
    assert IntoTopic[Order]("a") != IntoTopic[Order]("b")


def test_a_declaration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        FromTopic("a", Order).name = "b"  # type: ignore[misc]


@pytest.mark.parametrize("value", ["record", "many", "batch", "none"])
def test_a_shape_is_its_text(value: str) -> None:
    assert StreamShape(value) == value
