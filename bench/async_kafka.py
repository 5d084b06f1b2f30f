"""Async calls from Kafka to Kafka: every record waits for 100 ms, 200 at a time. Rate, CPU, and whether order is kept.

Order is that of a source partition within each output partition, as a reader of the output sees it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.contenders import ASYNC_KAFKA, Contender, resolve
from bench.kafka import INPUT, PARTITIONS, KafkaJob, fill, running_broker
from bench.measure import CPU, RATE, RSS, SECONDS, Sample, cpu_and_rate, in_fresh_process, measured
from bench.orders import PricedOrder
from bench.progress import Progress
from bench.result import Figure, Run, Suite
from tests.kafka.crash.verify import Verdict, seen, verify
from tests.support.apache_kafka import ApacheKafka
from tests.support.kafka_io import ReadRecord, delete_topic, read_all

#: As in `async_calls`, which needs the engine, and so cannot be imported where another framework runs.
WAIT_S = 0.1
AT_ONCE = 200

Job = KafkaJob


class OrderedSample(Sample, frozen=True):
    """One run, and how many results stand behind a later one of their source partition."""

    out_of_order: int = 0


@contextmanager
def opened(records: int) -> Iterator[Run]:
    """A broker, and a topic that holds the orders."""
    with running_broker() as broker:
        broker.create_topic(INPUT, PARTITIONS)
        fill(broker.bootstrap, records)
        partition_of = {_number(record): record.partition for record in read_all(broker.bootstrap, INPUT)}

        def run(name: str, contender: Contender, root: Path) -> OrderedSample:
            return _run_and_verify(broker, name, contender, records, partition_of, root)

        yield run


def run_job(job: KafkaJob) -> Sample:
    """Called in the contender's own process. Connecting is part of the work, importing is not."""
    run = resolve(ASYNC_KAFKA[job.contender].run)
    return measured(lambda: run(job), job.records)


def _run_and_verify(
    broker: ApacheKafka, name: str, contender: Contender, records: int, partition_of: dict[int, int], root: Path
) -> OrderedSample:
    """One run into a topic and with a group of its own; every record must be there once, in whatever order."""
    run = uuid.uuid4().hex[:8]
    target = broker.create_topic(f"{name}.{run}", PARTITIONS)
    job = KafkaJob(name, broker.bootstrap, INPUT, target, f"bench-{name}-{run}", records)
    with Progress(broker.bootstrap, target, PARTITIONS) as progress:
        sample = in_fresh_process("async_kafka", contender, job, root)
    verdict = _verdict(broker.bootstrap, target, partition_of)
    if not (verdict.at_least_once and not verdict.duplicates):
        raise RuntimeError(f"{name}: {verdict.describe()}")
    delete_topic(broker.bootstrap, target)
    return OrderedSample(
        sample.records,
        sample.cpu_seconds,
        sample.wall_seconds,
        sample.max_rss_mb,
        progress.rate(records),
        sum(verdict.disorder.values()),
    )


def _verdict(bootstrap: str, target: str, partition_of: dict[int, int]) -> Verdict:
    found = read_all(bootstrap, target, isolation="read_committed")
    return verify(partition_of, seen(found, _priced_number), lambda number: partition_of[number])


class _Numbered(msgspec.Struct):
    order_id: str


def _number(record: ReadRecord) -> int:
    return int(msgspec.json.decode(record.value or b"", type=_Numbered).order_id)


def _priced_number(record: ReadRecord) -> int:
    return int(msgspec.json.decode(record.value or b"", type=PricedOrder).order_id)


def _summary(sample: OrderedSample) -> str:
    return f"{cpu_and_rate(sample)}  {sample.out_of_order:,} out of order"


SUITE = Suite(
    name="async_kafka",
    title="Async calls on Kafka",
    contenders=ASYNC_KAFKA,
    sample=OrderedSample,
    figures=(
        CPU,
        RATE,
        SECONDS,
        RSS,
        Figure("out_of_order", "out of order", lambda sample: sample.out_of_order, digits=0, worst=True),
    ),
    ratios=(("cpu", "faststream"), ("cpu", "faststream_aiokafka"), ("rate", "faststream_aiokafka")),
    records=2_000,
    rounds=5,
    opened=opened,
    summary=_summary,
)
