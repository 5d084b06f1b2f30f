"""The rows of the test kit's contract, each by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import loom.streaming.testing
from loom.core.config import ConfigContext
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    ErrorKind,
    FromTopic,
    IntoTopic,
    Message,
    MessageMeta,
    Process,
    RecordStep,
    StreamFlow,
    Tombstone,
)
from loom.streaming.bytewax import UnroutedRecordError
from loom.streaming.compiler import CompilationError
from loom.streaming.testing import StreamingTestRunner
from tests.streaming.testing.flows import Number, double, flow, picky

OUT: IntoTopic[Any] = IntoTopic("out")
DOUBLED = flow(double, output=OUT)
PICKY = flow(picky, output=OUT, errors=None)


class Priced(LoomFrozenStruct):
    cents: int
    currency: str


class Price(RecordStep[Number, Priced]):
    def __init__(self, currency: str) -> None:
        self.currency = currency

    def execute(self, message: Message[Number]) -> Priced:
        return Priced(message.payload.n, self.currency)


PRICED: StreamFlow[Any, Any] = StreamFlow(
    "prices", FromTopic("raw", Number), Process(Price.from_config("pricing")), IntoTopic("out")
)


def _numbers(messages: list[Message[Any]]) -> list[int]:
    return [message.payload.n for message in messages]


def test_everything_public_is_exported() -> None:
    assert loom.streaming.testing.__all__ == ["BrokerTopics", "StreamingTestRunner"]
    assert all(getattr(loom.streaming.testing, name) for name in loom.streaming.testing.__all__)


def test_from_flow_needs_no_config() -> None:
    assert _numbers(StreamingTestRunner.from_flow(DOUBLED).with_payloads([Number(1)]).run().output) == [2]


def test_from_flow_takes_a_config_or_a_loaded_one() -> None:
    for config in ({"pricing": {"currency": "EUR"}}, ConfigContext.from_dict({"pricing": {"currency": "EUR"}})):
        runner = StreamingTestRunner.from_flow(PRICED, config).with_payloads([Number(3)]).run()
        assert runner.output[0].payload == Priced(3, "EUR")


def test_from_dict_reads_the_sections_that_steps_bind() -> None:
    runner = StreamingTestRunner.from_dict(PRICED, {"pricing": {"currency": "GBP"}}).with_payloads([Number(3)]).run()
    assert runner.output[0].payload == Priced(3, "GBP")


def test_from_yaml_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("pricing: {currency: USD}\n")
    runner = StreamingTestRunner.from_yaml(PRICED, path).with_payloads([Number(3)]).run()
    assert runner.output[0].payload == Priced(3, "USD")


def test_with_payloads_gives_ids_and_the_first_topic_of_the_source() -> None:
    config = {"kafka": {"consumer": {"brokers": ["b:1"], "group_id": "g", "topics": ["first", "second"]}}}
    runner = StreamingTestRunner.from_dict(DOUBLED, config).with_payloads([Number(1), Number(2)])
    output = runner.with_payloads([Number(3)]).run().output
    assert [(m.meta.message_id, m.meta.topic) for m in output] == [(f"test-{i}", "first") for i in range(3)]
    assert [(m.meta.partition, m.meta.offset) for m in output] == [(0, 0), (0, 1), (0, 2)]


def test_with_payloads_takes_keys_and_tombstones() -> None:
    runner = StreamingTestRunner.from_flow(DOUBLED)
    output = (
        runner.with_payloads([Number(1)], key=lambda number: f"k{number.n}").with_payloads([Tombstone()]).run().output
    )
    assert [(m.payload, m.meta.key) for m in output] == [(Number(2), b"k1"), (Tombstone(), None)]
    assert [record.value for record in runner.written("out")] == [b'{"n":2,"country":"ES"}', None]


def test_with_messages_keeps_their_meta_and_encodes_a_key_that_is_text() -> None:
    meta = MessageMeta("mine", trace_id="t", topic="raw", partition=3, offset=8, key="ü", headers={"a": b"1"})
    (out,) = StreamingTestRunner.from_flow(DOUBLED).with_messages([Message(Number(1), meta)]).run().output
    assert (out.meta.message_id, out.meta.partition, out.meta.offset, out.meta.trace_id) == ("mine", 3, 8, "t")
    assert out.meta.key == "ü".encode()
    assert out.meta.headers == {"a": b"1"}


def test_capture_errors_keeps_them_by_kind() -> None:
    runner = StreamingTestRunner.from_flow(PICKY).capture_errors(ErrorKind.TASK, ErrorKind.BUSINESS)
    runner.with_payloads([Number(7), Number(1), Number(13)]).run()
    assert {kind: [e.reason for e in found] for kind, found in runner.errors.items()} == {
        ErrorKind.TASK: ["seven"],
        ErrorKind.BUSINESS: ["unlucky"],
    }
    assert _numbers(runner.output) == [1]
    assert runner.errors[ErrorKind.WIRE] == []


def test_capture_errors_without_kinds_keeps_all() -> None:
    runner = StreamingTestRunner.from_flow(PICKY).capture_errors().with_payloads([Number(7), Number(13)]).run()
    assert sorted(runner.errors) == [ErrorKind.BUSINESS, ErrorKind.TASK]


def test_run_is_chainable_and_so_is_everything_before_it() -> None:
    runner = StreamingTestRunner.from_flow(DOUBLED)
    message = Message(Number(2), MessageMeta("m"))
    assert runner.with_payloads([Number(1)]) is runner
    assert runner.with_messages([message]) is runner
    assert runner.capture_errors(ErrorKind.TASK) is runner
    assert runner.advance(1) is runner
    assert runner.with_batch_size(10) is runner
    assert runner.with_sinks() is runner
    assert runner.run() is runner
    assert runner.reset() is runner


def test_an_error_kind_that_is_neither_captured_nor_routed_raises_at_run() -> None:
    runner = StreamingTestRunner.from_flow(PICKY).capture_errors(ErrorKind.BUSINESS)
    runner.with_payloads([Number(13), Number(7)])
    with pytest.raises(UnroutedRecordError, match=r"task error at numbers.picky for raw\[0\]@1: seven") as raised:
        runner.run()
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_a_flow_that_does_not_compile_raises_at_run() -> None:
    class OfAnother(RecordStep[Priced, Priced]):
        def execute(self, message: Message[Priced]) -> Priced:
            return message.payload

    runner = StreamingTestRunner.from_flow(flow(double, OfAnother, output=OUT)).with_payloads([Number(1)])
    with pytest.raises(CompilationError):
        runner.run()


def test_a_run_reads_what_came_since_the_last_one_and_adds_to_the_results() -> None:
    runner = StreamingTestRunner.from_flow(DOUBLED).with_payloads([Number(1)]).run()
    runner.run()
    assert _numbers(runner.output) == [2]
    runner.with_payloads([Number(2)]).run()
    assert _numbers(runner.output) == [2, 4]
    assert [message.meta.message_id for message in runner.output] == ["test-0", "test-1"]
    assert (runner.counts.read, runner.counts.outputs) == (2, {"out": 2})


def test_reset_forgets_input_results_and_steps_and_keeps_what_it_was_told() -> None:
    class Counting(BatchStep[Number, Number]):
        def __init__(self) -> None:
            self.seen = 0

        def execute(self, messages: list[Message[Number]]) -> list[Any]:
            self.seen += len(messages)
            return [ValueError("bad") if m.payload.n == 7 else Number(self.seen) for m in messages]

    runner = StreamingTestRunner.from_flow(flow(Counting, output=OUT, errors=None)).capture_errors(ErrorKind.TASK)
    runner.with_payloads([Number(1), Number(7)]).run().with_payloads([Number(99)])
    assert runner.reset().with_payloads([Number(1), Number(7)]).run() is runner
    assert [(m.payload.n, m.meta.message_id) for m in runner.output] == [(2, "test-0")]
    assert len(runner.errors[ErrorKind.TASK]) == 1
    assert runner.counts.read == 2


def test_what_a_failed_run_left_behind_can_be_looked_at() -> None:
    runner = StreamingTestRunner.from_flow(PICKY).with_batch_size(1).with_payloads([Number(1), Number(7), Number(2)])
    with pytest.raises(UnroutedRecordError):
        runner.run()
    assert _numbers(runner.output) == [1]
    assert _numbers(runner.with_payloads([Number(3)]).run().output) == [1, 3]


def test_terminal_names_the_terminals_where_there_is_none_at_a_path() -> None:
    with pytest.raises(ValueError, match=r"no terminal at \(9,\); its terminals: \(0,\)"):
        StreamingTestRunner.from_flow(flow(IntoTopic("out"))).run().terminal((9,))
