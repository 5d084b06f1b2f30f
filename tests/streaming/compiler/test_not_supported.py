"""What is declared for later is refused with a way out; nothing is ignored."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.errors import NotSupportedYetError
from loom.streaming import (
    ErrorEnvelope,
    ErrorKind,
    Fork,
    FromTopic,
    IntoTopic,
    Message,
    PartitionGuarantee,
    PartitionPolicy,
    Process,
    StreamShape,
    compile_flow,
    step,
)
from loom.streaming.compiler import Code, CompilationError, Issue
from tests.streaming.orders import CONFIG, Order, by_country, ended, flow, price, validate


class ById:
    def partition_key(self, message: Message[Order]) -> str:
        return str(message.payload.id)


POLICY = PartitionPolicy(ById(), PartitionGuarantee.ENTITY_STABLE)


def refusal(declared: Any, settings: Any = CONFIG) -> Issue:
    with pytest.raises(CompilationError) as caught:
        compile_flow(declared, config=settings)
    (issue,) = caught.value.errors
    assert issue.code is Code.NOT_SUPPORTED
    assert issue.message.endswith("is not supported yet")
    assert issue.remedy
    return issue


@pytest.mark.parametrize(
    ("declared", "where", "path"),
    [
        (flow(price, output=IntoTopic("orders.priced", partitioning=POLICY)), "output", ()),
        (ended(IntoTopic("orders.priced", partitioning=POLICY)), "process", (0,)),
        (
            ended(Fork.by(by_country, {"ES": Process(IntoTopic("orders.priced", partitioning=POLICY))})),
            "process",
            (0, 0, 0),
        ),
        (
            flow(price, errors={kind: IntoTopic("orders.priced", partitioning=POLICY) for kind in ErrorKind}),
            "errors",
            (),
        ),
    ],
    ids=["output", "node", "branch", "errors"],
)
def test_a_key_policy_is_refused_wherever_a_topic_is_written(declared: Any, where: str, path: Any) -> None:
    issue = refusal(declared)
    assert issue.message == "IntoTopic('orders.priced', partitioning=…) is not supported yet"
    assert (issue.where, issue.path) == (where, path)


@pytest.mark.parametrize("shape", [StreamShape.MANY, StreamShape.BATCH, StreamShape.NONE])
def test_a_source_of_another_shape_is_refused(shape: StreamShape) -> None:
    issue = refusal(flow(validate, source=FromTopic("orders.raw", Order, shape)))
    assert issue.where == "source"
    assert f"FromTopic(shape={shape.value!r})" in issue.message


@pytest.mark.parametrize("payload", [ErrorEnvelope, ErrorEnvelope[Order]])
def test_reading_dead_letters_back_is_refused(payload: Any) -> None:
    issue = refusal(flow(step(lambda letter: letter), source=FromTopic("orders.raw", payload)))
    assert (issue.where, issue.path) == ("source", ())
    assert "FromTopic(payload=ErrorEnvelope)" in issue.message


@pytest.mark.parametrize("format", ["mermaid", "json"])
def test_a_picture_of_the_plan_is_refused_rather_than_left_empty(format: Any) -> None:
    plan = compile_flow(flow(price), config=CONFIG)
    with pytest.raises(NotSupportedYetError, match=rf"format='{format}'.*'text' is"):
        plan.explain(format)
