"""A wire format that an installed package offers is used by its name wherever a config names a format."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import ErrorKind, FromMultiTypeTopic, FromTopic, IntoTopic, Process, StreamFlow, compile_flow, step
from loom.streaming.compiler import Code, CompilationError
from loom.streaming.formats import UnknownFormatError, find_format, format_names, registry
from loom.streaming.kafka import KafkaRecord, MsgspecCodec, ProducerSettings
from loom.streaming.message import Message, MessageMeta
from loom.streaming.testing import StreamingTestRunner
from tests.support.wheels import EXTRAS

Offer = Callable[..., None]

#: bytes with the message type in front: `<length><type><JSON>`
LENGTHS = (EXTRAS / "loom_extras" / "wire_format.py").read_text()


class Placed(LoomFrozenStruct):
    __loom_message_type__ = "placed"
    id: int


class Gone(LoomFrozenStruct):
    __loom_message_type__ = "gone"
    id: int


@step
def again(placed: Placed) -> Placed:
    return Placed(placed.id + 1)


@step
def same(found: Any) -> Any:
    return found


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Offer]:
    """Installs packages of one module that offer a format; gone after the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def install(name: str, source: str, *, offers: str = "prefixed = {name}:LengthPrefixed") -> None:
        (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\n{offers.format(name=name)}\n")
        made.append(name)

    yield install
    for name in made:
        sys.modules.pop(name, None)


def kafka(**formats: str) -> dict[str, Any]:
    consumer = {"brokers": ["x:1"], "group_id": "g"} | ({"format": formats["read"]} if "read" in formats else {})
    producer = {"brokers": ["x:1"]} | ({"format": formats["write"]} if "write" in formats else {})
    return {"kafka": {"consumer": consumer, "producer": producer}}


def test_a_flow_reads_and_writes_it(offer: Offer) -> None:
    offer("lengths", LENGTHS)
    flow = StreamFlow("orders", FromTopic("raw", Placed), Process(again), IntoTopic("out"))
    runner = StreamingTestRunner.from_flow(flow, kafka(read="prefixed", write="prefixed")).capture_errors()
    runner.with_records(
        [KafkaRecord("raw", None, b'\x06placed{"id":1}'), KafkaRecord("raw", None, b'\x06placed{"')]
    ).run()
    assert [message.payload for message in runner.output] == [Placed(2)]
    assert [record.value for record in runner.written("out")] == [b'\x06placed{"id":2}']
    assert [envelope.kind for envelope in runner.errors[ErrorKind.WIRE]] == [ErrorKind.WIRE]
    assert "prefixed" in runner.plan.explain()


def test_its_frame_tells_several_types_apart(offer: Offer) -> None:
    offer("lengths", LENGTHS)
    flow = StreamFlow("orders", FromMultiTypeTopic("raw", (Placed, Gone)), Process(same), IntoTopic("out"))
    runner = StreamingTestRunner.from_flow(flow, kafka(read="prefixed")).capture_errors()
    values = [b'\x06placed{"id":1}', b'\x04gone{"id":2}', b'\x05other{"id":3}']
    runner.with_records([KafkaRecord("raw", None, value) for value in values]).run()
    assert [message.payload for message in runner.output] == [Placed(1), Gone(2)]
    assert [message.meta.message_type for message in runner.output] == ["placed", "gone"]
    assert len(runner.errors[ErrorKind.WIRE]) == 1


def test_code_outside_a_flow_uses_it_too(offer: Offer) -> None:
    offer("lengths", LENGTHS)
    assert ProducerSettings("x:1", format="prefixed").format == "prefixed"
    codec = MsgspecCodec(Placed, "prefixed")
    record = codec.encode("out", Message(Placed(7), MessageMeta("m")))
    assert record.value == b'\x06placed{"id":7}'
    assert codec.decode(record).message.payload == Placed(7)  # type: ignore[union-attr]


def test_a_name_that_nobody_offers_is_told_with_those_that_are(offer: Offer) -> None:
    offer("lengths", LENGTHS)
    assert format_names() == ("json", "msgpack", "envelope", "bytes", "prefixed")
    with pytest.raises(UnknownFormatError, match="'bytes' or 'prefixed', not 'prefix'; did you mean 'prefixed'"):
        MsgspecCodec(Placed, "prefix")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('no schema')", "RuntimeError: no schema"),
        ("class LengthPrefixed: ...", "is no loom.streaming.formats.Format"),
        (LENGTHS.replace('name = "prefixed"', 'name = "other"'), "has the name 'other'"),
    ],
    ids=["broken", "no format", "another name"],
)
def test_a_package_that_offers_none_is_a_compile_error_that_names_it(offer: Offer, source: str, said: str) -> None:
    offer("lengths", source)
    flow = StreamFlow("orders", FromTopic("raw", Placed), Process(again), IntoTopic("out"))
    with pytest.raises(CompilationError) as error:
        compile_flow(flow, config=kafka(write="prefixed"))
    (issue,) = error.value.errors
    assert issue.code is Code.CONFIG_INVALID
    assert said in issue.message
    assert "of the package lengths" in issue.message


def test_two_packages_with_one_name_are_told_apart(offer: Offer) -> None:
    offer("lengths", LENGTHS)
    offer("widths", LENGTHS)
    with pytest.raises(UnknownFormatError, match=r"lengths .* and .* widths .* have one name"):
        find_format("prefixed")


def test_a_format_of_loom_is_not_looked_for_in_packages(offer: Offer) -> None:
    offer("lengths", "raise RuntimeError", offers="json = {name}:LengthPrefixed")
    assert find_format("json").content_type == "application/json"


def test_a_flow_of_loom_alone_asks_no_package_and_loads_no_pydantic() -> None:
    code = """
import subprocess
import sys
from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, step
from loom.streaming.testing import StreamingTestRunner

class Order(LoomFrozenStruct):
    id: int

@step
def same(order: Order) -> Order:
    return order

flow = StreamFlow("orders", FromTopic("raw", Order), Process(same), IntoTopic("out"))
assert len(StreamingTestRunner.from_flow(flow).with_payloads([Order(1)]).run().written("out")) == 1
print([name for name in ("importlib.metadata", "pydantic", "attr") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
