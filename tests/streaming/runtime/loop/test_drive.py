"""The plain loop: what it is handed and when, what ends it, and that it needs no engine."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, step
from loom.streaming.bytewax import FlowFailedError, ForcedShutdownError
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from tests.support.running import all_done, config_for, content, positions, produce, run_until
from tests.support.waiting import LONG_S

COUNT = 400


class Number(LoomFrozenStruct):
    n: int


def flow(*nodes: Any) -> StreamFlow[Any, Any]:
    return StreamFlow("looped", FromTopic("numbers", Number), Process(*nodes), IntoTopic("out"))


def config(bootstrap: str, **runtime: Any) -> dict[str, Any]:
    made = config_for(bootstrap, consumer={"delivery": "at_least_once", "batch_size": 10}, runtime=runtime)
    made["streaming"]["engine"] = "loop"
    return made


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    values = (KafkaRecord("numbers", None, b'{"n":%d}' % n, partition=n % 4) for n in range(COUNT))
    produce(broker.bootstrap, "numbers", *values)
    return broker.bootstrap


def written(bootstrap: str) -> list[int]:
    return sorted(int((record.value or b"")[5:-1]) for record in content(bootstrap, "out")["out"])


@pytest.mark.parametrize("workers", [1, 3, 6])
def test_each_worker_is_a_thread_that_reads_its_share(bootstrap: str, workers: int) -> None:
    """Six workers for four partitions: two of them have nothing to read and end at once."""
    threads: dict[int, set[str]] = {}

    @step
    def noting(number: Number) -> Number:
        threads.setdefault(number.n % 4, set()).add(threading.current_thread().name)
        return number

    run_until(StreamingRunner.from_dict(flow(noting), config(bootstrap, workers_per_process=workers)), all_done(COUNT))
    assert written(bootstrap) == list(range(COUNT))
    assert sum(positions(bootstrap, "numbers").values()) == COUNT
    # A partition is read by one thread, and as many read as can.
    assert all(len(names) == 1 for names in threads.values())
    assert len(set().union(*threads.values())) == min(workers, 4)


class Refusing:
    """A sink that fails once it has been handed something."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def build_partition(self, *_: Any, **__: Any) -> Refusing:
        return self

    def write_batch(self, items: list[Any]) -> None:
        raise self._error

    def flush(self) -> None: ...

    def close(self) -> None: ...


@step
def same(number: Number) -> Number:
    return number


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("error", [OSError("full"), StopIteration("at its end")], ids=["an error", "a StopIteration"])
def test_a_sink_that_fails_ends_all_workers_and_nothing_is_committed(
    bootstrap: str, workers: int, error: Exception
) -> None:
    declared = StreamFlow("looped", FromTopic("numbers", Number), Process(same, Refusing(error)))
    with pytest.raises(FlowFailedError, match=str(error)):
        StreamingRunner.from_dict(declared, config(bootstrap, workers_per_process=workers)).run()
    assert not sum(positions(bootstrap, "numbers").values())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loom-worker")]


def test_a_step_that_hangs_in_one_worker_does_not_outlast_the_time_of_a_stop(bootstrap: str) -> None:
    entered, let_go = threading.Event(), threading.Event()

    @step
    def hangs(number: Number) -> Number:
        if number.n == 0:
            entered.set()
            let_go.wait(LONG_S)
        return number

    made = config(bootstrap, workers_per_process=2, force_shutdown_timeout_ms=300)
    runner = StreamingRunner.from_dict(flow(hangs), made)
    stopper = threading.Thread(target=lambda: (entered.wait(LONG_S), runner.shutdown()))
    stopper.start()
    try:
        with pytest.raises(ForcedShutdownError, match="a worker that is still at work"):
            runner.run()
    finally:
        let_go.set()
        stopper.join()


WITHOUT = """
import sys

from confluent_kafka import Producer

sys.modules["bytewax"] = None  # whoever imports it gets an ImportError
from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, step
from loom.streaming.kafka import EmbeddedBroker


class Number(LoomFrozenStruct):
    n: int


@step
def stopping(number: Number) -> Number:
    runner.shutdown()
    return number


flow = StreamFlow("alone", FromTopic("numbers", Number), Process(stopping), IntoTopic("out"))
with EmbeddedBroker() as broker:
    broker.create_topic("numbers")
    broker.create_topic("out")
    writer = Producer({"bootstrap.servers": broker.bootstrap})
    writer.produce("numbers", b'{"n":1}', partition=0)
    assert writer.flush() == 0
    address = {"brokers": [broker.bootstrap]}
    kafka = {"consumer": {**address, "group_id": "readers"}, "producer": address}
    runner = StreamingRunner.from_dict(flow, {"kafka": kafka, "streaming": {"engine": "loop"}})
    runner.run()
    print(runner.metrics.read().durable, sorted(name for name in sys.modules if name.startswith("bytewax.")))
"""


def test_a_run_loads_no_engine() -> None:
    told = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False, timeout=LONG_S)
    assert told.stdout == "1 []\n", told.stderr
