"""Records that name the step at which they enter: earlier steps do not run, and the header goes no further."""

from __future__ import annotations

import json
from typing import Any

from loom.core.model import LoomFrozenStruct
from loom.streaming import ErrorKind, ExpandStep, FromTopic, IntoTopic, Message, Process, StreamFlow, step
from loom.streaming.kafka import Headers, KafkaRecord
from loom.streaming.testing import StreamingTestRunner


class Order(LoomFrozenStruct):
    id: int
    passed: tuple[str, ...] = ()


class Split(ExpandStep[Order, Order]):
    def execute(self, message: Message[Order]) -> list[Order]:
        order = message.payload
        return [Order(order.id, (*order.passed, f"child {child}")) for child in range(2)]


@step
def first(order: Order) -> Order:
    return Order(order.id, (*order.passed, "first"))


@step
def second(order: Order) -> Order:
    if order.id < 0:
        raise ValueError("negative")
    return Order(order.id, (*order.passed, "second"))


FLOW = StreamFlow(
    "orders", FromTopic("raw", Order), Process(first, Split, second), IntoTopic("out"), IntoTopic("errors")
)


def record(number: int, step: str | None = None, passed: tuple[str, ...] = (), **more: bytes) -> KafkaRecord:
    named = [] if step is None else [("x-loom-replay-step", step.encode())]
    value = json.dumps({"id": number, "passed": passed}).encode()
    return KafkaRecord("raw", b"k", value, Headers([*more.items(), *named]))


def run(*records: KafkaRecord, replay_steps: bool = True, **consumer: Any) -> StreamingTestRunner:
    section = {"brokers": "a:1", "group_id": "g", "replay_steps": replay_steps, **consumer}
    return StreamingTestRunner.from_dict(FLOW, {"kafka": {"consumer": section}}).with_records(records).run()


def passed(runner: StreamingTestRunner) -> list[tuple[int, tuple[str, ...]]]:
    return [(message.payload.id, message.payload.passed) for message in runner.output]


def test_a_record_enters_at_the_step_that_it_names_and_between_its_neighbours() -> None:
    runner = run(record(1), record(2, "orders.second", ("given",), h=b"1"), record(3))
    both = [("first", f"child {child}", "second") for child in range(2)]
    assert passed(runner) == [*((1, way) for way in both), (2, ("given", "second")), *((3, way) for way in both)]
    entered = runner.output[2]
    assert Headers.of(entered.meta.headers).pairs == (("h", b"1"),)
    assert entered.meta.key == b"k"
    assert runner.counts.read == runner.counts.written == 3


def test_a_record_that_fails_again_says_so_and_keeps_the_step_that_it_entered() -> None:
    runner = run(record(-1, "orders.second"), record(-2))
    entered, *others = runner.errors[ErrorKind.TASK]
    assert (entered.step_id, entered.index) == ("orders.second", "")
    assert Headers.of(entered.source.headers if entered.source else {})["x-loom-replay-step"] == b"orders.second"
    assert [error.index for error in others] == ["0", "1"]


def test_a_step_that_is_gone_makes_the_record_an_error_and_nothing_else() -> None:
    runner = run(record(1, "orders.gone"), record(2))
    assert {order for order, _ in passed(runner)} == {2}
    (error,) = runner.errors[ErrorKind.ROUTING]
    assert "has no step 'orders.gone'" in error.reason


def test_bytes_that_the_step_cannot_take_are_an_error_of_the_record() -> None:
    torn = KafkaRecord("raw", None, b"{", Headers([("x-loom-replay-step", b"orders.second")]))
    assert [error.step_id for error in run(torn).errors[ErrorKind.WIRE]] == ["orders.source"]


def test_a_step_of_another_flow_is_an_ordinary_header() -> None:
    runner = run(record(1, "others.second"))
    assert passed(runner)[0] == (1, ("first", "child 0", "second"))
    assert Headers.of(runner.output[0].meta.headers)["x-loom-replay-step"] == b"others.second"


def test_a_source_that_does_not_look_takes_it_as_an_ordinary_header() -> None:
    assert len(passed(run(record(1, "orders.second"), replay_steps=False))) == 2


def test_a_whole_batch_without_headers_and_one_in_several_batches_do_the_same() -> None:
    records = [record(1), record(2, "orders.second"), record(3, "orders.second"), record(4)]
    section = {"brokers": "a:1", "group_id": "g", "replay_steps": True}
    runner = StreamingTestRunner.from_dict(FLOW, {"kafka": {"consumer": section}}).with_batch_size(1)
    assert passed(runner.with_records(records).run()) == passed(run(*records))
