"""Time in the kit passes only when the test says so."""

from __future__ import annotations

import time
from typing import Any

import pytest

from loom.streaming import BatchStep, CollectBatch, ForEach, IntoTopic, Message, MessageMeta
from loom.streaming.testing import StreamingTestRunner
from tests.streaming.testing.flows import Number, Sizes, flow


class Slow(BatchStep[Number, Number]):
    def execute(self, messages: list[Message[Number]]) -> list[Number]:
        time.sleep(0.05)
        return [message.payload for message in messages]


def _sizes(runner: StreamingTestRunner) -> list[int]:
    return [message.payload.of for message in runner.output]


def _runner(*nodes: Any) -> StreamingTestRunner:
    return StreamingTestRunner.from_flow(flow(*nodes, output=IntoTopic("out")))


COLLECTED = (CollectBatch(10, timeout_ms=1_000), Sizes, ForEach())


def test_a_batch_is_emitted_when_its_time_is_up() -> None:
    runner = _runner(*COLLECTED).with_payloads([Number(1)] * 2).advance(1_000).with_payloads([Number(1)] * 3)
    assert _sizes(runner.run()) == [2, 2, 3, 3, 3]


def test_a_batch_whose_time_is_not_up_goes_on_collecting() -> None:
    runner = _runner(*COLLECTED).with_payloads([Number(1)] * 2).advance(999).with_payloads([Number(1)] * 3)
    assert _sizes(runner.run()) == [5] * 5


def test_moments_add_up() -> None:
    runner = _runner(*COLLECTED).with_payloads([Number(1)]).advance(600).with_payloads([Number(1)]).advance(400)
    assert _sizes(runner.with_payloads([Number(1)]).run()) == [2, 2, 1]


def test_the_time_that_a_step_takes_is_none() -> None:
    runner = _runner(Slow, CollectBatch(10, timeout_ms=20), Sizes, ForEach()).with_batch_size(2)
    assert _sizes(runner.with_payloads([Number(1)] * 6).run()) == [6] * 6


def test_a_full_batch_waits_for_nothing() -> None:
    runner = _runner(CollectBatch(2, timeout_ms=1_000), Sizes, ForEach())
    assert _sizes(runner.with_payloads([Number(1)] * 3).run()) == [2, 2, 1]


def test_a_long_moment_passes_the_times_of_nodes_behind_each_other_one_by_one() -> None:
    first, second = (CollectBatch(10, timeout_ms=1_000, name=name) for name in ("first", "second"))
    nodes = (first, ForEach(), second, Sizes, ForEach())
    runner = _runner(*nodes).with_payloads([Number(1)]).advance(2_000).with_payloads([Number(1)] * 2)
    assert _sizes(runner.run()) == [1, 2, 2]
    runner = _runner(*nodes).with_payloads([Number(1)]).advance(1_999).with_payloads([Number(1)] * 2)
    assert _sizes(runner.run()) == [3, 3, 3]


def test_partitions_are_collected_together() -> None:
    messages = [Message(Number(1), MessageMeta(f"m{i}", topic="raw", partition=i, offset=4)) for i in range(3)]
    runner = _runner(*COLLECTED).with_messages(messages).advance(1_000).with_messages(messages[:1])
    assert _sizes(runner.run()) == [3, 3, 3, 1]


def test_a_moment_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 millisecond, not 0"):
        _runner(*COLLECTED).advance(0)


def test_records_come_in_batches_as_large_as_a_consumer_makes_them() -> None:
    assert _sizes(_runner(Sizes).with_payloads([Number(1)] * 2_500).run()) == [2_000] * 2_000 + [500] * 500
    config = {"kafka": {"consumer": {"brokers": ["b:1"], "group_id": "g", "batch_size": 3}}}
    small = StreamingTestRunner.from_dict(flow(Sizes, output=IntoTopic("out")), config)
    assert _sizes(small.with_payloads([Number(1)] * 4).run()) == [3, 3, 3, 1]
    assert _sizes(small.reset().with_batch_size(2).with_payloads([Number(1)] * 3).run()) == [2, 2, 1]
