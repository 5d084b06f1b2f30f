"""A header name that is not UTF-8, which any client but ours can write, is one error of its record and of no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    Broadcast,
    BroadcastRoute,
    CollectBatch,
    ErrorEnvelope,
    ErrorKind,
    Explode,
    ForEach,
    FromMultiTypeTopic,
    FromTopic,
    IntoTopic,
    Message,
    PartitionGuarantee,
    PartitionPolicy,
    Process,
    RecordStep,
    Route,
    Router,
    StreamFlow,
    msg,
    step,
)
from loom.streaming.kafka import (
    ConsumerSettings,
    DecodeError,
    DecodeOk,
    EmbeddedBroker,
    KafkaConsumer,
)
from loom.streaming.metrics import FlowCounts
from tests.support.kafka_io import ReadRecord
from tests.support.raw_produce import RawRecord, produce_raw
from tests.support.running import QUICK, config_for, content, run_all

NAME = "größe".encode("latin-1")
LABEL = (b"x-message-type", b"numbers.number")


class Number(LoomFrozenStruct):
    __loom_message_type__ = "numbers.number"
    n: int


class Other(LoomFrozenStruct):
    __loom_message_type__ = "numbers.other"
    text: str


@step
def same(number: Number) -> Number:
    return number


class Plain(LoomFrozenStruct):
    """Without a label, so that a record without headers leaves as plainly as it came."""

    n: int


@step
def plain(number: Plain) -> Plain:
    return number


class Reading(RecordStep[Number, Number]):
    """A step that looks at the headers."""

    def execute(self, message: Message[Number]) -> Number:
        assert message.meta.headers is not None
        return message.payload


class Careless(RecordStep[Number, Number]):
    """A step that goes on whatever the headers are."""

    def execute(self, message: Message[Number]) -> Number:
        try:
            assert message.meta.headers is not None
        except Exception:
            return message.payload
        return message.payload


class ReadingMany(BatchStep[Number, Number]):
    def execute(self, messages: list[Message[Number]]) -> list[Number]:
        assert all(message.meta.headers is not None for message in messages)
        return [message.payload for message in messages]


class ByNumber:
    def partition_key(self, message: Message[Number]) -> str:
        return str(message.payload.n)


def thrice(number: Number) -> list[Number]:
    return [number] * 3


KEYED = PartitionPolicy(ByNumber(), PartitionGuarantee.BEST_EFFORT, allow_repartition=True)
BY_HEADER = Router.when([Route(msg.meta.message_type == "no", Process(same), name="no")], default=Process(same))


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in ("numbers", "out", "errors"):
        broker.create_topic(topic)
    return broker.bootstrap


def put(bootstrap: str) -> None:
    """Three records; the one in the middle has a header that cannot be read."""
    records = [RawRecord(b'{"n":%d}' % n, b"k%d" % n, [LABEL, *([(NAME, b"v")] if n == 2 else [])]) for n in (1, 2, 3)]
    produce_raw(bootstrap, "numbers", *records)


def run(bootstrap: str, *nodes: Any, source: Any = None, output: Any = None, **producer: Any) -> FlowCounts:
    flow = StreamFlow(
        "reading",
        source or FromTopic("numbers", Number),
        Process(*nodes),
        output or IntoTopic("out"),
        errors=IntoTopic("errors"),
    )
    config = config_for(
        bootstrap, consumer={"delivery": "at_least_once"}, producer={"extra": QUICK, "headers": "auto", **producer}
    )
    return run_all(flow, config, 3)


def values(records: list[ReadRecord]) -> list[bytes | None]:
    return sorted((record.value for record in records), key=lambda value: value or b"")


MULTI = FromMultiTypeTopic[Any]("numbers", payloads=(Number, Other))


@step
def any_of_both(event: Number | Other) -> Number | Other:
    return event


@pytest.mark.parametrize(
    "nodes",
    [
        lambda: (same,),
        lambda: (Reading,),
        lambda: (Careless,),
        lambda: (ReadingMany,),
        lambda: (CollectBatch(3, timeout_ms=60_000), ReadingMany, ForEach()),
        lambda: (BY_HEADER,),
    ],
    ids=["copied", "read-by-a-step", "ignored-by-a-step", "read-by-a-batch-step", "read-in-a-batch", "routed-by"],
)
def test_it_is_one_wire_error_with_value_and_key_and_its_neighbours_are_delivered(
    bootstrap: str, nodes: Callable[[], tuple[Any, ...]]
) -> None:
    put(bootstrap)
    counts = run(bootstrap, *nodes())
    assert_one_error(bootstrap, counts)


def assert_one_error(bootstrap: str, counts: FlowCounts) -> None:
    found = content(bootstrap, "out", "errors")
    assert values(found["out"]) == [b'{"n":1}', b'{"n":3}']
    (letter,) = found["errors"]
    told = dict(letter.headers)
    assert (letter.key, letter.value) == (b"k2", b'{"n":2}')
    assert (told["x-error-kind"], told["x-error-step"], told["x-error-offset"]) == (b"wire", b"reading.source", b"1")
    assert b"the name of a header is not UTF-8" in (told["x-error-reason"] or b"")
    assert "x-message-type" not in told
    assert counts.failed == {ErrorKind.WIRE: 1}


def test_a_source_that_tells_types_apart_by_a_header_cannot_tell_it(bootstrap: str) -> None:
    put(bootstrap)
    assert_one_error(bootstrap, run(bootstrap, any_of_both, source=MULTI, output=IntoTopic("out")))


@pytest.mark.parametrize("output", [IntoTopic("out", partitioning=KEYED)], ids=["key-policy"])
def test_a_key_policy_makes_no_other_error_of_it(bootstrap: str, output: Any) -> None:
    put(bootstrap)
    assert_one_error(bootstrap, run(bootstrap, same, output=output))


def test_it_is_one_error_however_many_results_the_record_has(bootstrap: str) -> None:
    put(bootstrap)
    counts = run(bootstrap, Explode(thrice), same)
    found = content(bootstrap, "out", "errors")
    assert values(found["out"]) == [b'{"n":1}'] * 3 + [b'{"n":3}'] * 3
    assert [letter.value for letter in found["errors"]] == [b'{"n":2}']
    assert counts.failed == {ErrorKind.WIRE: 1}


@pytest.mark.parametrize("others", [[], [LABEL]], ids=["no-headers", "with-headers"])
def test_the_call_that_finds_it_may_have_been_made_often_before(bootstrap: str, others: list[Any]) -> None:
    """The interpreter checks less of a call that it has specialized, and the client's broken answer would pass."""
    good = [RawRecord(b'{"n":1}', None, others)] * 500
    produce_raw(bootstrap, "numbers", *good, RawRecord(b'{"n":2}', b"k", [*others, (NAME, b"v")]), *good)
    flow = StreamFlow("reading", FromTopic("numbers", Plain), Process(plain), IntoTopic("out"), IntoTopic("errors"))
    config = config_for(bootstrap, consumer={"delivery": "at_least_once"}, producer={"extra": QUICK})
    counts = run_all(flow, config, 1001)
    assert (counts.outputs["out"], counts.failed) == (1000, {ErrorKind.WIRE: 1})


def test_a_flow_that_writes_no_headers_never_asks_for_them(bootstrap: str) -> None:
    put(bootstrap)
    assert run(bootstrap, same, headers="none").failed == {}
    assert len(content(bootstrap, "out")["out"]) == 3


def test_an_error_of_another_kind_says_that_its_headers_are_left_out(bootstrap: str) -> None:
    @step
    def fails(number: Number) -> Number:
        if number.n == 2:
            raise ValueError("no")
        return number

    put(bootstrap)
    run(bootstrap, fails)
    (letter,) = content(bootstrap, "errors")["errors"]
    told = dict(letter.headers)
    assert told["x-error-kind"] == b"task"
    assert (told["x-error-reason"] or b"").startswith(b"no (the name of a header is not UTF-8")


def test_each_branch_of_a_broadcast_may_ask_and_it_stays_one_error(bootstrap: str, broker: EmbeddedBroker) -> None:
    broker.create_topic("copy")
    put(bootstrap)
    branches = Broadcast(
        BroadcastRoute(Process(same, IntoTopic("out"))), BroadcastRoute(Process(Reading, IntoTopic("copy")))
    )
    flow = StreamFlow("reading", FromTopic("numbers", Number), Process(branches), errors=IntoTopic("errors"))
    config = config_for(bootstrap, consumer={"delivery": "at_least_once"}, producer={"extra": QUICK})
    run_all(flow, config, 3)
    found = content(bootstrap, "out", "copy", "errors")
    assert (len(found["out"]), len(found["copy"]), len(found["errors"])) == (2, 2, 1)


def test_the_typed_consumer_hands_it_over_as_an_error(bootstrap: str) -> None:
    put(bootstrap)
    settings = ConsumerSettings((bootstrap,), "typed", topics=("numbers",))
    with KafkaConsumer(settings, Number) as consumer:
        first, second, third = consumer.read(idle_s=1)
    assert isinstance(first, DecodeOk)
    assert isinstance(third, DecodeOk)
    assert isinstance(second, DecodeError)
    assert (second.raw, second.key) == (b'{"n":2}', b"k2")
    assert "not UTF-8" in second.error


def test_an_error_topic_with_such_a_record_is_read_on(bootstrap: str) -> None:
    put(bootstrap)
    counts = run(bootstrap, any_letter, source=FromTopic("numbers", ErrorEnvelope[Number]))
    assert counts.failed == {ErrorKind.WIRE: 3}


@step
def any_letter(letter: ErrorEnvelope[Number]) -> Number | None:
    return None
