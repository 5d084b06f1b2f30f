"""The source in memory, call by call: its clock waits for the stage, whatever the engine does first."""

from __future__ import annotations

from typing import Any

from loom.core.observability import ObservabilityRuntime
from loom.streaming.kafka import KafkaRecord, TopicPartition
from loom.streaming.kafka.record_accessor import RECORDS
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.stages.stage import Stage
from loom.streaming.testing.in_memory import Advance, ManualClock, open_script


def _part(*script: Any) -> tuple[Any, ManualClock]:
    delivery, clock = RunState(ObservabilityRuntime.noop()), ManualClock()

    def make_stage() -> Stage:
        return Stage(delivery.metrics.part(), ("out",), RECORDS)

    return open_script(script, RECORDS, clock, 2, delivery, make_stage), clock


def _record(offset: int) -> KafkaRecord:
    return KafkaRecord("raw", None, b"", {}, 1, offset)


def test_time_moves_on_when_the_stage_has_worked_on_what_came_before() -> None:
    part, clock = _part(_record(4), Advance(1_500), _record(5))
    (first,) = part.next_batch()
    assert part.next_batch() == part.next_batch() == []
    assert clock.now == 0
    first.stage.run(first)
    assert part.next_batch() == []
    assert clock.now == 1.5
    (second,) = part.next_batch()
    assert (first.now, second.now) == (0, 1.5)


def test_batches_have_their_size_and_their_positions() -> None:
    part, _ = _part(*map(_record, range(3)))
    (first,), (second,) = part.next_batch(), part.next_batch()
    assert [len(first.origins), len(second.origins)] == [2, 1]
    assert [first.positions, second.positions] == [{TopicPartition("raw", 1): 2}, {TopicPartition("raw", 1): 3}]
