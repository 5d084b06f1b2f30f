"""Where a declaration takes one of a few values, their text is as good as the enum, and anything else is refused with them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from enum import Enum
from typing import Any, Literal, get_args, get_origin

import msgspec
import pytest

from loom.core.config.shape import allowed_values
from loom.core.model import LoomFrozenStruct
from loom.core.observability.settings import LogSettings
from loom.streaming import (
    CollectBatch,
    ErrorKind,
    ErrorRoute,
    FromMultiTypeTopic,
    FromTopic,
    IntoTopic,
    Message,
    MessageMeta,
    PartitionGuarantee,
    PartitionPolicy,
    Process,
    ResourceScope,
    StreamFlow,
    StreamShape,
    WindowStrategy,
    With,
    WithAsync,
    compile_flow,
    step,
)
from loom.streaming.bytewax import BytewaxRuntimeConfig
from loom.streaming.kafka import ConsumerSettings, KafkaSecuritySettings, MsgspecCodec, ProducerSettings
from loom.streaming.kafka.settings import Delivery, HeaderPolicy, WireFormat
from loom.streaming.testing import StreamingTestRunner
from tests.streaming.orders import CONFIG, PRICED, RAW, Line, Order, flow, validate

INSIDE = Process(validate)


class ById:
    def partition_key(self, message: Message[Order]) -> bytes:
        return b"%d" % message.payload.id


#: what is declared with a text, where it is kept, and the member that the text names
TEXTS: list[tuple[Callable[[Any], Any], str, Enum | str]] = [
    (lambda text: FromTopic("a", Order, text), "shape", StreamShape.RECORD),
    (lambda text: FromMultiTypeTopic("a", (Order, Line), text), "shape", StreamShape.RECORD),
    (lambda text: IntoTopic("a", shape=text), "shape", StreamShape.MANY),
    (lambda text: PartitionPolicy(ById(), text), "guarantee", PartitionGuarantee.ENTITY_STABLE),
    (lambda text: CollectBatch(10, 100, text), "window", WindowStrategy.COLLECT),
    (lambda text: With(text, process=INSIDE), "scope", ResourceScope.BATCH),
    (lambda text: WithAsync(text, process=INSIDE), "scope", ResourceScope.WORKER),
    (lambda text: ErrorRoute(text, IntoTopic("bad")), "kinds", ErrorKind.TASK),
    (lambda text: StreamFlow("a", RAW, INSIDE, unrouted=text), "unrouted", "drop"),
    (lambda text: ConsumerSettings("a:1", "g", delivery=text), "delivery", Delivery.EXACTLY_ONCE),
    (lambda text: ConsumerSettings("a:1", "g", format=text), "format", WireFormat.BYTES),
    (lambda text: ConsumerSettings("a:1", "g", auto_offset_reset=text), "auto_offset_reset", "latest"),
    (lambda text: ConsumerSettings("a:1", "g", on_out_of_range=text), "on_out_of_range", "earliest"),
    (lambda text: ConsumerSettings("a:1", "g", on_topic_change=text), "on_topic_change", "stop"),
    (lambda text: ProducerSettings("a:1", format=text), "format", WireFormat.MSGPACK),
    (lambda text: ProducerSettings("a:1", headers=text), "headers", HeaderPolicy.FULL),
    (lambda text: KafkaSecuritySettings(text), "protocol", "SASL_SSL"),
    (lambda text: KafkaSecuritySettings(sasl_mechanism=text), "sasl_mechanism", "PLAIN"),
    (lambda text: BytewaxRuntimeConfig(async_backend=text), "async_backend", "trio"),
    (lambda text: LogSettings(level=text), "level", "error"),
]


def ids(row: Any) -> str:
    return str(row) if isinstance(row, str) else ""


@pytest.mark.parametrize(("declare", "kept", "member"), TEXTS, ids=ids)
def test_the_text_of_a_value_is_the_value(declare: Callable[[Any], Any], kept: str, member: Any) -> None:
    found = getattr(declare(str(member)), kept)
    assert found == (member,) if kept == "kinds" else found is member or found == member
    assert type(found[0] if kept == "kinds" else found) is type(member)


@pytest.mark.parametrize("junk", ["tumbling", "", "RECORDS", 7, ["record"], None.__class__], ids=repr)
@pytest.mark.parametrize(("declare", "kept", "member"), TEXTS, ids=ids)
def test_anything_else_is_refused_with_the_values_there_are(
    declare: Callable[[Any], Any], kept: str, member: Any, junk: Any
) -> None:
    with pytest.raises((ValueError, TypeError)) as refused:
        declare(junk)
    if not isinstance(junk, str) and kept == "kinds":
        return  # what is no collection of kinds at all
    assert repr(str(member)) in str(refused.value)


def test_a_near_miss_is_told_what_was_meant() -> None:
    with pytest.raises(
        ValueError, match=r"PartitionPolicy\(guarantee=…\) takes 'none', .*did you mean 'entity_stable'"
    ):
        PartitionPolicy(ById(), "entity-stable")  # type: ignore[arg-type]


def test_no_declaration_and_no_settings_leave_such_a_field_unchecked() -> None:
    packages = ("loom.streaming", "loom.streaming.kafka", "loom.streaming.bytewax", "loom.core.observability.settings")
    exported = [getattr(module, name) for module in map(importlib.import_module, packages) for name in module.__all__]
    #: what the flow itself makes, and a binding, which the registry checks with the section it stands in
    made_at_run_time = {"ErrorEnvelope", "RuntimeSinkBinding"}
    unchecked = []
    for struct in exported:
        if (
            not (isinstance(struct, type) and issubclass(struct, LoomFrozenStruct))
            or struct.__name__ in made_at_run_time
        ):
            continue
        for field in msgspec.structs.fields(struct):
            arms = [arm for arm in (get_args(field.type) or (field.type,)) if arm is not type(None)]
            if get_origin(field.type) is not Literal and not (len(arms) == 1 and allowed_values(arms[0])):
                continue
            required = {f.name: object() for f in msgspec.structs.fields(struct) if f.required and f.name != field.name}
            try:
                struct(**required, **{field.name: "no such value"})
            except (ValueError, TypeError):
                continue
            unchecked.append(f"{struct.__name__}.{field.name}")
    assert unchecked == []


def test_a_stable_key_given_as_text_is_stable() -> None:
    policy = PartitionPolicy(ById(), "entity_stable")  # type: ignore[arg-type]
    plan = compile_flow(flow(validate, output=IntoTopic("out", partitioning=policy)), config=CONFIG)
    assert plan.output is not None
    assert plan.output.partitioning == PartitionPolicy(policy.strategy, PartitionGuarantee.ENTITY_STABLE)


def test_a_source_with_its_shape_as_text_compiles() -> None:
    source = FromTopic("orders.raw", Order, "record")  # type: ignore[arg-type]
    assert compile_flow(flow(validate, source=source), config=CONFIG).source.shape is StreamShape.RECORD


def test_settings_with_their_format_as_text_write_that_format() -> None:
    text: Any = "msgpack"
    codec = MsgspecCodec(Order, text)
    assert codec.encode("a", Message(Order(1), MessageMeta("m"))).value == msgspec.msgpack.encode(Order(1))
    with pytest.raises(ValueError, match="'json', 'msgpack', 'envelope' or 'bytes'"):
        MsgspecCodec(Order, "yaml")  # type: ignore[arg-type]


def test_the_test_kit_captures_kinds_by_their_text_and_no_others() -> None:
    @step
    def fails(order: Order) -> Order:
        raise RuntimeError("no")

    declared = StreamFlow("orders", RAW, Process(fails), PRICED)
    runner = StreamingTestRunner.from_flow(declared).capture_errors("task")  # type: ignore[arg-type]
    assert len(runner.with_payloads([Order(1)]).run().errors[ErrorKind.TASK]) == 1
    with pytest.raises(ValueError, match=r"'wire', 'routing', 'task' or 'business'.*did you mean 'task'"):
        runner.capture_errors("taks")  # type: ignore[arg-type]
