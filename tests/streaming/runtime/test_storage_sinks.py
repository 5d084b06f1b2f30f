"""Sinks of one's own as nodes: at the end of a process or a branch, opened once, durable at the end of each epoch."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from loom.core.async_bridge import AsyncBridge
from loom.core.config import ConfigContext
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    Broadcast,
    BroadcastRoute,
    ErrorKind,
    ExpandStep,
    Fork,
    FromTopic,
    Message,
    Process,
    StreamFlow,
    StreamingRunner,
    compile_flow,
    step,
)
from loom.streaming.bytewax import FlowFailedError, build_dataflow
from loom.streaming.compiler import Code, CompilationError
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from tests.support.running import (
    all_done,
    config_for,
    each_flush_once,
    in_memory,
    keeping,
    numbers,
    positions,
    produce,
    run_until,
)
from tests.support.scripted import Pause


class Number(LoomFrozenStruct):
    n: int


@step
def positive(number: Number) -> Number:
    if number.n < 0:
        raise ValueError("negative")
    return number


class Tens(ExpandStep[Number, Number]):
    def execute(self, message: Message[Number]) -> list[Number]:
        return [Number(message.payload.n * 10), Number(message.payload.n * 10 + 1)]


class Store:
    """Keeps what it is handed, and with which arguments it was opened."""

    def __init__(self, name: str = "store") -> None:
        self.name = name
        self.opened: list[tuple[Any, ...]] = []
        self.log: list[Any] = []

    def build_partition(
        self, config: Any, worker_index: int, worker_count: int, bridge: Any = None, session_manager: Any = None
    ) -> Store:
        self.opened.append((config, worker_index, worker_count, bridge, session_manager))
        return self

    def write_batch(self, items: list[Message[Any]]) -> None:
        self.log += [item.payload.n for item in items]

    def flush(self) -> None:
        self.log.append("flushed")

    def close(self) -> None:
        self.log.append("closed")


def flow(*nodes: Any) -> StreamFlow[Any, Any]:
    return StreamFlow("storing", FromTopic("numbers", Number), Process(*nodes))


def test_a_process_may_end_in_a_sink() -> None:
    store = Store()
    ran = in_memory(flow(positive, Tens, store), numbers(1, -1, 2))
    assert each_flush_once(store.log) == [10, 11, 20, 21, "flushed", "closed"]
    assert ran.reasons(ErrorKind.TASK) == ["negative"]
    assert (ran.counts.written, ran.counts.outputs["storing.into-store"]) == (2, 4)


def test_a_branch_may_end_in_a_sink() -> None:
    even, rest = Store("even"), Store("rest")
    in_memory(flow(Fork.by(lambda number: number.n % 2, {0: Process(even)}, default=Process(rest))), numbers(*range(5)))
    assert (even.log[:3], rest.log[:2]) == ([0, 2, 4], [1, 3])


def test_it_is_flushed_at_the_end_of_each_epoch_that_brought_something() -> None:
    store = Store()
    pause = Pause(timedelta(milliseconds=150))
    in_memory(flow(store), [*numbers(1), pause, *numbers(2)])
    assert each_flush_once(store.log) == [1, "flushed", 2, "flushed", "closed"]


def test_it_is_opened_with_the_config_of_the_flow_as_the_one_worker_and_with_the_bridge() -> None:
    store, bridge = Store(), AsyncBridge()
    config = ConfigContext.from_dict({**config_for(), "warehouse": {"url": "here"}})
    in_memory(flow(store), numbers(1), config=config, bridge=bridge)
    assert store.opened == [(config, 0, 1, bridge, None)]
    assert store.opened[0][0] is config
    bridge.shutdown()


def test_one_sink_in_several_places_has_one_partition_and_the_order_of_the_source() -> None:
    store = Store()
    process = flow(
        Fork.by(lambda number: number.n % 2, {0: Process(positive, store), 1: Process(store)}),
    )
    ran = in_memory(process, numbers(*range(6)))
    assert len(store.opened) == 1
    assert each_flush_once(store.log) == [0, 1, 2, 3, 4, 5, "flushed", "closed"]
    assert ran.counts.outputs == {"storing.0.into-store": 3, "storing.1.into-store": 3}


def test_it_may_stand_beside_others_in_a_broadcast() -> None:
    one, other = Store("one"), Store("other")
    in_memory(
        flow(Broadcast(BroadcastRoute(Process(one), name="a"), BroadcastRoute(Process(positive, other), name="b"))),
        numbers(1, 2),
    )
    assert each_flush_once(one.log) == each_flush_once(other.log) == [1, 2, "flushed", "closed"]


def test_it_can_be_replaced_by_its_path() -> None:
    store, taken = Store(), list[Any]()
    in_memory(flow(positive, store), numbers(1, 2), terminal_sinks={(1,): keeping(taken)})
    assert [message.payload.n for message in taken] == [1, 2]
    assert store.opened == []


@pytest.mark.bytewax
def test_a_path_without_a_terminal_is_refused_and_the_sinks_are_among_those_named() -> None:
    plan = compile_flow(flow(positive, Store()), config=config_for())
    with pytest.raises(ValueError, match=r"the terminals: \(1,\)"):
        build_dataflow(plan, terminal_sinks={(0,): keeping([])})


@pytest.mark.bytewax
def test_building_a_dataflow_opens_nothing() -> None:
    store = Store()
    build_dataflow(compile_flow(flow(store), config=config_for()))
    assert store.opened == []


def test_what_builds_no_partition_ends_the_run_with_a_clear_word() -> None:
    class Wrong(Store):
        def build_partition(self, *arguments: Any, **more: Any) -> Any:
            return []

    with pytest.raises(BaseException) as failed:
        in_memory(flow(Wrong()), numbers(1))
    chain = [str(failed.value)]
    error: BaseException | None = failed.value
    while error := error.__cause__ if error is not None else None:
        chain.append(str(error))
    assert any("the sink for storing.into-store built a list, which is no SinkPartition" in text for text in chain)


def test_a_section_that_a_sink_says_it_reads_is_not_unread() -> None:
    class Reading(Store):
        config_path = "warehouse"

    config = {**config_for(), "warehouse": {"url": "here"}, "warehous": {}}
    warnings = compile_flow(flow(Reading()), config=config).warnings
    assert [warning.message for warning in warnings if warning.code is Code.CONFIG_UNREAD] == [
        "nothing reads the section 'warehous'"
    ]


def test_exactly_once_cannot_be_kept_with_it() -> None:
    with pytest.raises(CompilationError) as refused:
        compile_flow(flow(positive, Store()), config=config_for(consumer={"delivery": "exactly_once"}))
    assert [(issue.code, issue.path) for issue in refused.value.errors] == [(Code.DELIVERY_UNKEPT, (1,))]


def test_positions_are_confirmed_behind_its_flush_and_not_when_it_fails(broker: EmbeddedBroker) -> None:
    broker.create_topic("numbers")
    produce(broker.bootstrap, "numbers", b'{"n":1}', b'{"n":2}')
    config = config_for(broker.bootstrap, consumer={"delivery": "at_least_once"})
    seen: list[int] = []

    class Looking(Store):
        def flush(self) -> None:
            seen.append(positions(broker.bootstrap, "numbers")[0])
            if len(seen) == 1:
                raise OSError("no space left")

    with pytest.raises(Exception, match="no space left"):
        StreamingRunner.from_dict(flow(Looking()), config).run()
    assert positions(broker.bootstrap, "numbers").get(0, 0) == 0
    store = Looking()
    run_until(StreamingRunner.from_dict(flow(store), config), all_done(2))
    assert store.log == [1, 2, "closed"]
    assert seen[:2] == [0, 0]  # the flush of the stop may see more
    assert positions(broker.bootstrap, "numbers")[0] == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sink_that_cannot_be_opened_is_told_whatever_the_workers(broker: EmbeddedBroker, workers: int) -> None:
    class Closed(Store):
        def build_partition(self, *arguments: Any, **more: Any) -> Any:
            raise OSError("no such warehouse")

    broker.create_topic("numbers")
    produce(broker.bootstrap, "numbers", b'{"n":1}')
    config = config_for(
        broker.bootstrap, consumer={"delivery": "at_least_once"}, runtime={"workers_per_process": workers}
    )
    with pytest.raises(FlowFailedError, match="OSError: no such warehouse"):
        StreamingRunner.from_dict(flow(Closed()), config).run()
    assert positions(broker.bootstrap, "numbers").get(0, 0) == 0


@pytest.mark.parametrize("workers", [1, 3])
def test_a_process_has_one_partition_whatever_its_workers(broker: EmbeddedBroker, workers: int) -> None:
    broker.create_topic("numbers")
    produce(
        broker.bootstrap,
        "numbers",
        *(KafkaRecord("numbers", None, b'{"n":%d}' % n, partition=n % 4) for n in range(40)),
    )
    store = Store()
    config = config_for(
        broker.bootstrap, consumer={"delivery": "at_least_once"}, runtime={"workers_per_process": workers}
    )
    run_until(StreamingRunner.from_dict(flow(store), config), all_done(40))
    ((_, index, count, _, _),) = store.opened
    assert (index, count) == (0, 1)
    assert sorted(n for n in store.log if isinstance(n, int)) == list(range(40))
    assert store.log[-1] == "closed"
