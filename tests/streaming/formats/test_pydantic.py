"""Pydantic models as payloads: what goes wrong with them, and what pydantic alone knows."""

from __future__ import annotations

import math
import sys
from decimal import Decimal
from typing import Annotated, Any, Literal

import pydantic
import pydantic.dataclasses
import pydantic.v1
import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    Broadcast,
    BroadcastRoute,
    ErrorKind,
    Explode,
    FromTopic,
    IntoTopic,
    Process,
    StreamFlow,
    compile_flow,
    payload,
    step,
)
from loom.streaming.compiler import Code, CompilationError, Issue
from loom.streaming.kafka import KafkaRecord
from loom.streaming.nodes.route import Route, Router
from loom.streaming.testing import StreamingTestRunner
from tests.streaming.orders import CONFIG, Line


class Order(pydantic.BaseModel):
    id: int
    price: float = 0.0

    @pydantic.field_validator("id")
    @classmethod
    def positive(cls, found: int) -> int:
        if found < 0:
            raise ValueError("below zero")
        return found


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", frozen=True)

    id: int


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    name: str


class Parcel(LoomFrozenStruct):
    orders: list[Order]


class OldModel(pydantic.v1.BaseModel):
    id: int


class HoldsOld(LoomFrozenStruct):
    old: OldModel


@pydantic.dataclasses.dataclass
class Checked:
    id: int


Pet = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]


@step
def same(found: Any) -> Any:
    return found


@step
def cat(found: Cat) -> Cat:
    return found


def flow(source: Any, *nodes: Any, **options: Any) -> StreamFlow[Any, Any]:
    return StreamFlow("orders", FromTopic("raw", source, **options), Process(*nodes or (same,)), IntoTopic("out"))


def records(*values: bytes) -> list[KafkaRecord]:
    return [KafkaRecord("raw", None, value) for value in values]


def problem(declared: StreamFlow[Any, Any]) -> Issue:
    with pytest.raises(CompilationError) as error:
        compile_flow(declared, config=CONFIG)
    assert {issue.code for issue in error.value.errors} == {Code.PAYLOAD_INVALID}
    return error.value.errors[0]


@pytest.mark.parametrize("source", [Order, list[Order], Parcel], ids=str)
def test_what_pydantic_refuses_is_a_wire_error_that_names_the_place_and_no_value(source: Any) -> None:
    wrong = b'{"id":-4711}'
    value = {Order: wrong, Parcel: b'{"orders":[' + wrong + b"]}"}.get(source, b"[" + wrong + b"]")
    runner = StreamingTestRunner.from_flow(flow(source)).with_records(records(value, b"{")).capture_errors().run()
    first, second = runner.errors[ErrorKind.WIRE]
    assert "below zero" in first.reason
    assert "4711" not in first.reason
    assert first.error_type == "msgspec.ValidationError"
    assert "$" in first.reason
    assert second.reason


@pytest.mark.parametrize("price", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_have_is_a_task_error(price: float) -> None:
    payloads = [Order(id=1, price=price), [Order(id=1, price=price)], Open.model_validate({"id": 1, "more": price})]
    for found in payloads:
        runner = StreamingTestRunner.from_flow(flow(Any)).with_payloads([found]).capture_errors().run()
        (envelope,) = runner.errors[ErrorKind.TASK]
        assert "which JSON does not have" in envelope.reason


def test_a_discriminated_union_is_parted_by_class() -> None:
    routed = Router.by(type, {Cat: Process(cat)}, default=Process(same))
    runner = StreamingTestRunner.from_flow(flow(Pet, routed))
    runner.with_records(records(b'{"kind":"dog","name":"D"}', b'{"kind":"cat","lives":7}')).run()
    assert [message.payload for message in runner.output] == [Dog(kind="dog", name="D"), Cat(kind="cat", lives=7)]
    labels = {record.headers["x-message-type"].rpartition(b".")[2] for record in runner.written("out")}
    assert labels == {b"Dog", b"Cat"}


def test_an_expression_knows_the_fields_of_a_model() -> None:
    compile_flow(flow(Order, Router.when([Route(payload.id == 1, Process(same))])), config=CONFIG)
    with pytest.raises(CompilationError, match="did you mean 'price'"):
        compile_flow(flow(Order, Router.when([Route(payload.prise == 1, Process(same))])), config=CONFIG)
    compile_flow(flow(Open, Router.when([Route(payload.anything == 1, Process(same))])), config=CONFIG)


def test_a_step_of_several_results_does_not_iterate_the_fields_of_a_model() -> None:
    declared = flow(Order, Explode(lambda found: found))
    runner = StreamingTestRunner.from_flow(declared).with_payloads([Order(id=1)]).capture_errors().run()
    (envelope,) = runner.errors[ErrorKind.TASK]
    assert "returned an Order where it returns several results" in envelope.reason


def test_a_frozen_model_may_be_shared() -> None:
    def shared(source: Any) -> list[Code]:
        routes = Broadcast(BroadcastRoute(Process(same), IntoTopic("a")), BroadcastRoute(Process(same), IntoTopic("b")))
        declared = StreamFlow("orders", FromTopic("raw", source), Process(routes))
        return [warning.code for warning in compile_flow(declared, config=CONFIG).warnings]

    assert Code.PAYLOAD_SHARED not in shared(Open)
    assert Code.PAYLOAD_SHARED in shared(Order)


def test_without_pydantic_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    found = problem(flow(Order))
    assert "pydantic 2 is not installed" in found.message
    assert "loom-streaming[pydantic]" in (found.remedy or "")


@pytest.mark.parametrize(
    ("source", "said", "remedy"),
    [
        (OldModel, "is a model of pydantic 1", "the BaseModel of pydantic 2"),
        (HoldsOld, "is a model of pydantic 1", "the BaseModel of pydantic 2"),
        (Checked, "is a dataclass of pydantic", "let Checked inherit from pydantic.BaseModel"),
        (list[Checked], "is a dataclass of pydantic", "let Checked inherit from pydantic.BaseModel"),
        (Order | Line, "this type cannot be read", "wrap the models in a LoomFrozenStruct"),
    ],
    ids=["old", "old inside", "dataclass", "dataclass inside", "beside a struct"],
)
def test_what_would_go_wrong_does_not_compile(source: Any, said: str, remedy: str) -> None:
    found = problem(flow(source))
    assert said in found.message
    assert remedy in (found.remedy or "")


def test_a_dec_hook_beside_a_model_is_refused_where_nothing_would_call_it() -> None:
    found = problem(flow(Order, dec_hook=lambda cls, value: value))
    assert "calls no dec_hook" in found.message


def test_an_enc_hook_writes_what_pydantic_does_not_know() -> None:
    class Odd(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

        it: complex
        amount: Decimal

    declared = StreamFlow("odd", FromTopic("raw", Any), Process(same), IntoTopic("out", enc_hook=str))
    for wire_format in ("json", "msgpack"):
        settings = {"kafka": {"producer": {"brokers": ["x:1"], "format": wire_format}}}
        runner = StreamingTestRunner.from_flow(declared, settings)
        runner.with_payloads([[Odd(it=1j, amount=Decimal("1.10"))]]).run()
        (record,) = runner.written("out")
        assert record.value is not None
        assert b"1j" in record.value
        assert b"1.10" in record.value
