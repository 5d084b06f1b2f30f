"""Wherever a record ends, its position moves: an expansion to nothing, a drain, an unmatched record, a batch that waits.

Each of these once kept a position where it was for ever, while everything looked healthy.
"""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    BatchStep,
    Broadcast,
    BroadcastRoute,
    CollectBatch,
    Drain,
    ExpandRoutes,
    Explode,
    ForEach,
    Fork,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    Router,
    StreamFlow,
    StreamingRunner,
    step,
)
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from tests.support.running import config_for, content, positions, produce, run_all, run_until

pytestmark = pytest.mark.both_engines

#: the embedded broker's topics have four partitions
COUNT = 8
HALF = dict.fromkeys(range(4), 2)


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


@step
def fails(number: Number) -> Number:
    raise ValueError("no")


class All(BatchStep[Number, Number]):
    def execute(self, messages: list[Message[Number]]) -> list[Any]:
        return [message.payload for message in messages]


class Nothing:
    def expand(self, given: Number) -> dict[type, list[Any]]:
        return {}


class Keeps:
    """A sink of the flow's own."""

    name = "kept"

    def build_partition(
        self, config: Any, worker_index: int, worker_count: int, bridge: Any = None, session_manager: Any = None
    ) -> Keeps:
        return self

    def write_batch(self, items: list[Any]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


def nobody(number: Number) -> str:
    return "nobody"


def none_of(number: Number) -> list[Number]:
    return []


OUT = IntoTopic[Any]("out")
ENDS: dict[str, tuple[Any, ...]] = {
    "an expansion to zero rows": (Explode(none_of), OUT),
    "expand routes to zero rows": (ExpandRoutes(expander=Nothing(), routes={Number: Process(OUT)}),),
    "an unmatched record": (Fork.by(nobody, {"x": Process(OUT)}),),
    "an unmatched record of a router": (Router.by(nobody, {"x": Process(same)}), OUT),
    "a terminal in a branch of a router": (Router.by(nobody, {"x": Process(same)}, default=Process(OUT)), OUT),
    "a drain": (Drain(),),
    "a broadcast with a drain": (
        Broadcast(BroadcastRoute(Process(Drain()), name="a"), BroadcastRoute(Process(same), OUT)),
    ),
    "a failing branch beside another": (
        Broadcast(BroadcastRoute(Process(fails), IntoTopic("other")), BroadcastRoute(Process(same), OUT)),
    ),
    "a sink of one's own": (Keeps(),),
    "a batch that its time-out closes": (CollectBatch(1_000, timeout_ms=30), All, ForEach(), OUT),
    "a batch that is drained": (CollectBatch(3, timeout_ms=30), Drain()),
}


def flow(*nodes: Any, unrouted: Any = "fail") -> StreamFlow[Any, Any]:
    errors = IntoTopic[Any]("errors") if unrouted == "fail" else None
    return StreamFlow("ending", FromTopic("numbers", Number), Process(*nodes), None, errors, unrouted=unrouted)


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in ("numbers", "out", "other", "errors"):
        broker.create_topic(topic)
    return broker.bootstrap


def fill(bootstrap: str, count: int = COUNT) -> None:
    produce(bootstrap, "numbers", *(KafkaRecord("numbers", b"k", b'{"n":%d}' % n, {}, n % 4) for n in range(count)))


@pytest.mark.parametrize("unrouted", ["fail", "drop"])
@pytest.mark.parametrize("nodes", ENDS.values(), ids=ENDS.keys())
def test_a_position_moves_wherever_its_record_ends(bootstrap: str, nodes: tuple[Any, ...], unrouted: str) -> None:
    if unrouted == "drop" and Router not in map(type, nodes):
        nodes = (same, *nodes)
    fill(bootstrap)
    config = config_for(bootstrap, consumer={"delivery": "at_least_once"})
    counts = run_all(flow(*nodes, unrouted=unrouted), config, COUNT)
    assert counts.accounted == COUNT
    assert positions(bootstrap, "numbers") == HALF


def test_what_was_collected_at_a_stop_is_read_again_by_the_next_run_and_nothing_is_lost(bootstrap: str) -> None:
    """The in-process broker commits no positions in a transaction; `exactly_once` is shown on Kafka itself."""
    fill(bootstrap, 7)
    config = config_for(bootstrap, consumer={"delivery": "at_least_once"})
    never = flow(CollectBatch(5, timeout_ms=60_000), All, ForEach(), OUT)
    run_until(StreamingRunner.from_dict(never, config), lambda counts: counts.read == 7)
    left = 7 - sum(positions(bootstrap, "numbers").values())
    assert 0 < left < 7
    soon = flow(CollectBatch(5, timeout_ms=20), All, ForEach(), OUT)
    run_all(soon, config, left)
    assert {record.value for record in content(bootstrap, "out")["out"]} == {b'{"n":%d}' % n for n in range(7)}
