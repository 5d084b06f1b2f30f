"""A sink of the author's own as a node of the process."""

from __future__ import annotations

from typing import Any

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    CollectBatch,
    Fork,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    StreamFlow,
    Tombstone,
    step,
)
from loom.streaming.kafka import KafkaRecord
from tests.support.running import in_memory, into_topics, keeping, numbers, records


class Number(LoomFrozenStruct):
    n: int


class Table:
    """An `IntoSink` that keeps what it is told, in order."""

    def __init__(self, name: str = "numbers") -> None:
        self.name = name
        self.opened = 0
        self.log: list[Any] = []
        self.messages: list[Message[Number]] = []

    def build_partition(
        self, config: Any, worker_index: int, worker_count: int, bridge: Any = None, session_manager: Any = None
    ) -> Table:
        self.opened += 1
        return self

    def write_batch(self, items: list[Message[Number]]) -> None:
        self.log.append("write")
        self.messages += items

    def flush(self) -> None:
        self.log.append("flush")

    def close(self) -> None:
        self.log.append("close")


@step
def double(number: Number) -> Number:
    return Number(number.n * 2)


def flow(*nodes: Any) -> StreamFlow[Any, Any]:
    return StreamFlow("storing", FromTopic("numbers", Number), Process(*nodes), errors=IntoTopic("errors"))


def test_a_sink_is_handed_messages_with_their_metadata() -> None:
    table = Table()
    into_topics(flow(double, table), [KafkaRecord("numbers", b"k", b'{"n":1}', {"a": b"1"}, 2, 7, 5_000)])
    (message,) = table.messages
    assert message.payload == Number(2)
    meta = message.meta
    assert (meta.key, meta.partition, meta.offset, meta.produced_at_ms, dict(meta.headers)) == (
        b"k",
        2,
        7,
        5_000,
        {"a": b"1"},
    )


def test_a_sink_is_flushed_behind_what_it_was_given_and_closed_once() -> None:
    table = Table()
    _, counts = into_topics(flow(table), numbers(1, 2))
    assert table.opened == 1
    assert table.log[-1] == "close"
    assert table.log.count("close") == 1
    assert "flush" in table.log[table.log.index("write") :]
    assert (counts.written, counts.durable) == (2, 2)


def test_a_sink_in_a_branch_is_one_end_among_others() -> None:
    table = Table()
    fork = Fork.by(lambda number: number.n % 2, {1: Process(double, table)}, default=Process(IntoTopic("even")))
    topics, counts = into_topics(flow(fork), numbers(1, 2, 3))
    assert [message.payload.n for message in table.messages] == [2, 6]
    assert [record.value for record in topics["even"]] == [b'{"n":2}']
    assert counts.outputs == {"storing.1.into-numbers": 2, "even": 1}


def test_a_sink_takes_batches_and_tombstones() -> None:
    table = Table()
    into_topics(flow(CollectBatch(2, 60_000), table), records(b'{"n":1}', None, b'{"n":2}'))
    assert [message.payload for message in table.messages] == [Number(1), Tombstone(), Number(2)]


def test_a_sink_can_be_replaced_by_its_path() -> None:
    table, taken = Table(), []  # type: ignore[var-annotated]
    in_memory(flow(double, table), numbers(1), terminal_sinks={(1,): keeping(taken)})
    assert ([message.payload.n for message in taken], table.opened) == ([2], 0)
