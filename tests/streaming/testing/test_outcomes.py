"""Where records end in the kit: terminals, sinks, error routes, topics as bytes; and under every delivery."""

from __future__ import annotations

from typing import Any

import pytest

from loom.streaming import (
    Broadcast,
    BroadcastRoute,
    CollectBatch,
    Drain,
    ErrorKind,
    ForEach,
    Fork,
    IntoTopic,
    Message,
    MessageMeta,
    PartitionGuarantee,
    PartitionPolicy,
    Process,
    Tombstone,
    msg,
    payload,
)
from loom.streaming.bytewax import FlowFailedError, UnroutedRecordError
from loom.streaming.kafka import KafkaRecord
from loom.streaming.testing import StreamingTestRunner
from tests.streaming.testing.flows import FLOWS, ByCountry, Number, Shown, double, flow, picky, show, unencodable

OUT: IntoTopic[Any] = IntoTopic("out")


def _run(flow: Any, *payloads: Any, **config: Any) -> StreamingTestRunner:
    return StreamingTestRunner.from_flow(flow, config).with_payloads(payloads).run()


def _payloads(messages: list[Message[Any]]) -> list[Any]:
    return [message.payload for message in messages]


class Warehouse:
    """A storage sink that notes what happens to it."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def build_partition(
        self, config: Any, index: int, count: int, bridge: Any = None, session_manager: Any = None
    ) -> Any:
        self.events.append("open")
        return self

    def write_batch(self, items: list[Message[Any]]) -> None:
        self.events += _payloads(items)

    def flush(self) -> None:
        self.events.append("flush")

    def close(self) -> None:
        self.events.append("close")


def test_every_terminal_is_known_by_its_path() -> None:
    forked = Fork.by(payload.country, {"ES": Process(double, IntoTopic("es"))}, default=Process(IntoTopic("rest")))
    runner = _run(flow(picky, forked), Number(1), Number(2, "UK"))
    assert _payloads(runner.terminal((1, 0, 1))) == [Number(2)]
    assert _payloads(runner.terminal((1, 1, 0))) == [Number(2, "UK")]
    assert runner.output == []


def test_the_outputs_of_a_broadcast_are_terminals() -> None:
    both = Broadcast(BroadcastRoute(Process(double), OUT), BroadcastRoute(Process(show, IntoTopic("shown"))))
    runner = _run(flow(both), Number(1))
    assert _payloads(runner.terminal((0, 0))) == [Number(2)]
    assert _payloads(runner.terminal((0, 1, 1))) == [Shown("ES1")]


def test_two_terminals_of_one_topic_are_told_apart() -> None:
    forked = Fork.by(payload.country, {"ES": Process(IntoTopic("all"))}, default=Process(IntoTopic("all")))
    runner = _run(flow(forked), Number(1), Number(2, "UK"))
    assert _payloads(runner.terminal((0, 0, 0))) == [Number(1)]
    assert _payloads(runner.terminal((0, 1, 0))) == [Number(2, "UK")]
    assert len(runner.written("all")) == 2


def test_a_storage_sink_is_captured_and_not_opened() -> None:
    sink = Warehouse()
    runner = _run(flow(double, sink), Number(1), Number(2))
    assert _payloads(runner.terminal((1,))) == [Number(2), Number(4)]
    assert sink.events == []


def test_with_sinks_opens_the_real_one_and_captures_all_the_same() -> None:
    sink = Warehouse()
    runner = StreamingTestRunner.from_flow(flow(double, sink)).with_sinks().with_payloads([Number(1)]).run()
    assert _payloads(runner.terminal((1,))) == [Number(2)]
    assert [event for event in sink.events if event != "flush"] == ["open", Number(2), "close"]
    assert sink.events.index("flush") > sink.events.index(Number(2))


def test_what_a_real_sink_raises_is_the_cause() -> None:
    class Full(Warehouse):
        def write_batch(self, items: list[Message[Any]]) -> None:
            raise OSError("disk full")

    with pytest.raises(FlowFailedError, match="disk full") as raised:
        StreamingTestRunner.from_flow(flow(Full())).with_sinks().with_payloads([Number(1)]).run()
    assert isinstance(raised.value.__cause__, OSError)


def test_routed_kinds_are_visible_with_their_envelopes_and_their_dead_letters() -> None:
    runner = _run(flow(picky, output=OUT), Number(7), Number(13))
    (task,), (business,) = runner.errors[ErrorKind.TASK], runner.errors[ErrorKind.BUSINESS]
    assert (task.reason, task.step_id, task.original_message.payload) == ("seven", "numbers.picky", Number(7))
    assert (business.error_type, business.path) == ("loom.core.errors.RuleViolation", (0,))
    letters = runner.written("errors")
    assert [letter.value for letter in letters] == [b'{"n":7,"country":"ES"}', b'{"n":13,"country":"ES"}']
    assert [letter.headers["x-error-kind"] for letter in letters] == [b"task", b"business"]
    assert runner.counts.outputs == {"errors": 2}


def test_capturing_a_routed_kind_changes_nothing() -> None:
    runner = StreamingTestRunner.from_flow(flow(picky, output=OUT)).capture_errors(ErrorKind.TASK)
    runner.with_payloads([Number(7)]).run()
    assert len(runner.errors[ErrorKind.TASK]) == len(runner.written("errors")) == 1


def test_bytes_that_do_not_decode_are_a_wire_error() -> None:
    runner = StreamingTestRunner.from_flow(flow(double, output=OUT))
    runner.with_records([KafkaRecord("raw", b"k", b"{", {"h": b"1"}), KafkaRecord("raw", None, b'{"n":1}')]).run()
    (wire,) = runner.errors[ErrorKind.WIRE]
    assert wire.original_message is None
    assert wire.source == KafkaRecord("raw", b"k", b"{", {"h": b"1"}, 0, 0)
    assert [(m.payload, m.meta.message_id) for m in runner.output] == [(Number(2), "raw:0:1")]


def test_a_dead_letter_of_a_tombstone_has_no_value() -> None:
    by_key = Fork.by(msg.meta.key, {"known": Process(IntoTopic("out"))})
    runner = StreamingTestRunner.from_flow(flow(by_key)).with_records([KafkaRecord("raw", b"k", None)]).run()
    (error,) = runner.errors[ErrorKind.ROUTING]
    assert error.original_message is not None
    assert error.original_message.payload == Tombstone()
    assert [letter.value for letter in runner.written("errors")] == [None]


def test_a_value_that_does_not_encode_is_a_task_error_at_its_output() -> None:
    runner = _run(flow(unencodable, output=OUT), Number(1), Number(2))
    (error,) = runner.errors[ErrorKind.TASK]
    assert error.step_id == "numbers.output"
    assert len(runner.output) == len(runner.written("out")) == 1
    with pytest.raises(UnroutedRecordError, match=r"task error at numbers.output"):
        _run(flow(unencodable, output=OUT, errors=None), Number(2))


def test_a_key_that_a_policy_gives_is_seen() -> None:
    policy = PartitionPolicy(ByCountry(), PartitionGuarantee.ENTITY_STABLE)
    runner = _run(flow(double, output=IntoTopic("out", partitioning=policy)), Number(1, "UK"))
    assert [message.meta.key for message in runner.output] == [b"UK"]


def test_dropped_errors_are_counted_and_not_raised() -> None:
    runner = _run(flow(picky, output=OUT, errors=None, unrouted="drop"), Number(7), Number(1))
    assert runner.errors == {}
    assert runner.counts.failed == {ErrorKind.TASK: 1}
    assert len(runner.output) == 1


def test_a_drain_is_counted() -> None:
    assert _run(flow(Drain()), Number(1)).counts.drops == {"numbers.drain": 1}


@pytest.mark.parametrize("delivery", ["at_most_once", "at_least_once", "exactly_once", None])
@pytest.mark.parametrize("name", ["steps", "small batches", "a fork"])
def test_a_flow_runs_under_every_delivery(delivery: str | None, name: str) -> None:
    consumer = {"brokers": ["b:1"], "group_id": "g", **({"delivery": delivery} if delivery else {})}
    runner = StreamingTestRunner.from_dict(FLOWS[name], {"kafka": {"consumer": consumer}})
    runner.with_payloads([Number(n, country) for n in range(5) for country in ("ES", "FR")]).run()
    assert runner.counts.read == runner.counts.accounted == 10
    assert sum(runner.counts.outputs.values()) == runner.counts.durable


def test_one_object_given_several_times_is_several_records() -> None:
    message = Message(Number(1), MessageMeta("m"))
    runner = StreamingTestRunner.from_flow(flow(CollectBatch(3, timeout_ms=1), ForEach(), double, output=OUT))
    assert len(runner.with_messages([message] * 3).run().output) == 3
    record = KafkaRecord("raw", None, b'{"n":1}')
    runner.reset().with_records([record] * 3).run()
    assert [m.meta.message_id for m in runner.output] == ["raw:0:0", "raw:0:1", "raw:0:2"]


@pytest.mark.parametrize("wrong", [Number(1), b"{}", KafkaRecord("raw", None, None)])
def test_what_is_no_message_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="with_messages takes Messages"):
        StreamingTestRunner.from_flow(flow(double, output=OUT)).with_messages([wrong])


def test_what_is_no_record_is_refused() -> None:
    with pytest.raises(TypeError, match="with_records takes KafkaRecords, not Number"):
        StreamingTestRunner.from_flow(flow(double, output=OUT)).with_records([Number(1)])  # type: ignore[list-item]
