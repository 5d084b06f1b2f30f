"""Flows under test: run in memory with overrides, or on a broker until all they were given has arrived somewhere.

`in_memory` runs a flow on an engine with a source and sinks in the place of every topic; `into_topics` tells what would be
written to each topic; `run_until` and `run_all` run a `StreamingRunner` in this thread and stop it from another one.
Nothing here sleeps for a fixed time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from loom.streaming import ErrorEnvelope, ErrorKind, Message, StreamFlow, StreamingRunner, compile_flow
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.kafka import Headers, KafkaRecord
from loom.streaming.metrics import FlowCounts
from loom.streaming.runtime.assembly import Transport
from loom.streaming.runtime.build_options import BuildOptions
from loom.streaming.runtime.engine import load_engine
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.output_table import output_table_of
from loom.streaming.runtime.override_view import override_view
from loom.streaming.runtime.settings import BytewaxRuntimeConfig
from tests.support.engines import bytewax_installed, chosen_engine
from tests.support.kafka_io import ReadRecord, group_positions
from tests.support.scripted import ListSink, Pause, open_items
from tests.support.waiting import LONG_S

#: A producer at its quickest: it does not wait for company, connects before it is first used, and looks often for what it
#: does not know yet. One that is used in the very moment it is made otherwise stands still for half a second or a whole one.
QUICK = {"linger.ms": 0, "enable.sparse.connections": False, "topic.metadata.refresh.interval.ms": 10}
#: nobody listens there: whoever tries to connect is told so at once
NOBODY = "127.0.0.1:1"


def config_for(
    bootstrap: str = NOBODY,
    *,
    consumer: Mapping[str, Any] | None = None,
    producer: Mapping[str, Any] | None = None,
    runtime: Mapping[str, Any] | None = None,
    **sections: Any,
) -> dict[str, Any]:
    """A config of one consumer and one producer, with short epochs; `sections` are further top-level ones."""
    return {
        "kafka": {
            "consumer": {"brokers": [bootstrap], "group_id": "readers", **(consumer or {})},
            "producer": {"brokers": [bootstrap], "extra": {**QUICK}, **(producer or {})},
        },
        "streaming": {"runtime": {"epoch_interval_ms": 20, **(runtime or {})}},
        **sections,
    }


def records(*values: bytes | None, topic: str = "numbers", key: bytes | None = None) -> list[KafkaRecord]:
    """Records as a broker would hand them over, one behind the other in partition 0."""
    return [KafkaRecord(topic, key, value, {}, 0, offset, 1_000 + offset) for offset, value in enumerate(values)]


def numbers(*values: int) -> list[KafkaRecord]:
    """Records that hold `{"n": value}`."""
    return records(*(b'{"n":%d}' % value for value in values))


@dataclass(frozen=True)
class Ran:
    """What came out of a run in memory."""

    output: list[Message[Any]]
    errors: dict[ErrorKind, list[ErrorEnvelope[Any]]]
    terminals: dict[tuple[int, ...], list[Message[Any]]]
    counts: FlowCounts

    def payloads(self, path: tuple[int, ...] = ()) -> list[Any]:
        """The payloads of the flow's output, or of the terminal at a path."""
        return [message.payload for message in (self.terminals[path] if path else self.output)]

    def reasons(self, kind: ErrorKind) -> list[str]:
        """The reasons of the errors of one kind."""
        return [envelope.reason for envelope in self.errors[kind]]


def in_memory(
    flow: StreamFlow[Any, Any],
    source: Any,
    *,
    config: Mapping[str, Any] | None = None,
    catch: Iterable[ErrorKind] = tuple(ErrorKind),
    **build: Any,
) -> Ran:
    """Run a flow with sinks for its output, its terminals and the error kinds of `catch` that keep what they get.

    `source` is a list of records, messages and pauses, or a Bytewax source. `build` goes to the engine's `lower`.
    """
    plan = compile_flow(flow, config=config or config_for())
    output: list[Any] = []
    errors: dict[ErrorKind, list[Any]] = {kind: [] for kind in catch}
    terminals: dict[tuple[int, ...], list[Any]] = {path: [] for path in plan.terminal_sinks}
    sinks: dict[str, Any] = {
        "sink": keeping(output) if plan.output is not None else None,
        "error_sinks": {kind: keeping(caught) for kind, caught in errors.items()},
        "terminal_sinks": {path: keeping(taken) for path, taken in terminals.items()},
    }
    engine = load_engine(chosen_engine())
    built = engine.lower(plan, BuildOptions(**_read_from(plan, source, build), **{**sinks, **build}))
    built.state.epochs.interval_s = 0.02
    try:
        engine.run(built.dataflow, BytewaxRuntimeConfig(epoch_interval_ms=20), Layout())
    finally:
        built.finish()
    return Ran(output, errors, terminals, built.state.metrics.read())


def keeping(kept: list[Any]) -> Any:
    """A sink that keeps what it gets: one of Bytewax's where it is installed, so that those are covered too."""
    if not bytewax_installed():
        return ListSink(kept)
    from bytewax.testing import TestingSink

    return TestingSink(kept)


def _read_from(plan: CompiledPlan, source: Any, build: dict[str, Any]) -> dict[str, Any]:
    """What makes an engine read these items, as an argument of its `lower`."""
    if not isinstance(source, Iterable):
        return {"source": source}
    if bytewax_installed():
        from bytewax.testing import TestingSource

        items = [TestingSource.PAUSE(item.time) if isinstance(item, Pause) else item for item in source]
        return {"source": TestingSource(items)}
    size, tracker = plan.source.settings.batch_size, build.get("commit_tracker")
    opened = open_items(source, size, tracker)
    return {"transport": Transport(override_view(plan.source), opened, lambda: _Notebook((), {}))}


def run_bytewax(dataflow: Any) -> None:
    """Run a dataflow as somebody does who starts the engine himself."""
    from bytewax.run import cli_main

    cli_main(dataflow, epoch_interval=timedelta(milliseconds=20))


def all_done(inputs: int) -> Callable[[FlowCounts], bool]:
    """Whether so many inputs have ended somewhere and what they became is durable."""
    return lambda counts: counts.accounted >= inputs and counts.durable >= sum(counts.outputs.values())


def run_until(
    runner: StreamingRunner, done: Callable[[FlowCounts], bool], *, timeout: float = LONG_S, **run: Any
) -> FlowCounts:
    """Run in this thread; another one stops the run once its counters say that it is done. Returns the counters.

    The runner must be a new one: that of an earlier run still shows its counters.
    """
    over = threading.Event()
    late: list[FlowCounts] = []

    def watch() -> None:
        deadline = time.monotonic() + timeout
        while not over.wait(0.002):
            metrics = runner.metrics
            if metrics is not None and done(metrics.read()):
                break
            if time.monotonic() > deadline:
                late.append(metrics.read() if metrics is not None else FlowCounts(0, 0, 0, {}, {}, {}, {}, {}, 0))
                break
        runner.shutdown()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        runner.run(**run)
    finally:
        over.set()
        watcher.join(LONG_S)
    if late:
        raise TimeoutError(f"the run was not done after {timeout} s: {late[0]}")
    assert runner.metrics is not None
    return runner.metrics.read()


def run_all(flow: StreamFlow[Any, Any], config: Mapping[str, Any], inputs: int, **run: Any) -> FlowCounts:
    """Run a flow until so many inputs have ended somewhere durably."""
    return run_until(StreamingRunner.from_dict(flow, config), all_done(inputs), **run)


def each_flush_once(log: list[Any]) -> list[Any]:
    """What a sink wrote down, with flushes that follow one another as one.

    An epoch of these runs lasts for 20 ms; on a busy machine one more ends without having brought the sink anything.
    """
    return [entry for n, entry in enumerate(log) if entry != "flushed" or n == 0 or log[n - 1] != "flushed"]


def causes(error: BaseException | None) -> list[BaseException]:
    """An exception and what caused it, down to the first cause."""
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__
    return chain


@dataclass(frozen=True)
class Written:
    """A record as it was handed to a producer."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int | None


class _Notebook:
    """In the place of the producers: keeps what they would write."""

    def __init__(self, names: tuple[str, ...], topics: dict[str, list[Written]]) -> None:
        self._names = names
        self._topics = topics

    def write(self, results: Iterable[Any]) -> None:
        for slot, value, key, timestamp_ms, headers, _ in results:
            self._topics.setdefault(self._names[slot], []).append(
                Written(key, value, tuple(getattr(headers, "pairs", headers) or ()), timestamp_ms)
            )

    def serve(self) -> None:
        pass

    def flush(self, positions: Any) -> None:
        pass

    def close(self) -> None:
        pass


def into_topics(
    flow: StreamFlow[Any, Any], source: Iterable[Any], *, config: Mapping[str, Any] | None = None
) -> tuple[dict[str, list[Written]], FlowCounts]:
    """Run a flow on a list of records and messages; what would stand in each of its topics, error routes included.

    No broker is needed, and no partitions are chosen. A failed run raises what its fault was.
    """
    plan = compile_flow(flow, config=config or config_for())
    names = output_table_of(plan, sink=None, terminal_sinks=None, error_sinks=None).slots.names
    topics: dict[str, list[Written]] = {}
    size = plan.source.settings.batch_size
    transport = Transport(override_view(plan.source), open_items(source, size), lambda: _Notebook(names, topics))
    engine = load_engine(chosen_engine())
    built = engine.lower(plan, BuildOptions(transport=transport))
    try:
        engine.run(built.dataflow, BytewaxRuntimeConfig(), Layout())
    except BaseException as surfaced:
        raise built.state.fault or surfaced from None
    finally:
        built.finish()
    return topics, built.state.metrics.read()


def content(bootstrap: str, *topics: str) -> dict[str, list[ReadRecord]]:
    """All that stands in some topics of a broker, by topic; in order within a partition."""
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "tests",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,
            "log_level": 0,
        }
    )
    try:
        found: dict[str, list[ReadRecord]] = {topic: [] for topic in topics}
        unread = {
            (topic, partition)
            for topic in topics
            for partition in reader.list_topics(topic, LONG_S).topics[topic].partitions
        }
        reader.assign([TopicPartition(topic, partition, 0) for topic, partition in unread])
        deadline = time.monotonic() + LONG_S
        while unread:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not read to the end: {unread}")
            message = reader.poll(0.1)
            if message is None:
                continue
            error = message.error()
            if error is None:
                found[message.topic()].append(
                    ReadRecord(
                        message.topic(),
                        message.partition(),
                        message.offset(),
                        message.key(),
                        message.value(),
                        tuple(message.headers() or ()),
                        message.timestamp()[1],
                    )
                )
            elif error.code() == KafkaError._PARTITION_EOF:
                unread.discard((message.topic(), message.partition()))
        return found
    finally:
        reader.close()


def produce(bootstrap: str, topic: str, *records: KafkaRecord | bytes | None) -> None:
    """Write records as they are, each to its partition or else to partition 0; returns when they stand there."""
    writer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "log_level": 0})
    for record in records:
        if not isinstance(record, KafkaRecord):
            record = KafkaRecord(topic, None, record)
        writer.produce(
            topic,
            record.value,
            record.key,
            partition=record.partition or 0,
            timestamp=record.timestamp_ms or 0,
            headers=list(Headers.of(record.headers).pairs) or None,
        )
    assert writer.flush(LONG_S) == 0


def positions(bootstrap: str, topic: str, group: str = "readers") -> dict[int, int]:
    """Where a group stands, without the partitions in which it has confirmed nothing."""
    return group_positions(bootstrap, group, topic)
