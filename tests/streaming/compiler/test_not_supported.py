"""What is declared for later is refused with a way out; nothing is ignored."""

from __future__ import annotations

from typing import Any

import pytest

from loom.streaming import (
    CollectBatch,
    ForEach,
    FromTopic,
    IntoTopic,
    Message,
    PartitionGuarantee,
    PartitionPolicy,
    StreamShape,
    compile_flow,
)
from loom.streaming.compiler import Code, CompilationError, Issue
from tests.streaming.orders import CONFIG, Order, flow, price, validate


def refusal(declared: Any, settings: Any = CONFIG) -> Issue:
    with pytest.raises(CompilationError) as caught:
        compile_flow(declared, config=settings)
    (issue,) = caught.value.errors
    assert issue.code is Code.NOT_SUPPORTED
    assert issue.message.endswith("is not supported yet")
    assert issue.remedy
    return issue


def test_a_key_policy_on_an_error_route_is_refused() -> None:
    class ById:
        def partition_key(self, message: Message[Order]) -> str:
            return str(message.payload.id)

    policy = PartitionPolicy(ById(), PartitionGuarantee.ENTITY_STABLE)
    with pytest.raises(CompilationError) as caught:
        compile_flow(flow(price, errors=IntoTopic("orders.errors", partitioning=policy)), config=CONFIG)
    (issue,) = caught.value.errors
    assert (issue.code, issue.where, issue.path) == (Code.NOT_SUPPORTED, "errors", ())
    assert issue.remedy == "remove partitioning=…: a dead letter keeps the key of the record that it was"


def test_collecting_by_event_time_is_refused() -> None:
    issue = refusal(flow(CollectBatch(10, 100, event_time=True), ForEach()))
    assert (issue.where, issue.path) == ("process", (0,))


@pytest.mark.parametrize("shape", [StreamShape.MANY, StreamShape.BATCH, StreamShape.NONE])
def test_a_source_of_another_shape_is_refused(shape: StreamShape) -> None:
    issue = refusal(flow(validate, source=FromTopic("orders.raw", Order, shape)))
    assert issue.where == "source"
    assert f"FromTopic(shape={shape.value!r})" in issue.message
