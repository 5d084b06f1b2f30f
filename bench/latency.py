"""How long a record is on its way at a steady 1,000 a second, and what a contender costs while nothing comes.

From just before an order is produced to its receipt by a consumer behind the contender, on one clock. Then nothing is
produced, and the contender's CPU is looked at from outside.
"""

from __future__ import annotations

import signal
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.contenders import LATENCY, Contender, resolve
from bench.kafka import PARTITIONS, running_broker
from bench.latency_load import Load
from bench.measure import started
from bench.process_cpu import cpu_seconds
from bench.result import Figure, Run, Suite
from tests.support.apache_kafka import ApacheKafka
from tests.support.kafka_io import delete_topic

DIRECT = "direct"
RATE = 1_000  # records a second
WARM_UP = 3.0  # seconds at that rate before anything counts; positions are confirmed, code is warm
SETTLE = 3.0  # seconds between the last record and the idle ones: the last epochs and checkpoints
IDLE = 20.0  # seconds


class LatencyJob(msgspec.Struct, frozen=True):
    """One contender: copy orders from `source` to `target`, priced, until it is killed."""

    contender: str
    bootstrap: str
    source: str
    target: str
    group: str


Job = LatencyJob


class LatencySample(msgspec.Struct, frozen=True):
    """One run of one contender."""

    records: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    #: the load's own p99 of how late it produced
    late_ms: float
    #: of one core, by the contender's process with all threads: at the steady rate, and without any records
    busy_percent: float
    idle_percent: float


@contextmanager
def opened(records: int) -> Iterator[Run]:
    """A broker for all runs."""
    with running_broker() as broker:

        def run(name: str, contender: Contender, root: Path) -> LatencySample:
            return run_one(broker, name, contender, records, root)

        yield run


def run_one(broker: ApacheKafka, name: str, contender: Contender, records: int, root: Path) -> LatencySample:
    """A contender with topics and a group of its own: warm up, load, leave it idle."""
    run = uuid.uuid4().hex[:8]
    source = broker.create_topic(f"{name}.{run}.in", PARTITIONS)
    target = source if name == DIRECT else broker.create_topic(f"{name}.{run}.out", PARTITIONS)
    job = LatencyJob(name, broker.bootstrap, source, target, f"bench-{name}-{run}")
    with (
        tempfile.TemporaryDirectory(prefix="loom-bench-") as folder,
        started("latency", contender, job, Path(folder), root) as process,
        Load(broker.bootstrap, source, target, PARTITIONS, lambda: process.poll() is None) as load,
    ):
        load.run(round(WARM_UP * RATE), RATE)
        began, before = time.monotonic(), cpu_seconds(process.pid)
        received = load.run(records, RATE)
        busy = (cpu_seconds(process.pid) - before) / (time.monotonic() - began)
        time.sleep(SETTLE)
        began, before = time.monotonic(), cpu_seconds(process.pid)
        time.sleep(IDLE)
        idle = (cpu_seconds(process.pid) - before) / (time.monotonic() - began)
    for topic in {source, target}:
        delete_topic(broker.bootstrap, topic)
    return LatencySample(
        records,
        p50_ms=_hundredth(received.latencies, 50) * 1e3,
        p99_ms=_hundredth(received.latencies, 99) * 1e3,
        max_ms=max(received.latencies) * 1e3,
        late_ms=_hundredth(received.delays, 99) * 1e3,
        busy_percent=busy * 100,
        idle_percent=idle * 100,
    )


def run_job(job: LatencyJob) -> None:
    """Called in the contender's own process, and never left in good order."""
    resolve(LATENCY[job.contender].run)(job)


def stand_by(_: LatencyJob) -> None:
    """The floor: the load's consumer reads the very topic that its producer writes to, and nobody stands between."""
    signal.pause()


def _hundredth(seconds: list[float], which: int) -> float:
    return statistics.quantiles(seconds, n=100)[which - 1]


def _summary(sample: LatencySample) -> str:
    latency = f"p50 {sample.p50_ms:8.1f} ms  p99 {sample.p99_ms:8.1f} ms"
    return f"{latency}  busy {sample.busy_percent:5.1f} %  idle {sample.idle_percent:5.2f} % of a core"


SUITE = Suite(
    name="latency",
    title=f"Latency at {RATE:,} records/s, and idle",
    contenders=LATENCY,
    sample=LatencySample,
    figures=(
        Figure("p50", "p50 ms", lambda sample: sample.p50_ms, digits=1),
        Figure("p99", "p99 ms", lambda sample: sample.p99_ms, digits=1, spread=True),
        Figure("max", "max ms", lambda sample: sample.max_ms, digits=0),
        Figure("late", "load late ms", lambda sample: sample.late_ms, digits=1),
        Figure("busy", "busy % of a core", lambda sample: sample.busy_percent, digits=1),
        Figure("idle", "idle % of a core", lambda sample: sample.idle_percent),
    ),
    ratios=(("p99", "quix"), ("p99", "bytewax_bundled"), ("busy", "quix")),
    records=20_000,
    rounds=3,
    opened=opened,
    summary=_summary,
)
