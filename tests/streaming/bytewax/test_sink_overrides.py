"""Sinks in place of topics: each gets what its topic would have got, as messages, in order, with an end of epoch."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from bytewax.errors import BytewaxRuntimeError
from bytewax.outputs import DynamicSink, FixedPartitionedSink, StatefulSinkPartition, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from bytewax.testing import TestingSink, TestingSource

from loom.core.async_bridge import AsyncBridge
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    ErrorKind,
    Fork,
    FromTopic,
    IntoTopic,
    Message,
    MessageMeta,
    Process,
    StreamFlow,
    Tombstone,
    compile_flow,
    step,
)
from loom.streaming.bytewax import build_dataflow, build_dataflow_with_shutdown
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from tests.support.running import config_for, content, each_flush_once, in_memory, numbers


class Number(LoomFrozenStruct):
    n: int


@step
def double(number: Number) -> Number:
    return Number(number.n * 2)


FLOW = StreamFlow("doubling", FromTopic("numbers", Number), Process(double), IntoTopic("doubled"))


def of_third(number: Number) -> int:
    return number.n % 3


def of_half(number: Number) -> str:
    return "even" if number.n % 2 == 0 else "odd"


NESTED = StreamFlow(
    "sorting",
    FromTopic("numbers", Number),
    Process(
        Fork.by(
            of_third,
            {
                0: Process(IntoTopic("thirds")),
                1: Process(
                    double, Fork.by(of_half, {"even": Process(IntoTopic("even")), "odd": Process(IntoTopic("odd"))})
                ),
            },
            default=Process(IntoTopic("rest")),
        )
    ),
)


def test_a_sink_takes_the_messages_of_the_flows_output() -> None:
    ran = in_memory(FLOW, [KafkaRecord("numbers", b"k", b'{"n":4}', {"a": b"1"}, 2, 17, 5_000)])
    assert ran.output == [
        Message(
            Number(8),
            MessageMeta(
                "numbers:2:17",
                produced_at_ms=5_000,
                topic="numbers",
                partition=2,
                offset=17,
                key=b"k",
                headers={"a": b"1"},
            ),
        )
    ]


def test_every_terminal_of_nested_forks_has_a_path_of_its_own() -> None:
    ran = in_memory(NESTED, numbers(*range(9)))
    assert {path: [payload.n for payload in ran.payloads(path)] for path in ran.terminals} == {
        (0, 0, 0): [0, 3, 6],
        (0, 1, 1, 0, 0): [2, 8, 14],
        (0, 1, 1, 1, 0): [],
        (0, 2, 0): [2, 5, 8],
    }


def test_a_terminal_that_is_not_replaced_still_goes_to_its_topic(broker: EmbeddedBroker) -> None:
    for topic in ("thirds", "even", "odd", "rest"):
        broker.create_topic(topic)
    taken: list[Any] = []
    plan = compile_flow(NESTED, config=config_for(broker.bootstrap))
    built = build_dataflow_with_shutdown(
        plan, source=TestingSource(numbers(*range(9))), terminal_sinks={(0, 0, 0): TestingSink(taken)}
    )
    cli_main(built.dataflow)
    built.shutdown()
    assert [message.payload.n for message in taken] == [0, 3, 6]
    rest = [record.value for record in content(broker.bootstrap, "rest")["rest"]]
    assert sorted(filter(None, rest)) == [b'{"n":2}', b'{"n":5}', b'{"n":8}']
    assert content(broker.bootstrap, "thirds") == {"thirds": []}


def test_a_path_that_leads_to_no_terminal_is_refused_by_name() -> None:
    plan = compile_flow(NESTED, config=config_for())
    with pytest.raises(ValueError, match=r"\(0, 9\)") as refused:
        build_dataflow(plan, terminal_sinks={(0, 9): TestingSink([])})
    assert "(0, 1, 1, 0, 0)" in str(refused.value)


class Partitioned(FixedPartitionedSink[Any, Any]):
    """Three parts; by the number that the key is."""

    def __init__(self, names: tuple[str, ...] = ("b", "a", "c")) -> None:
        self.names = names
        self.keys: list[str] = []
        self.written: dict[str, list[Any]] = {}
        self.log: list[str] = []

    def list_parts(self) -> list[str]:
        return list(self.names)

    def part_fn(self, item_key: str) -> int:
        self.keys.append(item_key)
        return int(item_key) if item_key.isdigit() else 0

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> Part:
        self.log.append(f"{for_part} opened with {resume_state}")
        return Part(self, for_part, resume_state or 0)


class Part(StatefulSinkPartition[Any, Any]):
    def __init__(self, sink: Partitioned, name: str, seen: int) -> None:
        self._sink, self._name, self._seen = sink, name, seen

    def write_batch(self, values: list[Any]) -> None:
        self._seen += len(values)
        self._sink.written.setdefault(self._name, []).extend(values)

    def snapshot(self) -> int:
        self._sink.log.append(f"{self._name} at {self._seen}")
        return self._seen

    def close(self) -> None:
        self._sink.log.append(f"{self._name} closed")


def keyed(*keys: bytes | None) -> list[KafkaRecord]:
    return [KafkaRecord("numbers", key, b'{"n":%d}' % place, {}, 0, place) for place, key in enumerate(keys)]


def test_a_partitioned_sink_is_handed_each_message_under_its_key() -> None:
    sink = Partitioned()
    in_memory(FLOW, keyed(b"0", b"1", b"2", b"4", b"\xff"), sink=sink)
    assert sink.keys == ["0", "1", "2", "4", "\N{REPLACEMENT CHARACTER}"]
    # The engine's own rule: parts in sorted order, and the number modulo how many there are.
    written = {part: [message.payload.n for message in messages] for part, messages in sink.written.items()}
    assert written == {"a": [0, 8], "b": [2, 6], "c": [4]}
    assert all(isinstance(message, Message) for messages in sink.written.values() for message in messages)


def test_a_message_without_a_key_is_routed_by_its_id() -> None:
    sink = Partitioned()
    in_memory(
        FLOW,
        [*keyed(None), Message(Number(1), MessageMeta("mine")), Message(Number(1), MessageMeta("x", key="2"))],
        sink=sink,
    )
    assert sink.keys == ["numbers:0:0", "mine", "2"]


def test_a_partitioned_sink_is_snapshotted_and_closed() -> None:
    sink = Partitioned(names=("only",))
    in_memory(FLOW, keyed(b"0", b"1"), sink=sink)
    assert sink.log == ["only opened with None", "only at 2", "only closed"]


def test_a_partitioned_sink_resumes_with_its_state(tmp_path: Any) -> None:
    init_db_dir(tmp_path, 1)
    sink = Partitioned(names=("only",))
    items = [*keyed(b"0", b"1"), TestingSource.EOF(), *keyed(b"2")]
    for _ in range(2):
        plan = compile_flow(FLOW, config=config_for())
        built = build_dataflow_with_shutdown(plan, source=TestingSource(items), sink=sink)
        cli_main(built.dataflow, recovery_config=RecoveryConfig(tmp_path), epoch_interval=timedelta(0))
        built.shutdown()
    assert [line for line in sink.log if "opened" in line] == ["only opened with None", "only opened with 2"]
    assert [message.payload.n for message in sink.written["only"]] == [0, 2, 0]


class Dynamic(DynamicSink[Any]):
    def __init__(self) -> None:
        self.log: list[Any] = []

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSinkPartition[Any]:
        self.log.append(("built", worker_index, worker_count))
        return Writing(self.log)


class Writing(StatelessSinkPartition[Any]):
    def __init__(self, log: list[Any]) -> None:
        self._log = log

    def write_batch(self, items: list[Any]) -> None:
        self._log.append([item.payload.n for item in items])

    def close(self) -> None:
        self._log.append("closed")


def test_a_dynamic_sink_is_built_once_fed_in_batches_and_closed() -> None:
    sink = Dynamic()
    in_memory(FLOW, numbers(1, 2, 3), sink=sink)
    assert sink.log == [("built", 0, 1), [2, 4, 6], "closed"]


class Store:
    """An `IntoSink` that writes down what is asked of it."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.arguments: tuple[Any, ...] = ()

    def build_partition(
        self, config: Any, worker_index: int, worker_count: int, bridge: Any = None, session_manager: Any = None
    ) -> Store:
        self.arguments = (config, worker_index, worker_count, bridge, session_manager)
        self.log.append("opened")
        return self

    def write_batch(self, items: list[Message[Any]]) -> None:
        self.log.append([item.payload for item in items])

    def flush(self) -> None:
        self.log.append("flushed")

    def close(self) -> None:
        self.log.append("closed")


def test_an_into_sink_is_written_to_flushed_at_the_end_of_the_epoch_and_closed() -> None:
    store = Store()
    in_memory(FLOW, [*numbers(1, 2), KafkaRecord("numbers", b"k", None)], sink=store)
    assert each_flush_once(store.log) == ["opened", [Number(2), Number(4), Tombstone()], "flushed", "closed"]
    assert store.arguments == (None, 0, 1, None, None)


def test_an_into_sink_is_flushed_at_the_end_of_each_epoch_that_brought_it_something() -> None:
    store = Store()
    pause = TestingSource.PAUSE(timedelta(milliseconds=150))  # longer than an epoch of these runs
    in_memory(FLOW, [*numbers(1), pause, *numbers(2)], sink=store)
    assert each_flush_once(store.log) == ["opened", [Number(2)], "flushed", [Number(4)], "flushed", "closed"]


def test_an_into_sink_is_handed_the_bridge_that_the_caller_made_and_the_caller_closes_it() -> None:
    store, bridge = Store(), AsyncBridge()

    async def answer() -> int:
        return 42

    in_memory(FLOW, numbers(1), sink=store, bridge=bridge)
    assert store.arguments[3] is bridge
    assert bridge.run(answer()) == 42
    bridge.shutdown()


class Fault(Exception):
    pass


class Refusing(Store):
    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where

    def build_partition(self, *arguments: Any, **more: Any) -> Store:
        self._fail("open")
        return super().build_partition(None, 0, 1)

    def write_batch(self, items: list[Message[Any]]) -> None:
        self._fail("write")
        super().write_batch(items)

    def flush(self) -> None:
        self._fail("flush")
        super().flush()

    def close(self) -> None:
        super().close()
        self._fail("close")

    def _fail(self, where: str) -> None:
        if where == self._where:
            raise Fault(where)


@pytest.mark.parametrize("where", ["open", "write", "flush"])
def test_a_sink_that_fails_ends_the_run_with_what_it_raised(where: str) -> None:
    from tests.support.running import causes

    with pytest.raises(BaseException) as failed:
        in_memory(FLOW, numbers(1), sink=Refusing(where))
    assert any(isinstance(cause, Fault) and str(cause) == where for cause in causes(failed.value))


@pytest.mark.parametrize("where", ["write", "flush"])
def test_a_sink_that_has_failed_is_closed(where: str) -> None:
    sink = Refusing(where)
    with pytest.raises((BytewaxRuntimeError, Fault)):
        in_memory(FLOW, numbers(1), sink=sink)
    assert sink.log[-1] == "closed"
    assert sink.log.count("closed") == 1


def test_a_sink_whose_close_fails_does_no_harm() -> None:
    sink = Refusing("close")
    ran = in_memory(FLOW, numbers(1), sink=sink)
    assert each_flush_once(sink.log) == ["opened", [Number(2)], "flushed", "closed"]
    assert ran.counts.written == 1


def test_results_are_counted_by_the_name_of_their_output() -> None:
    ran = in_memory(NESTED, numbers(*range(9)))
    assert ran.counts.outputs == {"0.0.0": 3, "0.1.1.0.0": 3, "0.2.0": 3}
    assert (ran.counts.read, ran.counts.written, ran.counts.durable) == (9, 9, 9)


def test_one_sink_may_stand_in_several_places() -> None:
    taken: list[Any] = []
    sink = TestingSink(taken)
    plan = compile_flow(NESTED, config=config_for())
    everywhere = dict.fromkeys(plan.terminal_sinks, sink)
    in_memory(NESTED, numbers(*range(9)), terminal_sinks=everywhere)
    assert sorted(message.payload.n for message in taken) == [0, 2, 2, 3, 5, 6, 8, 8, 14]


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_a_sink_for_errors_that_never_happen_is_opened_and_closed_all_the_same(kind: ErrorKind) -> None:
    store = Store()
    in_memory(FLOW, numbers(1), error_sinks={kind: store})
    assert store.log[0] == "opened"
    assert store.log[-1] == "closed"
