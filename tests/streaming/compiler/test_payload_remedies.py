"""A payload type that is refused says what to write in its place, and in which field."""

from __future__ import annotations

import collections
import dataclasses
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Optional, TypedDict

import msgspec
import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Message, Process, RecordStep, StreamFlow, Tombstone, compile_flow, step
from loom.streaming.compiler import Code, CompilationError
from loom.streaming.kafka import KafkaRecord
from loom.streaming.testing import StreamingTestRunner
from tests.streaming.orders import CONFIG, Line, Order, config, flow

if typing.TYPE_CHECKING:
    from decimal import Decimal


class Created(LoomFrozenStruct, tag="created"):
    id: int


class Deleted(LoomFrozenStruct, tag="deleted"):
    id: int


class Fields(TypedDict):
    id: int


@dataclasses.dataclass
class Data:
    id: int


class Foreign(msgspec.Struct):
    id: int


class Own: ...


class Priced(LoomFrozenStruct):
    price: Decimal


class Invoice(LoomFrozenStruct):
    lines: list[Priced]


class Either(LoomFrozenStruct):
    found: Order | Line


class Ratio(float): ...


@step
def same(found: Any) -> Any:
    return found


def refused(payload: Any, settings: Any = CONFIG) -> tuple[str, str]:
    """The message and the remedy of the one problem that a source of this payload has."""
    with pytest.raises(CompilationError) as error:
        compile_flow(flow(same, source=FromTopic("orders.raw", payload)), config=settings)
    (issue,) = error.value.errors
    assert issue.code is Code.PAYLOAD_INVALID
    return issue.message, issue.remedy or ""


@pytest.mark.parametrize(
    ("payload", "remedy"),
    [
        ("Order", "write the class itself, not its name: payload=Order"),
        (Order(1), "write the type of what is read: payload=Order"),
        (Optional[Order], "write payload=Order: a record without a value is a Tombstone anyway"),  # noqa: UP045
        (Order | Tombstone, "write payload=Order: a record without a value is a Tombstone anyway"),
        (Order | Line, "FromMultiTypeTopic(…, payloads=(Order, Line))"),
        (Order | Line, "class …(LoomFrozenStruct, tag=True)"),
        (Data | Foreign, "FromMultiTypeTopic(…, payloads=(Data, Foreign))"),
        (dict[str, int] | dict[str, str], "msgspec.json.decode(value, type=dict[str, int] | dict[str, str])"),
        (Own, "let Own inherit from LoomFrozenStruct, or give FromTopic a dec_hook"),
        (list[Own], "let Own inherit from LoomFrozenStruct, or give FromTopic a dec_hook"),
    ],
    ids=str,
)
def test_the_remedy_for_a_payload_can_be_followed(payload: Any, remedy: str) -> None:
    _, said = refused(payload)
    assert remedy in said


@pytest.mark.parametrize(
    "payload",
    [Annotated[Order, 1], Created | Deleted, dict[str, Any], list[Order], str, Fields, Data, Foreign],
    ids=str,
)
def test_a_payload_that_msgspec_reads_is_taken(payload: Any) -> None:
    compile_flow(flow(same, source=FromTopic("orders.raw", payload)), config=CONFIG)


def test_records_that_are_no_objects_are_read_as_the_remedy_says() -> None:
    @step
    def decode(value: bytes) -> Order:
        return msgspec.json.decode(value, type=list[Order])[0]

    declared = StreamFlow("lists", FromTopic("lists", bytes), Process(decode), IntoTopic("orders"))
    runner = StreamingTestRunner.from_flow(
        declared, {"kafka": {"consumer": {"format": "bytes", "brokers": "x:1", "group_id": "g"}}}
    )
    runner.with_records([KafkaRecord("lists", None, b'[{"id":7}]')]).run()
    assert [message.payload for message in runner.output] == [Order(7)]


@pytest.mark.parametrize(
    ("payload", "remedy"),
    [
        (Priced, "import 'Decimal', which the field Priced.price names"),
        (Invoice, "import 'Decimal', which the field Priced.price names"),
        (Either, "the field Either.found may hold a tag"),
    ],
    ids=["a name", "a name below", "a union"],
)
def test_a_field_that_cannot_be_read_is_named(payload: Any, remedy: str) -> None:
    message, said = refused(payload)
    assert message.startswith("this type cannot be read")
    assert remedy in said


#: types that msgspec writes and never reads, or neither, with a word of the remedy
FIELDS: list[tuple[Any, str]] = [
    (collections.Counter[str], "dict in place of Counter"),
    (collections.OrderedDict[str, int], "dict in place of OrderedDict"),
    (collections.defaultdict[str, int], "dict in place of defaultdict"),
    (collections.deque[int], "list in place of deque"),
    (Ratio, "float in place of Ratio"),
    (Callable, "in place of Callable"),
    (Iterator[int], "list in place of Iterator"),
    (Path, "str in place of"),
    (list[dict[str, Ratio | None]], "float in place of Ratio"),
    (dict[tuple[int, int], str], "give the mapping of the field Held.it keys of text"),
    (dict[bool, str], "give the mapping of the field Held.it keys of text"),
]


@pytest.mark.parametrize(("kind", "remedy"), FIELDS, ids=str)
def test_a_source_with_a_field_that_no_record_can_fill_is_refused(kind: Any, remedy: str) -> None:
    held = msgspec.defstruct("Held", [("it", kind)], bases=(LoomFrozenStruct,), frozen=True)
    _, said = refused(held)
    assert "Held.it" in said
    assert remedy in said


def test_keys_that_are_no_texts_are_left_to_the_format_that_has_them() -> None:
    held = msgspec.defstruct("Held", [("it", dict[tuple[int, int], str])], bases=(LoomFrozenStruct,), frozen=True)
    settings = config(consumer={"format": "msgpack"}, producer={"format": "msgpack"})
    compile_flow(flow(same, source=FromTopic("orders.raw", held)), config=settings)


def test_an_output_names_the_field_that_it_cannot_write() -> None:
    class Kept(LoomFrozenStruct):
        owner: Own

    @step
    def keep(order: Order) -> Kept:
        return Kept(Own())

    with pytest.raises(CompilationError) as error:
        compile_flow(flow(keep), config=CONFIG)
    (issue,) = error.value.errors
    assert "Kept.owner" in (issue.remedy or "")
    assert issue.where == "output"


def test_generics_say_all_where_the_annotations_name_a_local_class() -> None:
    class Local(LoomFrozenStruct):
        id: int

    class Pass(RecordStep[Local, Local]):
        def execute(self, message: Message[Local]) -> Local:
            return message.payload

    declared = StreamFlow("local", FromTopic("locals", Local), Process(Pass), IntoTopic("out"))
    assert StreamingTestRunner.from_flow(declared).with_payloads([Local(1)]).run().output[0].payload == Local(1)


def test_an_annotation_that_cannot_be_resolved_says_what_to_import() -> None:
    @step
    def priced(order: Order) -> Decimal:
        raise NotImplementedError

    with pytest.raises(CompilationError) as error:
        compile_flow(flow(priced), config=CONFIG)
    (issue,) = error.value.errors
    assert "import 'Decimal' unconditionally" in (issue.remedy or "")
