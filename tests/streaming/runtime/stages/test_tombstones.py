"""A tombstone through each kind of node that does not name it: unchanged, in its place, with its key, to a null value."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchExpandStep,
    BatchStep,
    Broadcast,
    BroadcastRoute,
    CollectBatch,
    ErrorKind,
    ExpandRoutes,
    ExpandStep,
    Explode,
    ForEach,
    Fork,
    ForkRoute,
    FromTopic,
    IntoTopic,
    Message,
    PartitionGuarantee,
    PartitionPolicy,
    Process,
    RecordStep,
    Route,
    Router,
    StreamFlow,
    msg,
    payload,
    step,
)
from loom.streaming.kafka import KafkaRecord
from tests.support.running import config_for, in_memory, into_topics


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


class Same(RecordStep[Number, Number]):
    def execute(self, message: Message[Number]) -> Number:
        return message.payload


class One(ExpandStep[Number, Number]):
    def execute(self, message: Message[Number]) -> list[Number]:
        return [message.payload]


class All(BatchStep[Number, Number]):
    def execute(self, messages: list[Message[Number]]) -> list[Number]:
        return [message.payload for message in messages]


class Each(BatchExpandStep[Number, Number]):
    def execute(self, messages: list[Message[Number]]) -> list[Any]:
        return [[message.payload] for message in messages]


class Expander:
    def expand(self, given: Number) -> dict[type, list[Any]]:
        return {Number: [given]}


class ById:
    def partition_key(self, message: Message[Number]) -> str:
        return str(message.payload.n)


COLLECT = CollectBatch(9, timeout_ms=60_000)
OUT = Process(IntoTopic[Any]("out"))
POLICY = PartitionPolicy(ById(), PartitionGuarantee.ENTITY_STABLE)


def one_by_one(given: Number) -> list[Number]:
    return [given]


def odd(number: Number) -> bool:
    return number.n % 2 == 1


NODES: dict[str, tuple[Any, ...]] = {
    "step function": (same,),
    "RecordStep": (Same,),
    "ExpandStep": (One,),
    "BatchStep on records": (All,),
    "BatchStep on batches": (COLLECT, All, ForEach()),
    "BatchExpandStep": (COLLECT, Each, ForEach()),
    "CollectBatch": (COLLECT, ForEach()),
    "Explode": (Explode(one_by_one),),
    "ForEach": (Explode(one_by_one), ForEach()),
    "Router.by, the default": (Router.by(odd, {True: Process(same)}, default=Process(Same)),),
    "Router.when, the default": (Router.when([Route(payload.n == 1, Process(same))], default=Process(Same)),),
    "Router.when, by its key": (Router.when([Route(msg.meta.key == "k", Process(same))]),),
    "Fork.by, the default": (Fork.by(odd, {True: OUT}, default=Process(same, IntoTopic("out"))),),
    "Fork.when, the default": (Fork.when([ForkRoute(payload.n == 1, OUT)], default=Process(same, IntoTopic("out"))),),
    "Broadcast": (Broadcast(BroadcastRoute(Process(same), IntoTopic("out"))),),
    "ExpandRoutes, the default": (ExpandRoutes(expander=Expander(), routes={Number: OUT}, default=OUT),),
    "IntoTopic with a key policy": (IntoTopic("out", partitioning=POLICY),),
}


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize("nodes", NODES.values(), ids=NODES.keys())
def test_a_tombstone_passes_in_its_place_with_its_key_headers_and_time(nodes: tuple[Any, ...], size: int) -> None:
    ends = isinstance(nodes[-1], Fork | Broadcast | ExpandRoutes | IntoTopic)
    declared = StreamFlow(
        "passing",
        FromTopic("numbers", Number),
        Process(*nodes),
        None if ends else IntoTopic("out"),
        IntoTopic("errors"),
    )
    values = [b'{"n":1}', None, b'{"n":3}', None, b'{"n":5}']
    items = [KafkaRecord("numbers", b"k", value, {"a": b"1"}, 0, at, 1_000 + at) for at, value in enumerate(values)]
    topics, counts = into_topics(declared, items, config=config_for(consumer={"batch_size": size}))
    assert "errors" not in topics
    found = [(record.key, record.value, record.timestamp_ms) for record in topics["out"]]
    assert found == [(b"k", value, 1_000 + at) for at, value in enumerate(values)]
    assert {record.headers for record in topics["out"]} == {(("a", b"1"),)}
    assert counts.written == 5


@pytest.mark.parametrize(
    "node",
    [
        Router.by(odd, {True: Process(same)}),
        Router.when([Route(payload.n == 1, Process(same))]),
        Fork.by(odd, {True: OUT}),
        Fork.when([ForkRoute(payload.n == 1, OUT)]),
        ExpandRoutes(expander=Expander(), routes={Number: OUT}),
    ],
    ids=["Router.by", "Router.when", "Fork.by", "Fork.when", "ExpandRoutes"],
)
def test_a_tombstone_that_no_branch_can_take_is_a_routing_error(node: Any) -> None:
    output = IntoTopic[Any]("out") if isinstance(node, Router) else None
    declared = StreamFlow("passing", FromTopic("numbers", Number), Process(node), output)
    ran = in_memory(declared, [KafkaRecord("numbers", b"k", None, {}, 0, 0)])
    (envelope,) = ran.errors[ErrorKind.ROUTING]
    assert "tombstone" in envelope.reason
    assert envelope.payload_type == "loom.streaming.message.Tombstone"


def test_a_tombstone_does_not_overtake_records_that_a_batch_step_is_gathering_for_a_collecting_node() -> None:
    declared = StreamFlow(
        "passing", FromTopic("numbers", Number), Process(All, CollectBatch(2, 60_000), ForEach()), IntoTopic("out")
    )
    values = [b'{"n":1}', None, None]
    items = [KafkaRecord("numbers", b"k", value, {}, 0, at) for at, value in enumerate(values)]
    topics, _ = into_topics(declared, items)
    assert [record.value for record in topics["out"]] == values
