"""Every payload type that an author may write goes in, through a step, and out, in every format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pytest

from loom.streaming import (
    ErrorEnvelope,
    ErrorKind,
    Explode,
    FromTopic,
    IntoTopic,
    Process,
    StreamFlow,
    compile_flow,
    step,
)
from loom.streaming.compiler import Code, CompilationError
from loom.streaming.formats.envelope_format import MessageEnvelope, MessageMetadata
from loom.streaming.kafka import KafkaRecord
from loom.streaming.testing import BrokerTopics, StreamingTestRunner
from tests.streaming.formats.payloads import PAYLOADS, Created, Deleted, Fields, Id, Payload, Row, kept
from tests.streaming.orders import Order, UrgentOrder

FORMATS = ["json", "msgpack", "envelope"]
#: `Any` declares nothing
DECLARED = {name: payload for name, payload in PAYLOADS.items() if payload.type is not Any}
BROKEN = {"json": b"{", "msgpack": b"\xc1", "envelope": b"\x82\xc1"}
BROKERED = ["dataclass", "dict of structs", "list of structs", "text", "tagged structs, the second", "pydantic"]


class Fewer(TypedDict):
    """Has keys that `Fields` has."""

    id: int


class Other(TypedDict):
    """Has a key that `Fields` lacks."""

    name: str


def flow(payload: Any) -> StreamFlow[Any, Any]:
    return StreamFlow("types", FromTopic("raw", payload), Process(kept(payload)), IntoTopic("out"))


def config(read: str, write: str, **producer: Any) -> dict[str, Any]:
    return {
        "kafka": {
            "consumer": {"brokers": ["x:1"], "group_id": "g", "format": read},
            "producer": {"brokers": ["x:1"], "format": write, **producer},
        }
    }


def encoded(json: bytes, wire_format: str) -> bytes:
    """What stands in JSON, in another format."""
    if wire_format == "json":
        return json
    plain = msgspec.json.decode(json)
    return msgspec.msgpack.encode(MessageEnvelope(MessageMetadata(), plain) if wire_format == "envelope" else plain)


def plain(value: bytes | None, wire_format: str) -> Any:
    """What stands in a written value, without its envelope."""
    assert value is not None
    if wire_format == "json":
        return msgspec.json.decode(value)
    found = msgspec.msgpack.decode(value)
    return found["payload"] if wire_format == "envelope" else found


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
@pytest.mark.parametrize("wire_format", FORMATS)
def test_it_is_read_and_written(payload: Payload, wire_format: str) -> None:
    write = wire_format if payload.labelled else "msgpack" if wire_format == "envelope" else wire_format
    runner = StreamingTestRunner.from_flow(flow(payload.type), config(wire_format, write))
    runner.with_records([KafkaRecord("raw", None, encoded(payload.json, wire_format))]).run()
    (message,) = runner.output
    assert message.payload == payload.made
    assert type(message.payload) is type(payload.made)
    (record,) = runner.written("out")
    # MessagePack has a time of its own, which JSON has not.
    assert msgspec.to_builtins(plain(record.value, write)) == msgspec.json.decode(payload.json)


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_it_may_be_given_to_the_test_kit_as_it_is(payload: Payload) -> None:
    runner = StreamingTestRunner.from_flow(flow(payload.type)).with_payloads([payload.made, payload.made]).run()
    assert [message.payload for message in runner.output] == [payload.made] * 2
    assert [record.value for record in runner.written("out")] == [payload.json] * 2


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
@pytest.mark.parametrize("wire_format", FORMATS)
def test_bytes_of_another_type_are_a_wire_error(payload: Payload, wire_format: str) -> None:
    assert payload.wrong is not None
    runner = StreamingTestRunner.from_flow(flow(payload.type), config(wire_format, "json")).capture_errors()
    value = encoded(payload.wrong, wire_format) if payload.type is not Any else BROKEN[wire_format]
    runner.with_records([KafkaRecord("raw", b"k", value, {"a": b"1"})]).run()
    (envelope,) = runner.errors[ErrorKind.WIRE]
    assert envelope.original_message is None
    assert envelope.source is not None
    assert envelope.source.value == value
    assert not runner.output


@pytest.mark.parametrize("payload", DECLARED.values(), ids=DECLARED)
def test_a_step_that_returns_something_else_is_a_task_error(payload: Payload) -> None:
    class Strange: ...

    def wrong(found: Any) -> Any:
        return Strange()

    wrong.__annotations__["return"] = payload.type
    declared = StreamFlow("types", FromTopic("raw", payload.type), Process(step(wrong)), IntoTopic("out"))
    runner = StreamingTestRunner.from_flow(declared).with_payloads([payload.made]).capture_errors().run()
    (envelope,) = runner.errors[ErrorKind.TASK]
    assert "returned a" in envelope.reason
    assert envelope.original_message is not None
    assert envelope.original_message.payload == payload.made


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_a_plan_tells_of_it(payload: Payload) -> None:
    plan = compile_flow(flow(payload.type), config=config("json", "json"))
    for form in ("text", "json", "mermaid", "code"):
        assert plan.explain(form)


@pytest.mark.parametrize("payload", DECLARED.values(), ids=DECLARED)
@pytest.mark.parametrize(
    ("settings", "remedy"),
    [({"format": "envelope"}, "such as json or msgpack"), ({"headers": "full"}, "headers: auto or none")],
    ids=["envelope", "headers"],
)
def test_a_type_without_a_class_of_its_own_has_no_label(
    payload: Payload, settings: dict[str, Any], remedy: str
) -> None:
    given = config("json", "json")
    given["kafka"]["producer"] |= settings
    if payload.labelled:
        compile_flow(flow(payload.type), config=given)
        return
    with pytest.raises(CompilationError) as error:
        compile_flow(flow(payload.type), config=given)
    assert {issue.code for issue in error.value.errors} == {Code.PAYLOAD_INVALID}
    assert all("has no message type" in issue.message for issue in error.value.errors)
    assert all(remedy in (issue.remedy or "") for issue in error.value.errors)
    assert {issue.where for issue in error.value.errors} == {"output"}


@pytest.mark.parametrize("name", BROKERED)
def test_it_goes_through_a_broker(name: str, loom_topics: BrokerTopics) -> None:
    payload = PAYLOADS[name]
    for write in ("json", "msgpack", *(["envelope"] if payload.labelled else [])):
        records = [KafkaRecord(write, b"k", payload.json), KafkaRecord(write, b"k", payload.wrong)]
        declared = StreamFlow(
            write,
            FromTopic(write, payload.type),
            Process(kept(payload.type)),
            IntoTopic(f"{write}.out"),
            errors=IntoTopic(f"{write}.errors"),
        )
        loom_topics.produce_records(records)
        loom_topics.create(f"{write}.out", f"{write}.errors")
        named = {f"{write}.out": {"format": write}}
        loom_topics.run(declared, inputs=2, config={"kafka": {"consumer": {"group_id": write}, "producers": named}})
        (record,) = loom_topics.read(f"{write}.out")
        assert record.key == b"k"
        assert msgspec.to_builtins(plain(record.value, write)) == msgspec.json.decode(payload.json)
        (dead,) = loom_topics.read(f"{write}.errors")
        assert (dead.value, dead.headers["x-error-kind"]) == (payload.wrong, b"wire")


@pytest.mark.parametrize("payload", DECLARED.values(), ids=DECLARED)
@pytest.mark.parametrize("dead", ["json", "envelope"])
def test_its_dead_letters_are_read_back(payload: Payload, dead: str) -> None:
    def fail(found: Any) -> Any:
        raise ValueError("no")

    def original(failed: Any) -> Any:
        return failed.original_message.payload

    fail.__annotations__["return"] = payload.type
    original.__annotations__["return"] = payload.type
    failing = StreamFlow(
        "types", FromTopic("raw", payload.type), Process(step(fail)), IntoTopic("out"), errors=IntoTopic("dead")
    )
    settings = config("json", "json")
    settings["kafka"]["producers"] = {"dead": {"format": dead}}
    runner = StreamingTestRunner.from_flow(failing, settings).with_records([KafkaRecord("raw", None, payload.json)])
    letters = runner.run().written("dead")
    back = StreamFlow(
        "again", FromTopic("dead", ErrorEnvelope[payload.type]), Process(step(original)), IntoTopic("out")
    )
    again = StreamingTestRunner.from_flow(back).with_records(letters).run()
    assert [message.payload for message in again.output] == [payload.made]
    assert [record.value for record in again.written("out")] == [payload.json]


def test_a_list_is_one_payload_until_something_explodes_it() -> None:
    @step
    def double(found: int) -> int:
        return 2 * found

    declared = StreamFlow(
        "lists", FromTopic("raw", list[int]), Process(Explode(lambda found: found), double), IntoTopic("out")
    )
    runner = StreamingTestRunner.from_flow(declared).with_records([KafkaRecord("raw", None, b"[1,2]")]).run()
    assert [message.payload for message in runner.output] == [2, 4]


@pytest.mark.parametrize(
    ("flowing", "wanted", "fits"),
    [
        (dict[str, int], dict, True),
        (dict[str, int], dict[str, Any], True),
        (dict[str, int], dict[str, str], False),
        (dict[str, int], Mapping[str, int], True),
        (dict[str, int], list, False),
        (list[UrgentOrder], Sequence[Order], True),
        (list[UrgentOrder], list[Order], False),
        (list[Order], tuple[Order, ...], False),
        (dict[str, Id], dict[str, int], True),
        (Annotated[dict[str, int], "sizes"], dict[str, int], True),
        (Id, int, True),
        (int, float, True),
        (float, int, False),
        (Literal["a"], str, True),
        (Literal["a"], Literal["a", "b"], True),
        (Literal["a", "c"], Literal["a", "b"], False),
        (str, Literal["a"], False),
        (Fields, dict, True),
        (Fields, Fields, True),
        (Fields, Fewer, True),
        (Fields, Other, False),
        (dict[str, Any], Fields, True),
        (Order, Fields, False),
        (Row, tuple, True),
        (Created | Deleted, Created | Deleted | Order, True),
        (Created | Deleted, Created, False),
        (Any, Order, True),
        (Order, Any, True),
        (Order, object, True),
    ],
    ids=str,
)
def test_what_flows_is_held_against_what_a_step_takes(flowing: Any, wanted: Any, fits: bool) -> None:
    def take(found: Any) -> Any:
        return found

    take.__annotations__["found"] = wanted
    declared = StreamFlow("types", FromTopic("raw", flowing), Process(step(take)), IntoTopic("out"))
    problems = []
    try:
        compile_flow(declared, config=config("json", "json"))
    except CompilationError as error:
        problems = [issue.code for issue in error.errors]
    assert problems == ([] if fits else [Code.TYPE_MISMATCH])
