"""Epochs of the runtime's own: sources end them with marks, one for all workers, and nothing piles up before a busy sink."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    CollectBatch,
    ErrorKind,
    ForEach,
    FromTopic,
    IntoSink,
    IntoTopic,
    Process,
    SinkPartition,
    StreamFlow,
    StreamingRunner,
    failpoints,
    step,
)
from loom.streaming.bytewax import UnroutedRecordError
from loom.streaming.failpoints import Failpoint
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from loom.streaming.metrics import FlowCounts
from tests.support.running import all_done, config_for, content, positions, produce, run_until

BATCH = 50


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    return broker.bootstrap


def write(bootstrap: str, *values: int) -> None:
    produce(bootstrap, "numbers", *(KafkaRecord("numbers", None, b'{"n":%d}' % n, partition=n % 4) for n in values))


def committed(bootstrap: str) -> int:
    return sum(positions(bootstrap, "numbers").values())


class HeldUp(IntoSink, SinkPartition[Any]):
    """A sink whose first write returns when it is told to."""

    def __init__(self) -> None:
        self.began, self.let_go = threading.Event(), threading.Event()
        self.written: list[int] = []
        self.flushed = 0

    def build_partition(self, *_: Any) -> HeldUp:
        return self

    def write_batch(self, items: list[Any]) -> None:
        self.began.set()
        self.let_go.wait()
        self.written += [item.payload.n for item in items]

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None: ...


@pytest.mark.both_engines
def test_a_sink_that_is_held_up_lets_nothing_pile_up_and_afterwards_everything_is_committed(
    bootstrap: str, engine: str
) -> None:
    write(bootstrap, *range(4_000))
    sink = HeldUp()
    flow = StreamFlow("held", FromTopic("numbers", Number), Process(same, sink))
    config = config_for(
        bootstrap,
        consumer={"delivery": "at_least_once", "batch_size": BATCH},
        runtime={"workers_per_process": 2},
    )
    runner = StreamingRunner.from_dict(flow, config)
    most: list[int] = []

    def hold() -> None:
        sink.began.wait()
        reads: list[int] = []
        while len(reads) < 20 or len(set(reads[-20:])) > 1:
            assert runner.metrics is not None
            reads.append(runner.metrics.read().read)
            time.sleep(0.02)
        most.append(reads[-1])
        sink.let_go.set()

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    run_until(runner, all_done(4_000))
    holder.join()
    # One batch is in the hands of the sink part. On Bytewax a worker hosts it, so only the other one has eight on their way; each
    # may have read one more.
    assert most[0] <= {"bytewax": 11, "loop": 19}[engine] * BATCH
    assert sorted(sink.written) == list(range(4_000))
    assert committed(bootstrap) == 4_000


def test_a_stop_while_a_sink_is_held_up_ends_in_order_when_it_goes_on(bootstrap: str) -> None:
    write(bootstrap, *range(400))
    sink = HeldUp()
    flow = StreamFlow("held", FromTopic("numbers", Number), Process(same, sink))
    config = config_for(
        bootstrap,
        consumer={"delivery": "at_least_once", "batch_size": BATCH},
        runtime={"workers_per_process": 2, "epoch_interval_ms": 3_600_000},
    )
    runner = StreamingRunner.from_dict(flow, config)

    def stop() -> None:
        sink.began.wait()
        runner.shutdown()
        sink.let_go.set()

    stopper = threading.Thread(target=stop, daemon=True)
    stopper.start()
    runner.run()
    stopper.join()
    assert committed(bootstrap) == len(sink.written)
    assert sink.flushed >= 1


def test_an_epoch_that_takes_an_hour_is_ended_by_a_stop(bootstrap: str) -> None:
    write(bootstrap, *range(40))
    flow = StreamFlow("stopped", FromTopic("numbers", Number), Process(same), IntoTopic("out"))
    runner = StreamingRunner.from_dict(
        flow, config_for(bootstrap, consumer={"delivery": "at_least_once"}, runtime={"epoch_interval_ms": 3_600_000})
    )
    counts = run_until(runner, lambda counts: counts.accounted == 40)
    assert counts.durable == 40
    assert committed(bootstrap) == 40


@pytest.mark.parametrize("workers", [1, 2])
def test_an_idle_flow_makes_no_marks(bootstrap: str, workers: int) -> None:
    write(bootstrap, *range(8))
    marks: list[float] = []
    idle_since: list[float] = []

    def note(point: Failpoint) -> None:
        if point is Failpoint.MARKED:
            marks.append(time.monotonic())

    def idle(counts: FlowCounts) -> bool:
        if not all_done(8)(counts):
            return False
        idle_since.append(time.monotonic())
        # Twenty epochs.
        return idle_since[-1] - idle_since[0] > 0.4

    flow = StreamFlow("idle", FromTopic("numbers", Number), Process(same), IntoTopic("out"))
    config = config_for(bootstrap, consumer={"delivery": "at_least_once"}, runtime={"workers_per_process": workers})
    before = failpoints.install(note)
    try:
        run_until(StreamingRunner.from_dict(flow, config), idle)
    finally:
        failpoints.install(before)
    # Each worker marks what it handed on, and its own end.
    assert len([at for at in marks if at > idle_since[0]]) <= 3 * workers
    assert committed(bootstrap) == 8


class Killed(BaseException):
    """Stands for the end of the process: nothing of the run is finished."""


def killed(point: Failpoint, hit: int, run: Callable[[], object]) -> None:
    """A run that ends when it comes to a point for the hit-th time, if it does."""
    hits: list[Failpoint] = []

    def strike(reached: Failpoint) -> None:
        if reached is point:
            hits.append(reached)
            if len(hits) == hit:
                raise Killed(str(point))

    before = failpoints.install(strike)
    try:
        run()
    except (Exception, Killed) as ended:
        # With several workers the engine says no more than that one of them panicked.
        assert len(hits) >= hit, ended  # noqa: PT017
    finally:
        failpoints.install(before)


AROUND_A_MARK = (Failpoint.MARKED, Failpoint.BEFORE_FLUSH, Failpoint.DURABLE, Failpoint.CONFIRMING, Failpoint.FINISHING)


@pytest.mark.parametrize("keeps", [False, True], ids=["no kept records", "kept records"])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("point", AROUND_A_MARK)
def test_a_run_that_ends_around_a_mark_has_committed_nothing_that_is_not_written(
    bootstrap: str, point: Failpoint, workers: int, keeps: bool
) -> None:
    write(bootstrap, *range(200))
    nodes: tuple[Any, ...] = (CollectBatch(7, timeout_ms=15), ForEach(), same) if keeps else (same,)
    flow = StreamFlow("killed", FromTopic("numbers", Number), Process(*nodes), IntoTopic("out"))
    config = config_for(
        bootstrap,
        consumer={"delivery": "at_least_once", "batch_size": 20},
        runtime={"workers_per_process": workers},
    )
    for hit in (1, 2, 3):
        killed(
            point,
            hit,
            lambda: run_until(StreamingRunner.from_dict(flow, config), lambda _: committed(bootstrap) == 200),
        )
        out = {int((record.value or b"")[5:-1]) for record in content(bootstrap, "out")["out"]}
        for partition, offset in positions(bootstrap, "numbers").items():
            assert {n for n in range(200) if n % 4 == partition and n // 4 < offset} <= out
    run_until(StreamingRunner.from_dict(flow, config), lambda _: committed(bootstrap) == 200)
    out = {int((record.value or b"")[5:-1]) for record in content(bootstrap, "out")["out"]}
    assert out == set(range(200))


@step
def refused(number: Number) -> Number:
    raise ValueError(number.n)


@pytest.mark.bytewax
@pytest.mark.parametrize("point", [Failpoint.DURABLE, Failpoint.CONFIRMING, Failpoint.BEFORE_FLUSH])
def test_a_file_that_is_resumed_with_an_older_state_gets_everything_again_that_came_since(
    bootstrap: str, tmp_path: Path, point: Failpoint
) -> None:
    """The file is cut to the state of the recovery store, so the run begins at the offsets of that state, not the group's."""
    write(bootstrap, *range(120))
    flow = StreamFlow("filed", FromTopic("numbers", Number), Process(refused), IntoTopic("out"))
    path = tmp_path / "errors"
    sink = numbers_file(path)
    config = config_for(
        bootstrap,
        consumer={"delivery": "at_least_once", "batch_size": 10},
        runtime={"recovery": {"db_dir": str(tmp_path / "store"), "backup_interval_ms": 0}},
    )

    def run() -> None:
        runner = StreamingRunner.from_dict(flow, config)
        run_until(runner, lambda _: committed(bootstrap) == 120, error_sinks={ErrorKind.TASK: sink})

    for hit in (2, 3):
        killed(point, hit, run)
    run()
    assert {int(line) for line in path.read_text().split()} == set(range(120))


def numbers_file(path: Path) -> Any:
    """A file of the numbers of errors, a line each."""
    from bytewax.connectors.files import FileSink

    class Numbers(FileSink):
        def build_part(self, *arguments: Any) -> Any:
            part = super().build_part(*arguments)
            write = part.write_batch
            part.write_batch = lambda envelopes: write([envelope.reason.rpartition(" ")[2] for envelope in envelopes])
            return part

    return Numbers(path)


def test_a_fault_ends_a_run_in_which_some_workers_read_nothing(bootstrap: str) -> None:
    """Four partitions and six workers: nothing of their own tells the last two."""
    write(bootstrap, 1)
    flow = StreamFlow("alone", FromTopic("numbers", Number), Process(refused), IntoTopic("out"))
    config = config_for(bootstrap, runtime={"workers_per_process": 6})
    with pytest.raises(UnroutedRecordError, match="task"):
        StreamingRunner.from_dict(flow, config).run()
