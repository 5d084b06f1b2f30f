"""Sinks of errors: each kind arrives as an envelope that tells what failed, where, and what the record was."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.testing import TestingSink

from loom.core.errors import Conflict, DomainError, NotFound, RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    ErrorEnvelope,
    ErrorKind,
    ErrorMessage,
    ErrorMessageMeta,
    ExpandStep,
    Fork,
    FromTopic,
    IntoTopic,
    Message,
    MessageMeta,
    Process,
    RecordStep,
    StreamFlow,
    step,
)
from loom.streaming.kafka import KafkaRecord
from tests.support.running import each_flush_once, in_memory, numbers, records


class Number(LoomFrozenStruct):
    n: int


def flow(*nodes: Any) -> StreamFlow[Any, Any]:
    return StreamFlow("checking", FromTopic("numbers", Number), Process(*nodes), IntoTopic("checked"))


@step
def positive(number: Number) -> Number:
    if number.n == 0:
        raise RuleViolation("zero is not allowed")
    if number.n < 0:
        raise ArithmeticError("a root of a negative number")
    return number


#: the line of this file that raises
RAISING = positive.function.__code__.co_firstlineno + 5


@step
def copied(number: Number) -> Number:
    return number


BY_PARITY = StreamFlow(
    "sorting",
    FromTopic("numbers", Number),
    Process(Fork.by(lambda number: number.n % 2, {0: Process(copied, IntoTopic("even"))})),
)
SOURCE = KafkaRecord("numbers", b"key", b'{"n":-4}', {"a": b"1"}, 3, 17, 5_000)


def test_a_task_error_tells_all_about_its_record() -> None:
    (envelope,) = in_memory(flow(copied, positive), [SOURCE]).errors[ErrorKind.TASK]
    assert envelope == ErrorEnvelope(
        ErrorKind.TASK,
        "a root of a negative number",
        f"{Number.__module__}.Number",
        ErrorMessage(Number(-4), ErrorMessageMeta("numbers:3:17", b"key", {"a": b"1"}, "numbers", 3, 17)),
        "checking.positive",
        (1,),
        "builtins.ArithmeticError",
        SOURCE,
        at=f"{__file__}:{RAISING}",
    )


def test_a_domain_error_is_a_business_error() -> None:
    ran = in_memory(flow(positive), numbers(0, 1))
    (envelope,) = ran.errors[ErrorKind.BUSINESS]
    assert (envelope.kind, envelope.reason) == (ErrorKind.BUSINESS, "zero is not allowed")
    assert envelope.error_type == "loom.core.errors.RuleViolation"
    assert (ran.errors[ErrorKind.TASK], ran.payloads()) == ([], [Number(1)])


class OutOfStock(NotFound):
    pass


@pytest.mark.parametrize(
    "error", [DomainError("no"), NotFound("no"), Conflict("no"), OutOfStock("no")], ids=lambda e: type(e).__name__
)
def test_every_subclass_of_a_domain_error_is_a_business_error(error: DomainError) -> None:
    @step
    def refuse(number: Number) -> Number:
        raise error

    assert in_memory(flow(refuse), numbers(1)).reasons(ErrorKind.BUSINESS) == ["no"]


def test_bytes_that_do_not_decode_are_a_wire_error_that_holds_the_record_and_no_message() -> None:
    broken = KafkaRecord("numbers", b"key", b"\xff{", {"a": b"1"}, 3, 17, 5_000)
    ran = in_memory(flow(copied), [broken])
    (envelope,) = ran.errors[ErrorKind.WIRE]
    assert (envelope.kind, envelope.original_message, envelope.payload_type) == (ErrorKind.WIRE, None, None)
    assert envelope.source == broken
    assert (envelope.step_id, envelope.path) == ("checking.source", ())
    assert envelope.error_type == "msgspec.DecodeError"
    assert envelope.reason


def test_a_record_that_no_branch_takes_is_a_routing_error_at_the_fork() -> None:
    ran = in_memory(BY_PARITY, numbers(1, 2))
    (envelope,) = ran.errors[ErrorKind.ROUTING]
    assert (envelope.step_id, envelope.path) == ("sorting.fork", (0,))
    assert "1" in envelope.reason
    assert ran.payloads((0, 0, 1)) == [Number(2)]


def test_a_failing_step_inside_a_branch_is_told_by_its_own_place() -> None:
    @step
    def refuse(number: Number) -> Number:
        raise ValueError("no")

    nested = StreamFlow(
        "sorting",
        FromTopic("numbers", Number),
        Process(Fork.by(lambda number: "North East", {"North East": Process(copied, refuse, IntoTopic("far"))})),
    )
    (envelope,) = in_memory(nested, numbers(1)).errors[ErrorKind.TASK]
    assert (envelope.step_id, envelope.path) == ("sorting.north-east.refuse", (0, 0, 1))


def test_the_message_in_an_envelope_is_the_one_that_the_failing_step_was_given() -> None:
    class Rekey(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Message[Number]:
            return message.with_payload(Number(0)).with_key("other").with_headers(b=b"2")

    (envelope,) = in_memory(flow(Rekey, positive), [SOURCE]).errors[ErrorKind.BUSINESS]
    assert envelope.original_message is not None
    assert envelope.original_message.payload == Number(0)
    assert envelope.original_message.meta == ErrorMessageMeta(
        "numbers:3:17", b"other", {"a": b"1", "b": b"2"}, "numbers", 3, 17
    )
    # The record is still the one that was read.
    assert envelope.source == SOURCE


def test_an_error_of_a_message_that_never_was_bytes_holds_it_encoded() -> None:
    meta = MessageMeta("mine", key="k", produced_at_ms=9)
    (envelope,) = in_memory(flow(positive), [Message(Number(0), meta)]).errors[ErrorKind.BUSINESS]
    assert envelope.source == KafkaRecord("", b"k", b'{"n":0}', {}, None, None, 9)


@pytest.mark.both_engines
def test_one_sink_may_take_several_kinds() -> None:
    taken: list[Any] = []
    sink = TestingSink(taken)
    in_memory(flow(positive), records(b'{"n":0}', b"broken", b'{"n":-1}'), error_sinks=dict.fromkeys(ErrorKind, sink))
    assert [envelope.kind for envelope in taken] == [ErrorKind.BUSINESS, ErrorKind.WIRE, ErrorKind.TASK]


@pytest.mark.both_engines
def test_an_error_sink_wins_over_the_flows_own_route() -> None:
    routed = StreamFlow(
        "checking", FromTopic("numbers", Number), Process(positive), IntoTopic("checked"), IntoTopic("errors")
    )
    # Its topic is on no broker: a record that went there would end the run.
    ran = in_memory(routed, numbers(0, -1))
    assert (len(ran.errors[ErrorKind.BUSINESS]), len(ran.errors[ErrorKind.TASK])) == (1, 1)


class Partitioned(FixedPartitionedSink[Any, Any]):
    def __init__(self) -> None:
        self.keys: list[str] = []
        self.taken: list[Any] = []

    def list_parts(self) -> list[str]:
        return ["only"]

    def part_fn(self, item_key: str) -> int:
        self.keys.append(item_key)
        return 0

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> Taking:
        return Taking(self.taken)


class Taking(StatefulSinkPartition[Any, Any]):
    def __init__(self, taken: list[Any]) -> None:
        self._taken = taken

    def write_batch(self, values: list[Any]) -> None:
        self._taken += values

    def snapshot(self) -> None:
        return None


@pytest.mark.both_engines
def test_a_partitioned_error_sink_is_routed_by_the_key_or_else_the_id_of_the_record() -> None:
    sink = Partitioned()
    items = [
        KafkaRecord("numbers", b"key", b'{"n":0}', {}, 0, 1),
        KafkaRecord("numbers", None, b'{"n":0}', {}, 0, 2),
        KafkaRecord("numbers", b"broken", b"{", {}, 0, 3),
        KafkaRecord("numbers", None, b"{", {}, 0, 4),
    ]
    in_memory(flow(positive), items, error_sinks=dict.fromkeys(ErrorKind, sink))
    assert sink.keys == ["key", "numbers:0:2", "broken", "numbers:0:4"]
    assert all(isinstance(envelope, ErrorEnvelope) for envelope in sink.taken)


class Store:
    def __init__(self) -> None:
        self.log: list[Any] = []

    def build_partition(
        self, config: Any, worker_index: int, worker_count: int, bridge: Any = None, session_manager: Any = None
    ) -> Store:
        return self

    def write_batch(self, items: list[Any]) -> None:
        self.log += [item.reason for item in items]

    def flush(self) -> None:
        self.log.append("flushed")

    def close(self) -> None:
        self.log.append("closed")


@pytest.mark.both_engines
def test_an_into_sink_takes_envelopes_too() -> None:
    store = Store()
    in_memory(flow(positive), numbers(0, 0), error_sinks={ErrorKind.BUSINESS: store})
    assert each_flush_once(store.log) == ["zero is not allowed", "zero is not allowed", "flushed", "closed"]


class Untellable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


class Silent(Exception):
    pass


def raising(error: BaseException) -> list[Any]:
    """The same failure in a step of every kind, and in a selector."""

    @step
    def function(number: Number) -> Number:
        raise error

    class Record(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Number:
            raise error

    class Expand(ExpandStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Iterable[Number]:
            raise error

    class Batch(BatchStep[Number, Number]):
        def execute(self, messages: list[Message[Number]]) -> list[Number]:
            raise error

    def selector(number: Number) -> int:
        raise error

    return [function, Record, Expand, Batch, Fork.by(selector, {1: Process(IntoTopic("checked"))})]


@pytest.mark.parametrize("place", range(5), ids=["function", "record", "expand", "batch", "selector"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Untellable(), "Untellable"),
        (Silent(), "Silent"),
        (StopIteration(), "StopIteration"),
        (RecursionError("deep"), "deep"),
        (ValueError("\udcff"), "\udcff"),
        (ValueError("x" * 100_000), "x" * 100_000),
    ],
    ids=["untellable", "silent", "stop-iteration", "recursion", "surrogate", "long"],
)
def test_whatever_a_step_raises_is_an_error_of_its_record(place: int, error: Exception, reason: str) -> None:
    node = raising(error)[place]
    output = None if isinstance(node, Fork) else IntoTopic("checked")
    ran = in_memory(StreamFlow("checking", FromTopic("numbers", Number), Process(node), output), numbers(1, 2))
    kind = ErrorKind.ROUTING if isinstance(node, Fork) else ErrorKind.TASK
    assert ran.reasons(kind) == [reason, reason]
    assert ran.counts.failed == {kind: 2}


@pytest.mark.parametrize(
    "headers",
    [
        {"x-message-version": b"9" * 5_000},
        {"x-message-version": b"\xb2"},
        {"x-message-type": b"\xff\xfe", "x-trace-id": b"\xff", "x-correlation-id": b"\x00"},
        {"traceparent": b"00-zz-\xff-01"},
        {"traceparent": b"-" * 10_000},
        {"x-error-count": b"9" * 5_000},
        {"x-error-count": b"-1"},
    ],
    ids=["long-version", "superscript", "no-utf-8", "odd-trace", "long-trace", "long-count", "negative-count"],
)
def test_no_header_can_end_a_run(headers: dict[str, bytes]) -> None:
    class Look(RecordStep[Number, Number]):
        def execute(self, message: Message[Number]) -> Number:
            assert message.meta.message_id
            if message.payload.n == 0:
                raise ValueError("no")
            return message.payload

    items = [KafkaRecord("numbers", None, b'{"n":%d}' % n, headers, 0, n) for n in (0, 1)]
    ran = in_memory(flow(Look), items)
    assert (ran.reasons(ErrorKind.TASK), ran.payloads()) == (["no"], [Number(1)])


def test_failures_are_counted_by_kind_and_step() -> None:
    ran = in_memory(flow(positive), records(b'{"n":0}', b'{"n":0}', b'{"n":-1}', b"{", b'{"n":1}'))
    assert ran.counts.errors == {
        (ErrorKind.BUSINESS, "checking.positive"): 2,
        (ErrorKind.TASK, "checking.positive"): 1,
        (ErrorKind.WIRE, "checking.source"): 1,
    }
    assert ran.counts.failed == {ErrorKind.BUSINESS: 2, ErrorKind.TASK: 1, ErrorKind.WIRE: 1}
    assert (ran.counts.read, ran.counts.written, ran.counts.dropped) == (5, 1, 0)


class Halves(ExpandStep[Number, Number]):
    def execute(self, message: Message[Number]) -> Iterable[Number]:
        return [Number(message.payload.n), Number(-message.payload.n)]


def test_an_envelope_tells_which_child_failed_the_same_whenever_the_record_is_processed_again() -> None:
    def failed() -> list[tuple[str | None, str]]:
        ran = in_memory(flow(Halves, step(name="second")(lambda n: n), positive), records(b'{"n":1}', b'{"n":0}'))
        return [(e.step_id, e.index) for kind in (ErrorKind.TASK, ErrorKind.BUSINESS) for e in ran.errors[kind]]

    assert failed() == failed()
    assert failed() == [("checking.positive", "1"), ("checking.positive", "0"), ("checking.positive", "1")]


def test_a_record_that_was_not_expanded_has_no_index() -> None:
    (envelope,) = in_memory(flow(positive), numbers(-1)).errors[ErrorKind.TASK]
    assert envelope.index == ""
