"""From Kafka to Kafka: the same work between two topics of a real broker on this machine, at least once or exactly once."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from bench.contenders import KAFKA, Contender, resolve
from bench.measure import CPU, RATE, RSS, SECONDS, Sample, cpu_and_rate, in_fresh_process, measured
from bench.orders import make_orders
from bench.progress import Progress
from bench.result import Run, Suite
from loom.streaming.kafka.settings import ConsumerSettings, ProducerSettings
from tests.support.apache_kafka import ApacheKafka, why_unavailable
from tests.support.kafka_io import count_records, delete_topic

PARTITIONS = 4
INPUT = "orders.raw"


def input_of(contender: Contender) -> str:
    """The topic that a contender reads."""
    return INPUT if contender.partitions == PARTITIONS else f"{INPUT}.{contender.partitions}"


class KafkaJob(msgspec.Struct, frozen=True):
    """One run: read `records` orders from `source`, write as many to `target`, confirm for `group`, stop."""

    contender: str
    bootstrap: str
    source: str
    target: str
    group: str
    records: int


Job = KafkaJob


@contextmanager
def opened(records: int) -> Iterator[Run]:
    """A broker, and for each number of partitions a topic that holds the orders."""
    with running_broker() as broker:
        for topic, partitions in {input_of(each): each.partitions for each in KAFKA.values()}.items():
            broker.create_topic(topic, partitions)
            fill(broker.bootstrap, records, topic)

        def run(name: str, contender: Contender, root: Path) -> Sample:
            return run_and_verify(broker, name, contender, records, root)

        yield run


@contextmanager
def running_broker() -> Iterator[ApacheKafka]:
    """A broker for one suite; leaves with a word where there can be none."""
    if (reason := why_unavailable()) is not None:
        raise SystemExit(f"no Kafka benchmarks here: {reason}")
    with (
        tempfile.TemporaryDirectory(prefix="loom-bench-") as folder,
        ApacheKafka(Path(folder) / "kafka", steady=True) as broker,
    ):
        yield broker


def run_and_verify(broker: ApacheKafka, name: str, contender: Contender, records: int, root: Path) -> Sample:
    """One run into a topic and with a group of its own; every record must be there afterwards, and no other."""
    run = uuid.uuid4().hex[:8]
    target = broker.create_topic(f"{name}.{run}", PARTITIONS)
    job = KafkaJob(name, broker.bootstrap, input_of(contender), target, f"bench-{name}-{run}", records)
    with Progress(broker.bootstrap, target, PARTITIONS) as progress:
        sample = in_fresh_process("kafka", contender, job, root)
    if (written := count_records(broker.bootstrap, target, isolation="read_committed")) != records:
        raise RuntimeError(f"{name} left {written} records of {records} in its output")
    delete_topic(broker.bootstrap, target)
    return msgspec.structs.replace(sample, steady_per_second=progress.rate(records))


def run_job(job: KafkaJob) -> Sample:
    """Called in the contender's own process. Connecting is part of the work, importing is not."""
    contender = KAFKA[job.contender]
    if contender.beforehand is not None:
        resolve(contender.beforehand)()
    run = resolve(contender.run)
    return measured(lambda: run(job), job.records)


def fill(bootstrap: str, records: int, topic: str = INPUT) -> None:
    """Write the orders, placed by key and compressed as the contenders' own output is."""
    failures: list[KafkaError] = []

    def failed(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    producer = Producer(producer_config(bootstrap))
    for order in make_orders(records):
        while True:
            try:
                producer.produce(topic, order.value, order.key, on_delivery=failed)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(60) or failures:
        raise RuntimeError(f"the input could not be written: {failures[:3]}")
    if (found := count_records(bootstrap, topic)) != records:
        raise RuntimeError(f"the input holds {found} records of {records}")


def producer_config(bootstrap: str) -> dict[str, str | int | float | bool]:
    """The settings of every contender's producer: the project's own, so that nobody compares another durability."""
    return dict(ProducerSettings(brokers=(bootstrap,)).to_confluent_config())


def consumer_config(bootstrap: str, group: str) -> dict[str, str | int | float | bool]:
    """The settings of every contender's consumer, the project's own too; positions are committed by hand."""
    return dict(ConsumerSettings(brokers=(bootstrap,), group_id=group, enable_auto_commit=False).to_confluent_config())


SUITE = Suite(
    name="kafka",
    title="Kafka to Kafka",
    contenders=KAFKA,
    sample=Sample,
    figures=(CPU, RATE, SECONDS, RSS),
    ratios=(
        ("cpu", "loop"),
        ("cpu", "bytewax_bundled"),
        ("cpu", "quix"),
        ("cpu", "loom"),
        ("rate", "loop"),
        ("rate", "loom"),
    ),
    # Exactly-once is compared over twenty epochs of a second or more.
    records=2_500_000,
    rounds=3,
    opened=opened,
    summary=cpu_and_rate,
)
