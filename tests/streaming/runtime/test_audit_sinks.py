"""Audits: sinks that get a copy of every output message, wherever it leaves, and of nothing else."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import pytest
from bytewax.run import cli_main
from bytewax.testing import TestingSink, TestingSource

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    Broadcast,
    BroadcastRoute,
    CollectBatch,
    Drain,
    ErrorKind,
    ExpandStep,
    ForEach,
    Fork,
    FromTopic,
    IntoTopic,
    Message,
    PartitionGuarantee,
    PartitionPolicy,
    Process,
    StreamFlow,
    StreamingRunner,
    Tombstone,
    compile_flow,
    step,
)
from loom.streaming.bytewax import RuntimeSinkBinding
from loom.streaming.bytewax.adapter import lower
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from loom.streaming.metrics import FlowCounts
from loom.streaming.runtime.build_options import BuildOptions
from tests.support.running import all_done, config_for, content, each_flush_once, numbers, positions, produce, run_until


class Number(LoomFrozenStruct):
    n: int


class Odd(LoomFrozenStruct):
    n: int
    what: Any = None


@step
def positive(number: Number) -> Number:
    if number.n < 0:
        raise ValueError("negative")
    return number


class Twice(ExpandStep[Number, Number]):
    def execute(self, message: Message[Number]) -> list[Number]:
        return [message.payload, Number(message.payload.n * 10)]


class Store:
    """An `IntoSink` that keeps what it is handed."""

    def __init__(self) -> None:
        self.items: list[Message[Any]] = []
        self.opened = 0
        self.log: list[str] = []

    def build_partition(
        self, config: Any, worker_index: int, worker_count: int, bridge: Any = None, session_manager: Any = None
    ) -> Store:
        self.opened += 1
        return self

    def write_batch(self, items: list[Message[Any]]) -> None:
        self.items += items

    def flush(self) -> None:
        self.log.append("flushed")

    def close(self) -> None:
        self.log.append("closed")


def audited(
    process: Process,
    source: list[Any],
    *audits: Any,
    output: IntoTopic[Any] | None = None,
    errors: list[Any] | None = None,
    sinks: dict[str, Any] | None = None,
) -> tuple[list[Any], FlowCounts]:
    """What one audit and further ones get of a run whose every topic is a sink."""
    flow = StreamFlow("audited", FromTopic("numbers", Number), process, output)
    plan = compile_flow(flow, config=config_for())
    copies: list[Any] = []
    failed = TestingSink[Any](errors if errors is not None else [])
    built = lower(
        plan,
        BuildOptions(
            source=TestingSource(source),
            audits={"log": TestingSink(copies), **{f"log {n}": audit for n, audit in enumerate(audits, 2)}},
            error_sinks=dict.fromkeys(ErrorKind, failed),
            **(
                sinks
                or {
                    "sink": TestingSink([]) if output is not None else None,
                    "terminal_sinks": {path: TestingSink([]) for path in plan.terminal_sinks},
                }
            ),
        ),
    )
    try:
        cli_main(built.dataflow)
    except BaseException as surfaced:
        raise built.state.fault or surfaced from None
    finally:
        built.shutdown()
    return copies, built.state.metrics.read()


def ns(messages: list[Any]) -> list[int]:
    return [message.payload.n for message in messages]


def test_the_flows_output_is_copied_with_its_metadata() -> None:
    record = KafkaRecord("numbers", b"k", b'{"n":4}', {"a": b"1"}, 2, 17, 5_000)
    (message,), _ = audited(Process(positive), [record], output=IntoTopic("out"))
    assert (message.payload, message.meta.message_id, message.meta.key) == (Number(4), "numbers:2:17", b"k")
    assert dict(message.meta.headers) == {"a": b"1"}


def test_every_way_out_is_copied_and_what_ends_otherwise_is_not() -> None:
    store, errors = Store(), list[Any]()
    process = Process(
        positive,
        Fork.by(
            lambda number: number.n % 4,
            {
                0: Process(IntoTopic("inner")),
                1: Process(
                    Broadcast(BroadcastRoute(Process(Twice), IntoTopic("a")), BroadcastRoute(Process(store), name="b"))
                ),
                2: Process(Drain()),
            },
        ),
    )
    copies, counts = audited(
        process, [*numbers(0, 1, 2, 3, -1), KafkaRecord("numbers", None, b"{", {}, 0, 9)], errors=errors
    )
    assert Counter(ns(copies)) == Counter([0, 1, 10, 1])
    assert ns(store.items) == [1]
    assert sorted(envelope.kind.value for envelope in errors) == ["routing", "task", "wire"]
    assert counts.outputs["audit log"] == 4
    assert (counts.read, counts.written, counts.dropped, sum(counts.failed.values())) == (6, 2, 1, 3)


def test_several_audits_get_a_copy_each_and_are_counted_by_name() -> None:
    store = Store()
    copies, counts = audited(Process(positive), numbers(1, 2), store, output=IntoTopic("out"))
    assert ns(copies) == ns(store.items) == [1, 2]
    assert counts.outputs == {"output": 2, "audit log": 2, "audit log 2": 2}
    assert (counts.written, counts.durable) == (2, 6)
    assert each_flush_once(store.log) == ["flushed", "closed"]


def test_a_tombstone_is_copied() -> None:
    (message,), _ = audited(Process(positive), [KafkaRecord("numbers", b"k", None, {}, 0, 0)], output=IntoTopic("out"))
    assert message.payload is Tombstone()


class NoKey:
    def partition_key(self, message: Message[Any]) -> bytes | str | None:
        return None


@step
def strange(number: Number) -> Odd:
    return Odd(number.n, object() if number.n == 1 else None)


KEYED = IntoTopic[Any]("out", partitioning=PartitionPolicy(NoKey(), PartitionGuarantee.ENTITY_STABLE))


@pytest.mark.parametrize("output", [IntoTopic[Any]("out"), KEYED], ids=["unencodable", "keyless"])
def test_what_becomes_an_error_at_its_output_is_not_copied(output: IntoTopic[Any], broker: EmbeddedBroker) -> None:
    broker.create_topic("out")
    flow = StreamFlow("audited", FromTopic("numbers", Number), Process(strange), output)
    copies, more, errors = list[Any](), list[Any](), list[Any]()
    built = lower(
        compile_flow(flow, config=config_for(broker.bootstrap)),
        BuildOptions(
            source=TestingSource(numbers(0, 1, 2)),
            audits={"one": TestingSink(copies), "two": TestingSink(more)},
            error_sinks=dict.fromkeys(ErrorKind, TestingSink(errors)),
        ),
    )
    cli_main(built.dataflow)
    built.shutdown()
    written = [record.value for record in content(broker.bootstrap, "out")["out"]]
    assert len(written) == len(copies) == len(more) == 3 - len(errors)
    assert ns(copies) == ns(more) == ([0, 2] if output is not KEYED else [])


def test_copies_keep_the_order_of_the_source_behind_nodes_that_wait() -> None:
    process = Process(
        Fork.by(
            lambda number: number.n % 2,
            {
                0: Process(CollectBatch(3, 60_000), ForEach(), IntoTopic("even")),
                1: Process(IntoTopic("odd")),
            },
        )
    )
    copies, counts = audited(process, numbers(*range(12)))
    assert ns(copies) == list(range(12))
    assert (counts.written, counts.outputs["audit log"]) == (12, 12)


def test_an_audit_that_cannot_write_ends_the_run() -> None:
    class Full(Store):
        def flush(self) -> None:
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        audited(Process(positive), numbers(1), Full(), output=IntoTopic("out"))


class Section(LoomFrozenStruct):
    fails: bool = False


class Kept:
    sink_type: ClassVar[str] = "kept"
    config_type: ClassVar[type] = Section
    stores: ClassVar[dict[str, Store]] = {}

    @classmethod
    def build_binding(cls, cfg: Any, ctx: Any) -> RuntimeSinkBinding:
        store = cls.stores[ctx.name] = Store()
        if cfg.fails:
            store.flush = lambda: (_ for _ in ()).throw(OSError("no space left"))  # type: ignore[method-assign]
        return RuntimeSinkBinding("audit", store)


def test_audits_of_the_config_are_fed_beside_the_topic_and_hold_its_positions(broker: EmbeddedBroker) -> None:
    for topic in ("numbers", "out", "errors"):
        broker.create_topic(topic)
    produce(broker.bootstrap, "numbers", b'{"n":1}', b'{"n":-1}', b'{"n":2}')
    flow = StreamFlow("audited", FromTopic("numbers", Number), Process(positive), IntoTopic("out"), IntoTopic("errors"))

    def runner(**section: Any) -> StreamingRunner:
        made = config_for(broker.bootstrap, consumer={"delivery": "at_least_once"})
        made["streaming"]["sinks"] = {name: {"type": "kept", **section} for name in ("first", "second")}
        found = StreamingRunner.from_dict(flow, made)
        found.register_sink(Kept)
        return found

    with pytest.raises(Exception, match="no space left"):
        runner(fails=True).run()
    assert positions(broker.bootstrap, "numbers")[0] == 0

    counts = run_until(runner(), all_done(3))
    assert ns(Kept.stores["first"].items) == ns(Kept.stores["second"].items) == [1, 2]
    assert counts.outputs == {"out": 2, "errors": 1, "audit first": 2, "audit second": 2}
    assert positions(broker.bootstrap, "numbers")[0] == 3
