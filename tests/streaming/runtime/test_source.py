"""The source as the engine sees it: its parts by name."""

from __future__ import annotations

from typing import Any

from loom.core.observability import ObservabilityRuntime
from loom.streaming import Drain, FromTopic, Process, StreamFlow, compile_flow
from loom.streaming.bytewax.source import KafkaSource
from loom.streaming.kafka.offset_metadata import RunMetadata
from loom.streaming.runtime.kafka_workers import KafkaWorkers
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.run_state import RunState
from tests.support.one_way import Number
from tests.support.running import config_for


def never() -> Any:
    raise AssertionError("nothing is built before the engine asks for a part")


def test_the_parts_of_a_source_are_named_so_that_their_order_is_that_of_their_numbers() -> None:
    """The engine deals parts out to workers in the order of their names; a recovery store keeps positions under them."""
    flow = StreamFlow("parts", FromTopic("numbers", Number), Process(Drain()))
    plan = compile_flow(flow, config=config_for())
    found = {"numbers": tuple(range(12)), "more": (0,)}
    state = RunState(ObservabilityRuntime.noop())
    workers = KafkaWorkers(
        plan.source,
        state,
        lambda: found,
        lambda: Layout().owned(found),
        never,
        never,
        never,
        None,
        RunMetadata("parts", lambda: found),
    )
    parts = KafkaSource(workers, state).list_parts()
    assert [part.rpartition("/")[0] for part in parts] == ["more"] + ["numbers"] * 12
    assert [int(part.rpartition("/")[2]) for part in parts] == [0, *range(12)]
    assert parts == sorted(parts)
