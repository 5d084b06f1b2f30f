"""What a step or a strategy sets in a record is checked where it is written; what nobody has set leaves as it came."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import pytest
from msgspec.structs import replace

from loom.streaming import (
    ErrorKind,
    FromTopic,
    IntoTopic,
    Message,
    PartitionGuarantee,
    PartitionPolicy,
    Process,
    RecordStep,
    StreamFlow,
    step,
)
from loom.streaming.kafka import Headers, KafkaRecord
from loom.streaming.testing import StreamingTestRunner
from tests.streaming.runtime.stages.doubling import Number
from tests.support.running import Written, config_for, in_memory, into_topics, numbers


def flow(*nodes: Any, output: IntoTopic[Any] | None = None) -> StreamFlow[Any, Any]:
    return StreamFlow(
        "f", FromTopic("numbers", Number), Process(*nodes), output or IntoTopic("out"), IntoTopic("errors")
    )


def setting(change: Any) -> Any:
    """A step that changes the message of the second record."""

    class Sets(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Message[Number]:
            changed: Message[Number] = change(message) if message.payload.n == 2 else message
            return changed

    return Sets


def meta(**changes: Any) -> Any:
    return lambda message: Message(message.payload, replace(message.meta, **changes))


WRONG = {
    "int key": (meta(key=42), "the record key is 42 (type int); expected bytes, str or None"),
    "UUID key": (meta(key=uuid.UUID(int=5)), "the record key is UUID("),
    "bytearray key": (meta(key=bytearray(b"ab")), "the record key is bytearray("),
    "surrogate key": (meta(key="\udcff"), "cannot be written as UTF-8"),
    "float time": (meta(produced_at_ms=1.5), "produced_at_ms is 1.5 (type float)"),
    "huge time": (meta(produced_at_ms=2**70), "does not fit into 64 bits"),
    "datetime time": (meta(produced_at_ms=datetime.datetime(2025, 1, 1)), "expected milliseconds since the epoch"),
    "int header": (lambda m: m.with_headers({"a": 7}), "the value of the header 'a' is 7 (type int)"),
    "bytes name": (lambda m: m.with_headers({b"a": b"7"}), "a header name is b'a' (type bytes)"),
    "NUL in a name": (lambda m: m.with_headers({"a\0b": b"1"}), "holds a NUL character"),
    "surrogate name": (lambda m: m.with_headers({"\udcff": b"1"}), "cannot be written as UTF-8"),
    "surrogate header": (lambda m: m.with_headers({"a": "\udcff"}), "the value of the header 'a'"),
    "UUID as correlation id": (meta(correlation_id=uuid.UUID(int=5)), "correlation_id is UUID("),
    "headers that are none": (meta(headers=5), ""),
}


@pytest.mark.parametrize("wire_format", ["json", "envelope"])
@pytest.mark.parametrize(("change", "reason"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_written_is_a_task_error_at_the_output(change: Any, reason: str, wire_format: str) -> None:
    config = config_for(producers={}, producer={"format": wire_format})
    config["kafka"]["producers"] = {"errors": {"format": "json"}}
    topics, counts = into_topics(flow(setting(change)), numbers(1, 2, 3), config=config)
    assert len(topics["out"]) == 2
    (letter,) = topics["errors"]
    told = dict(letter.headers)
    assert (letter.value, told["x-error-kind"], told["x-error-step"]) == (b'{"n":2}', b"task", b"f.output")
    assert reason.encode() in (told["x-error-reason"] or b"")
    assert counts.failed == {ErrorKind.TASK: 1}


@pytest.mark.parametrize(("change", "reason"), WRONG.values(), ids=WRONG)
def test_the_test_kit_says_the_same(change: Any, reason: str) -> None:
    runner = StreamingTestRunner.from_flow(flow(setting(change))).with_records(numbers(1, 2, 3)).run()
    assert [record.value for record in runner.written("out")] == [b'{"n":1}', b'{"n":3}']
    (error,) = runner.errors[ErrorKind.TASK]
    assert (error.step_id, reason in error.reason) == ("f.output", True)


def test_what_can_be_written_is_written_as_the_client_would() -> None:
    def change(message: Message[Number]) -> Message[Number]:
        return meta(produced_at_ms=-5)(message.with_key("ñ").with_headers([("a", "text"), ("a", None), ("ñ", b"")]))

    topics, _ = into_topics(flow(setting(change)), numbers(2))
    (record,) = topics["out"]
    assert (record.key, record.timestamp_ms) == ("ñ".encode(), -5)
    assert record.headers == (("a", b"text"), ("a", None), ("ñ", b""))


@pytest.mark.parametrize("key", [5, uuid.UUID(int=5), bytearray(b"k"), "\udcff"], ids=repr)
def test_a_key_of_a_strategy_that_cannot_be_written_is_a_routing_error(key: Any) -> None:
    class Strategy:
        def partition_key(self, message: Message[Number]) -> Any:
            return key if message.payload.n == 2 else b"k"

    @step
    def same(number: Number) -> Number:
        return number

    policy = PartitionPolicy(Strategy(), PartitionGuarantee.BEST_EFFORT)
    topics, counts = into_topics(flow(same, output=IntoTopic("out", partitioning=policy)), numbers(1, 2, 3))
    assert [record.key for record in topics["out"]] == [b"k", b"k"]
    assert (len(topics["errors"]), counts.failed) == (1, {ErrorKind.ROUTING: 1})


def test_a_key_that_is_no_text_does_not_end_a_flow_with_sinks_of_its_own() -> None:
    ran = in_memory(flow(setting(meta(key=42))), numbers(1, 2, 3))
    assert [message.payload.n for message in ran.output] == [1, 2, 3]


IDS = (
    ("x-correlation-id", bytes(range(240, 256))),
    ("x-correlation-id", b"second"),
    ("x-trace-id", b"\xff\xfe"),
    ("x-trace-id", b""),
    ("x-parent-trace-id", b"\xfd"),
    ("x-causation-id", b""),
    ("other", b"\xff"),
)


def touched(change: Any, *pairs: tuple[str, bytes | None]) -> Written:
    (record,) = into_topics(
        flow(setting(change)), [KafkaRecord("numbers", b"k", b'{"n":2}', Headers(pairs), 0, 7, 1_000)]
    )[0]["out"]
    return record


@pytest.mark.parametrize("change", [lambda m: m.with_key("new"), meta(produced_at_ms=5)], ids=["key", "time"])
def test_ids_that_no_step_replaced_leave_as_they_came_raw_bytes_empty_and_repeated_ones(change: Any) -> None:
    assert touched(change, *IDS).headers == IDS


def test_an_id_that_a_step_replaced_replaces_its_own_pairs_only() -> None:
    left = touched(meta(correlation_id="new"), *IDS).headers
    assert left == (*IDS[2:], ("x-correlation-id", b"new"))
    assert touched(meta(causation_id="cause"), *IDS).headers == (
        *(pair for pair in IDS if pair[0] != "x-causation-id"),
        ("x-causation-id", b"cause"),
    )


@pytest.mark.parametrize(
    ("stands", "seen", "told"), [(0, 0, b"0"), (-1, None, None), (-5, -5, b"-5"), (None, None, None)]
)
def test_the_time_1970_is_a_time_and_minus_one_is_none(
    stands: int | None, seen: int | None, told: bytes | None
) -> None:
    times: list[int | None] = []

    class Look(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Number:
            times.append(message.meta.produced_at_ms)
            if message.payload.n == 2:
                raise ValueError("two")
            return message.payload

    given = [KafkaRecord("numbers", b"k", b'{"n":%d}' % n, {}, 0, n, stands) for n in (1, 2)]
    topics, _ = into_topics(flow(Look), given)
    assert times == [seen, seen]
    assert topics["out"][0].timestamp_ms == stands
    assert dict(topics["errors"][0].headers).get("x-error-timestamp") == told


@pytest.mark.parametrize("node", ["function", "message"])
def test_a_record_of_the_time_0_keeps_it_whether_or_not_its_message_is_touched(node: str) -> None:
    @step
    def same(number: Number) -> Number:
        return number

    given = [KafkaRecord("numbers", b"k", b'{"n":2}', {}, 0, 0, 0)]
    topics, _ = into_topics(flow(same if node == "function" else setting(lambda m: m.with_key("new"))), given)
    assert topics["out"][0].timestamp_ms == 0


def test_a_time_of_0_that_a_step_sets_is_0() -> None:
    assert touched(meta(produced_at_ms=0)).timestamp_ms == 0
