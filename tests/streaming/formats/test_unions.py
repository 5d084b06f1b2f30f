"""A union of tagged structs as a payload: chosen by its tag on the way in, labelled on the way out, parted by its class."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, TypedDict

import pytest
from typing_extensions import TypeAliasType

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    ErrorKind,
    ErrorRoute,
    Fork,
    FromMultiTypeTopic,
    FromTopic,
    IntoTopic,
    Process,
    Router,
    StreamFlow,
    Tombstone,
    compile_flow,
    step,
)
from loom.streaming.compiler import Code, CompilationError, Issue
from loom.streaming.errors import ErrorEnvelope
from loom.streaming.kafka import KafkaRecord
from loom.streaming.testing import StreamingTestRunner
from tests.streaming.orders import CONFIG


class Created(LoomFrozenStruct, tag="created"):
    id: int


class Deleted(LoomFrozenStruct, tag="deleted"):
    id: int


class Moved(LoomFrozenStruct, tag="moved"):
    id: int


@dataclasses.dataclass
class Opened:
    id: int


@dataclasses.dataclass
class Closed:
    id: int


class Fields(TypedDict):
    id: int


Event = Created | Deleted

CREATED, DELETED = b'{"type":"created","id":1}', b'{"type":"deleted","id":2}'


@step
def created(event: Created) -> Created:
    return Created(event.id + 10)


@step
def gone(event: Deleted) -> Deleted:
    return Deleted(-event.id)


@step
def same(event: Created | Deleted) -> Created | Deleted:
    return event


@step
def whatever(event: Any) -> Any:
    return event


def records(*values: bytes | None) -> list[KafkaRecord]:
    return [KafkaRecord("events", None, value) for value in values]


def problems(source: Any, *nodes: Any) -> list[Issue]:
    with pytest.raises(CompilationError) as error:
        compile_flow(StreamFlow("events", source, Process(*nodes), IntoTopic("out")), config=CONFIG)
    return list(error.value.errors)


def test_each_member_is_labelled_with_its_own_type() -> None:
    flow = StreamFlow("events", FromTopic("events", Event), Process(same), IntoTopic("out", payload=Event))
    runner = StreamingTestRunner.from_flow(flow).with_records(records(CREATED, DELETED)).run()
    assert [message.payload for message in runner.output] == [Created(1), Deleted(2)]
    labels = [record.headers["x-message-type"].decode() for record in runner.written("out")]
    assert [label.rpartition(".")[2] for label in labels] == ["Created", "Deleted"]
    assert "Created | Deleted" in runner.plan.explain()


def test_a_tag_that_nobody_has_is_a_wire_error() -> None:
    flow = StreamFlow("events", FromTopic("events", Event), Process(same), IntoTopic("out"))
    runner = (
        StreamingTestRunner.from_flow(flow).with_records(records(b'{"type":"moved","id":1}')).capture_errors().run()
    )
    (envelope,) = runner.errors[ErrorKind.WIRE]
    assert "moved" in envelope.reason


def test_a_router_by_type_hands_each_branch_its_class() -> None:
    routed = Router.by(type, {Created: Process(created), Deleted: Process(gone)})
    flow = StreamFlow("events", FromTopic("events", Event), Process(routed, same), IntoTopic("out"))
    runner = StreamingTestRunner.from_flow(flow).with_records(records(CREATED, DELETED)).run()
    assert [message.payload for message in runner.output] == [Created(11), Deleted(-2)]
    assert {node.step_id for branch in runner.plan.nodes[0].branches for node in branch.nodes} == {
        "events.created.created",
        "events.deleted.gone",
    }


def test_a_fork_by_type_leaves_the_other_classes_to_the_default() -> None:
    forked = Fork.by(type, {Created: Process(created, IntoTopic("made"))}, default=Process(gone, IntoTopic("rest")))
    flow = StreamFlow("events", FromTopic("events", Event), Process(forked))
    runner = StreamingTestRunner.from_flow(flow).with_records(records(CREATED, DELETED)).run()
    assert [record.value for record in runner.written("made")] == [b'{"type":"created","id":11}']
    assert [record.value for record in runner.written("rest")] == [b'{"type":"deleted","id":-2}']


def test_a_class_without_a_branch_and_a_tombstone_are_routing_errors() -> None:
    routed = Router.by(type, {Created: Process(created)})
    flow = StreamFlow("events", FromTopic("events", Event), Process(routed), IntoTopic("out"))
    runner = StreamingTestRunner.from_flow(flow).with_records(records(DELETED, None)).capture_errors().run()
    assert [envelope.original_message.payload for envelope in runner.errors[ErrorKind.ROUTING]] == [  # type: ignore[union-attr]
        Deleted(2),
        Tombstone(),
    ]


@pytest.mark.parametrize(
    ("routes", "code", "said"),
    [
        ({Moved: Process(whatever)}, Code.TYPE_MISMATCH, "no record takes the branch Moved"),
        ({"Created": Process(created)}, Code.NODE_UNKNOWN, "is the class of no payload"),
        ({Fields: Process(whatever)}, Code.NODE_UNKNOWN, "is the class of no payload"),
        ({Created: Process(gone)}, Code.TYPE_MISMATCH, "gone does not take what arrives"),
    ],
    ids=["another class", "a text", "a typed dict", "another step"],
)
def test_a_branch_by_type_is_checked(routes: dict[Any, Process], code: Code, said: str) -> None:
    found = problems(FromTopic("events", Event), Router.by(type, routes))
    assert (code, True) in [(issue.code, said in issue.message) for issue in found]


def test_types_that_are_read_by_their_shape_are_routed_by_their_class() -> None:
    @step
    def size(found: dict[str, int]) -> int:
        return len(found)

    routed = Router.by(type, {dict: Process(size)}, default=Process(whatever))
    source = FromTopic("events", dict[str, int] | list[int] | str)
    runner = StreamingTestRunner.from_flow(StreamFlow("events", source, Process(routed), IntoTopic("out")))
    runner.with_records(records(b'{"a":1}', b"[1]", b'"a"')).run()
    assert [message.payload for message in runner.output] == [1, [1], "a"]


def test_a_step_that_takes_one_member_does_not_take_the_union() -> None:
    (issue,) = problems(FromTopic("events", Event), created)
    assert issue.code is Code.TYPE_MISMATCH
    assert (issue.expected, issue.found) == ("Created", "Created | Deleted")


@pytest.mark.parametrize("closed", [Closed, Annotated[Closed, "the last"], TypeAliasType("Last", Closed)], ids=str)
def test_dataclasses_are_told_apart_by_the_header(closed: Any) -> None:
    flow = StreamFlow("events", FromMultiTypeTopic("events", (Opened, closed)), Process(whatever), IntoTopic("out"))
    label = f"{Opened.__module__}.Closed".encode()
    runner = StreamingTestRunner.from_flow(flow)
    runner.with_records([KafkaRecord("events", None, b'{"id":1}', {"x-message-type": label})]).run()
    assert [message.payload for message in runner.output] == [Closed(1)]


@pytest.mark.parametrize("payload", [dict, list[Created], Fields, Event, str], ids=str)
def test_a_source_of_several_types_wants_classes(payload: Any) -> None:
    found = problems(FromMultiTypeTopic("events", (Opened, payload)), whatever)
    assert "has no message type" in found[0].message
    assert "FromTopic and a union of tagged" in (found[0].remedy or "")


def test_a_label_is_missing_where_some_types_have_one_and_others_not() -> None:
    @step
    def either(event: Created) -> Created | dict[str, int]:
        return event

    (issue,) = problems(FromTopic("events", Created), either)
    assert "dict[str, int] has no message type" in issue.message
    assert "headers: none" in (issue.remedy or "")


def test_the_dead_letters_of_a_union_are_read_back() -> None:
    @step
    def fail(event: Created | Deleted) -> Created:
        raise ValueError("no")

    failing = StreamFlow(
        "events",
        FromTopic("events", Event),
        Process(fail),
        IntoTopic("out"),
        [ErrorRoute(ErrorKind, IntoTopic("dead"))],
    )
    dead = StreamingTestRunner.from_flow(failing).with_records(records(CREATED, DELETED)).run().written("dead")

    @step
    def original(failed: ErrorEnvelope[Event]) -> Created | Deleted:
        assert failed.original_message is not None
        return failed.original_message.payload

    back = StreamFlow("again", FromTopic("dead", ErrorEnvelope[Event]), Process(original), IntoTopic("out"))
    runner = StreamingTestRunner.from_flow(back).with_records(dead).run()
    assert [message.payload for message in runner.output] == [Created(1), Deleted(2)]
