"""`dec_hook` and `enc_hook`: types that msgspec does not know, in and out."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Any

import msgspec
import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    ErrorKind,
    ErrorRoute,
    FromMultiTypeTopic,
    FromTopic,
    IntoTopic,
    Process,
    StreamFlow,
    compile_flow,
    step,
)
from loom.streaming.compiler import Code, CompilationError, Issue
from loom.streaming.errors import ErrorEnvelope
from loom.streaming.formats.envelope_format import MessageEnvelope, MessageMetadata
from loom.streaming.kafka import JsonSettings, KafkaRecord, MsgspecCodec, ProducerSettings
from loom.streaming.message import Message, MessageMeta
from loom.streaming.testing import StreamingTestRunner
from tests.streaming.orders import CONFIG, config

HOST = IPv4Address("10.0.0.1")


class Login(LoomFrozenStruct):
    __loom_message_type__ = "login"
    host: IPv4Address


class Logout(LoomFrozenStruct):
    __loom_message_type__ = "logout"
    id: int


class Price(LoomFrozenStruct):
    amount: Any


def read_host(cls: type, value: Any) -> Any:
    assert cls is IPv4Address
    return IPv4Address(value)


def written_host(found: Any) -> str:
    assert isinstance(found, IPv4Address)
    return str(found)


@step
def same(found: Any) -> Any:
    return found


@step
def kept(login: Login) -> Login:
    return login


SOURCE = FromTopic("logins", Login, dec_hook=read_host)
OUTPUT = IntoTopic("out", enc_hook=written_host)


def problems(source: Any = SOURCE, output: Any = OUTPUT, settings: Any = CONFIG, **more: Any) -> list[Issue]:
    with pytest.raises(CompilationError) as error:
        compile_flow(StreamFlow("logins", source, Process(kept), output, **more), config=settings)
    return list(error.value.errors)


@pytest.mark.parametrize("wire_format", ["json", "msgpack", "envelope"])
def test_a_type_that_msgspec_does_not_know_goes_in_and_out(wire_format: str) -> None:
    plain: Any = {"host": "10.0.0.1"}
    value = (
        msgspec.json.encode(plain)
        if wire_format == "json"
        else msgspec.msgpack.encode(plain if wire_format == "msgpack" else MessageEnvelope(MessageMetadata(), plain))
    )
    settings = config(consumer={"format": wire_format}, producer={"format": wire_format})
    runner = StreamingTestRunner.from_flow(StreamFlow("logins", SOURCE, Process(kept), OUTPUT), settings)
    runner.with_records([KafkaRecord("logins", None, value)]).run()
    assert [message.payload for message in runner.output] == [Login(HOST)]
    (record,) = runner.written("out")
    decoded = MsgspecCodec(Login, wire_format, dec_hook=read_host).decode(record)
    assert decoded.message.payload == Login(HOST)  # type: ignore[union-attr]


def test_an_envelope_beside_json_is_read_with_the_hook_too() -> None:
    value = msgspec.msgpack.encode(MessageEnvelope(MessageMetadata(), {"host": "10.0.0.1"}))
    runner = StreamingTestRunner.from_flow(StreamFlow("logins", SOURCE, Process(kept), OUTPUT))
    runner.with_records([KafkaRecord("logins", None, value)]).run()
    assert [message.payload for message in runner.output] == [Login(HOST)]


def test_a_source_of_several_types_has_one_hook() -> None:
    source = FromMultiTypeTopic("logins", (Login, Logout), dec_hook=read_host)
    runner = StreamingTestRunner.from_flow(StreamFlow("logins", source, Process(same), OUTPUT))
    runner.with_records([KafkaRecord("logins", None, b'{"host":"10.0.0.1"}', {"x-message-type": b"login"})]).run()
    assert [message.payload for message in runner.output] == [Login(HOST)]


def test_the_dead_letters_of_such_a_topic_are_read_back() -> None:
    @step
    def fail(login: Login) -> Login:
        raise ValueError("no")

    failing = StreamFlow("logins", SOURCE, Process(fail), OUTPUT, [ErrorRoute(ErrorKind, IntoTopic("dead"))])
    runner = StreamingTestRunner.from_flow(failing).with_records([KafkaRecord("logins", None, b'{"host":"10.0.0.1"}')])
    dead = runner.run().written("dead")

    @step
    def original(failed: ErrorEnvelope[Login]) -> Login:
        assert failed.original_message is not None
        return failed.original_message.payload

    source = FromTopic("dead", ErrorEnvelope[Login], dec_hook=read_host)
    back = StreamingTestRunner.from_flow(StreamFlow("again", source, Process(original), OUTPUT)).with_records(dead)
    assert [message.payload for message in back.run().output] == [Login(HOST)]


def test_a_hook_that_raises_is_an_error_of_the_record() -> None:
    def no_host(found: Any) -> str:
        raise LookupError("no name for it")

    flow = StreamFlow("logins", SOURCE, Process(kept), IntoTopic("out", enc_hook=no_host))
    runner = StreamingTestRunner.from_flow(flow).capture_errors()
    runner.with_records(
        [KafkaRecord("logins", None, value) for value in (b'{"host":"x"}', b'{"host":"10.0.0.1"}')]
    ).run()
    assert ["Expected 4 octets in 'x'" in envelope.reason for envelope in runner.errors[ErrorKind.WIRE]] == [True]
    assert ["no name for it" in envelope.reason for envelope in runner.errors[ErrorKind.TASK]] == [True]


async def asynchronous(cls: type, value: Any) -> Any: ...


def generating(cls: type, value: Any) -> Any:
    yield value


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        (lambda: None, "too many positional arguments"),
        (lambda cls, value, more: None, "missing a required argument: 'more'"),
        (asynchronous, "it is async"),
        (generating, "it is a generator"),
        ("read_host", "str is no function"),
    ],
    ids=["none", "three", "async", "generator", "text"],
)
def test_a_dec_hook_that_cannot_be_called_does_not_compile(hook: Any, said: str) -> None:
    (issue,) = problems(source=FromTopic("logins", Login, dec_hook=hook))
    assert (issue.code, issue.where) == (Code.STEP_SIGNATURE, "source")
    assert said in issue.message
    assert issue.remedy == "write def dec_hook(type, value): …"


def test_an_enc_hook_that_cannot_be_called_does_not_compile() -> None:
    (issue,) = problems(output=IntoTopic("out", enc_hook=read_host))
    assert (issue.code, issue.where) == (Code.STEP_SIGNATURE, "output")
    assert issue.remedy == "write def enc_hook(object): …"


@pytest.mark.parametrize("hook", [str, repr, written_host, lambda found, more=1: str(found)])
def test_anything_that_can_be_called_with_the_object_is_an_enc_hook(hook: Callable[[Any], Any]) -> None:
    flow = StreamFlow("logins", SOURCE, Process(kept), IntoTopic("out", enc_hook=hook))
    runner = StreamingTestRunner.from_flow(flow)
    runner.with_records([KafkaRecord("logins", None, b'{"host":"10.0.0.1"}')]).run()
    assert len(runner.written("out")) == 1


def test_without_a_hook_the_remedy_names_it() -> None:
    (read,) = problems(source=FromTopic("logins", Login))
    assert "dec_hook" in (read.remedy or "")
    (written,) = problems(output=IntoTopic("out"))
    assert "enc_hook" in (written.remedy or "")


def test_a_hook_that_nothing_calls_does_not_compile() -> None:
    as_bytes = config(consumer={"format": "bytes"}, producer={"format": "json"})

    @step
    def decode(value: bytes) -> Logout:
        return Logout(1)

    flow = StreamFlow("logins", FromTopic("logins", bytes, dec_hook=read_host), Process(decode), IntoTopic("out"))
    with pytest.raises(CompilationError) as error:
        compile_flow(flow, config=as_bytes)
    assert "the format bytes calls no dec_hook" in error.value.errors[0].message
    (issue,) = problems(errors=IntoTopic("dead", enc_hook=written_host))
    assert "dead letters are written as they were read" in issue.message


def test_a_hook_that_remembers_is_put_back_by_reset() -> None:
    class Reader:
        def __init__(self) -> None:
            self.read = 0

        def __call__(self, cls: type, value: Any) -> Any:
            self.read += 1
            return IPv4Address(value)

    reader = Reader()
    flow = StreamFlow("logins", FromTopic("logins", Login, dec_hook=reader), Process(kept), OUTPUT)
    runner = StreamingTestRunner.from_flow(flow)
    runner.with_records([KafkaRecord("logins", None, b'{"host":"10.0.0.1"}')]).run()
    assert reader.read == 1
    runner.reset()
    assert reader.read == 0


@pytest.mark.parametrize(
    ("settings", "value"), [({}, b'{"amount":"1.10"}'), ({"json": {"decimal": "number"}}, b'{"amount":1.10}')]
)
def test_a_decimal_is_a_text_or_a_number(settings: dict[str, Any], value: bytes) -> None:
    flow = StreamFlow("prices", FromTopic("prices", Price), Process(same), IntoTopic("out"))
    runner = StreamingTestRunner.from_flow(flow, config(producers={"out": settings}))
    runner.with_payloads([Price(Decimal("1.10"))]).run()
    assert [record.value for record in runner.written("out")] == [value]


@pytest.mark.parametrize("amount", [Decimal("NaN"), Decimal("-Infinity"), Decimal("sNaN"), [Decimal("NaN")]], ids=str)
def test_a_decimal_that_json_does_not_have_as_a_number_is_a_task_error(amount: Any) -> None:
    flow = StreamFlow("prices", FromTopic("prices", Price), Process(same), IntoTopic("out"))
    runner = StreamingTestRunner.from_flow(flow, config(producers={"out": {"json": {"decimal": "number"}}}))
    runner.with_payloads([Price(amount), Price("NaN"), Price(Decimal("1E+2"))]).capture_errors().run()
    (envelope,) = runner.errors[ErrorKind.TASK]
    assert "$.amount" in envelope.reason
    assert "json.decimal: string" in envelope.reason
    assert [record.value for record in runner.written("out")] == [b'{"amount":"NaN"}', b'{"amount":1E+2}']


def test_clients_outside_a_flow_write_decimals_alike() -> None:
    settings = ProducerSettings("x:1", json=JsonSettings("number"))
    assert settings.json.decimal == "number"
    with pytest.raises(ValueError, match="decimal"):
        JsonSettings("text")  # type: ignore[arg-type]
    codec = MsgspecCodec(Price)
    assert codec.encode("out", Message(Price(Decimal(1)), MessageMeta("m"))).value == b'{"amount":"1"}'


def test_decimals_of_a_topic_that_is_no_json_are_not_set() -> None:
    (issue,) = problems(settings=config(producer={"format": "msgpack", "json": {"decimal": "number"}}))
    assert issue.code is Code.CONFIG_INVALID
    assert "does not write JSON" in issue.message
