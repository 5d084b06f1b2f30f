"""What one of several processes gives to sinks, and what it refuses because it is not alone."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from bytewax.connectors.files import FileSink
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    ErrorKind,
    FromTopic,
    IntoSink,
    IntoTopic,
    Process,
    SinkPartition,
    StreamFlow,
    StreamingRunner,
    step,
)
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from loom.streaming.runtime.run_errors import UnshareableSinkError
from loom.streaming.runtime.stages.stage_io import StageResults
from tests.support.running import config_for, positions, produce, run_until


class Number(LoomFrozenStruct):
    n: int


@step
def refused(number: Number) -> Number:
    raise ValueError(number.n)


FLOW = StreamFlow("several", FromTopic("numbers", Number), Process(refused), IntoTopic("out"))


class Into(IntoSink, SinkPartition[Any]):
    def __init__(self) -> None:
        self.built: list[tuple[int, int]] = []
        self.items: list[Any] = []

    def build_partition(self, config: Any, worker_index: int, worker_count: int, *rest: Any, **more: Any) -> Into:
        self.built.append((worker_index, worker_count))
        return self

    def write_batch(self, items: list[Any]) -> None:
        self.items += items

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""


class Dynamic(DynamicSink[Any]):
    def __init__(self) -> None:
        self.built: list[tuple[int, int]] = []
        self.items: list[Any] = []

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSinkPartition[Any]:
        self.built.append((worker_index, worker_count))
        return Writing(self.items)


class Writing(StatelessSinkPartition[Any]):
    def __init__(self, items: list[Any]) -> None:
        self._items = items

    def write_batch(self, items: list[Any]) -> None:
        self._items += items


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM_PROCESS_ID", "1")
    monkeypatch.setenv("LOOM_PROCESSES", "2")


@pytest.mark.parametrize("make", [Into, Dynamic])
def test_a_sink_is_told_which_process_of_how_many_it_is_for(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    """Each process reads and writes what is its own."""
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    records = [KafkaRecord("numbers", None, b'{"n":%d}' % n, partition=n % 4) for n in range(8)]
    produce(broker.bootstrap, "numbers", *records)
    config = config_for(broker.bootstrap, consumer={"delivery": "at_least_once"})
    monkeypatch.setenv("LOOM_PROCESSES", "2")
    for index in range(2):
        monkeypatch.setenv("LOOM_PROCESS_ID", str(index))
        sink = make()
        runner = StreamingRunner.from_dict(FLOW, config)
        run_until(
            runner,
            lambda _, index=index: (
                sum(positions(broker.bootstrap, "numbers").get(p, 0) for p in (index, index + 2)) == 4
            ),
            error_sinks={ErrorKind.TASK: sink},
        )
        assert sink.built == [(index, 2)]
        assert {item.source.partition for item in sink.items} == {index, index + 2}
        assert len(sink.items) == 4


@pytest.mark.usefixtures("second_of_two")
def test_a_sink_whose_parts_each_process_would_open_is_refused(tmp_path: Path) -> None:
    runner = StreamingRunner.from_dict(FLOW, config_for())
    with pytest.raises(
        UnshareableSinkError, match=r"is a FileSink, a FixedPartitionedSink, and the flow has 2 processes"
    ):
        runner.prepare_run(error_sinks={ErrorKind.TASK: FileSink(tmp_path / "errors")})
    assert not (tmp_path / "errors").exists()


def test_results_do_not_leave_their_process() -> None:
    """The engine pickles what it sends to another one, which it would do only in a cluster that it was given without us."""
    with pytest.raises(RuntimeError, match="results may not leave their process"):
        pickle.dumps(StageResults([], {}, None))  # type: ignore[arg-type]
