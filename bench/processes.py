"""One process and two, in memory and from Kafka to Kafka: what a second core brings.

In memory each process runs the flow of the suite `memory` on records of its own; over Kafka `loom run --processes N` reads a
topic that is full. The rate is that of all processes together.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path

import msgspec

from bench.contenders import PROCESSES, Contender, resolve
from bench.kafka import INPUT, PARTITIONS, fill, running_broker
from bench.loom_memory import as_records, run_step
from bench.measure import RATE, SECONDS, Sample, in_fresh_process
from bench.memory import WARM_UP
from bench.orders import make_orders
from bench.progress import Progress
from bench.result import Run, Suite
from tests.support.apache_kafka import ApacheKafka
from tests.support.flow_process import FlowProcess
from tests.support.kafka_io import count_records, delete_topic

#: seconds for one run over Kafka
_WITHIN = 600.0


class ProcessesJob(msgspec.Struct, frozen=True):
    """One run: so many processes, with so many records for each in memory, or for all in the topic of a broker."""

    contender: str
    processes: int
    records: int


Job = ProcessesJob
_COUNTS = {"one": 1, "two": 2}


@contextmanager
def opened(records: int) -> Iterator[Run]:
    """A broker with a topic that holds the orders, for those that need it."""
    with ExitStack() as stack:
        brokers: list[ApacheKafka] = []

        def run(name: str, contender: Contender, root: Path) -> Sample:
            job = ProcessesJob(name, _COUNTS[name.rpartition("_")[2]], records)
            if not name.startswith("kafka"):
                return in_fresh_process("processes", contender, job, root)
            if not brokers:
                brokers.append(stack.enter_context(running_broker()))
                brokers[0].create_topic(INPUT, PARTITIONS)
                fill(brokers[0].bootstrap, records)
            found: Sample = resolve(contender.run)(brokers[0], job)
            return found

        yield run


def run_job(job: ProcessesJob) -> Sample:
    """Called in a process of its own, which starts the others."""
    found: Sample = resolve(PROCESSES[job.contender].run)(job)
    return found


def in_memory(job: ProcessesJob) -> Sample:
    """Every process has its records ready before the clock starts."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(job.processes + 1)
    processes = [context.Process(target=_work, args=(barrier, job.records)) for _ in range(job.processes)]
    for process in processes:
        process.start()
    barrier.wait()
    began = time.perf_counter()
    barrier.wait()
    wall = time.perf_counter() - began
    for process in processes:
        process.join()
    return Sample(job.records * job.processes, 0.0, wall, 0.0)


def _work(barrier: Barrier, count: int) -> None:
    try:
        records = as_records([order.value for order in make_orders(count)])
        run_step(records[:WARM_UP])
        barrier.wait()
        if (written := run_step(records)) != count:
            raise RuntimeError(f"{written} records of {count} were written")
        barrier.wait()
    except BaseException:
        barrier.abort()
        raise


def over_kafka(broker: ApacheKafka, job: ProcessesJob) -> Sample:
    """The command line, until everything is written; called in the suite's own process."""
    run = uuid.uuid4().hex[:8]
    target = broker.create_topic(f"{job.contender}.{run}", PARTITIONS)
    with tempfile.TemporaryDirectory(prefix="loom-bench-") as name:
        folder = Path(name)
        config = folder / "loom.yaml"
        config.write_bytes(msgspec.yaml.encode(_config(broker.bootstrap, f"bench-{run}", target)))
        flow = FlowProcess(
            "bench.loom_kafka:flow",
            config=config,
            directory=folder,
            arguments=["--processes", str(job.processes)],
            pythonpath=[Path(__file__).resolve().parents[1]],
        )
        began = time.perf_counter()
        with flow, Progress(broker.bootstrap, target, PARTITIONS) as progress:
            flow.start()
            flow.await_positions(broker.bootstrap, f"bench-{run}", INPUT, job.records, _WITHIN)
            wall = time.perf_counter() - began
            flow.sigterm()
            flow.wait(60)
    if (written := count_records(broker.bootstrap, target, isolation="read_committed")) != job.records:
        raise RuntimeError(f"{job.contender} left {written} records of {job.records} in its output")
    delete_topic(broker.bootstrap, target)
    return Sample(job.records, 0.0, wall, 0.0, progress.rate(job.records))


def _config(bootstrap: str, group: str, target: str) -> dict[str, object]:
    consumer = {"brokers": [bootstrap], "group_id": group, "topics": [INPUT], "delivery": "at_least_once"}
    return {
        "kafka": {
            "consumer": consumer,
            "producer": {"brokers": [bootstrap]},
            "producers": {"out": {"topic": target}},
        }
    }


def _summary(sample: Sample) -> str:
    return f"{sample.records_per_second:11,.0f} records/s"


SUITE = Suite(
    name="processes",
    title="One process and two",
    contenders=PROCESSES,
    sample=Sample,
    figures=(RATE, SECONDS),
    ratios=(("rate", "memory_one"), ("rate", "kafka_one")),
    records=1_500_000,
    rounds=3,
    opened=opened,
    summary=_summary,
)
