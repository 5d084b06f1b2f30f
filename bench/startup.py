"""From the start of a process to the first record out of it: one record waits in a topic, and a consumer waits behind it.

The contender's process is a bare interpreter that imports and does what its author would; the bench loads nothing into it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from confluent_kafka import Consumer, TopicPartition

from bench.contenders import STARTUP, Contender
from bench.environment import with_code_of
from bench.kafka import PARTITIONS, running_broker
from bench.orders import make_orders
from bench.process_cpu import cpu_seconds
from bench.result import Figure, Run, Suite
from tests.support.apache_kafka import ApacheKafka
from tests.support.die_with_parent import die_with_parent
from tests.support.kafka_io import delete_topic, produce_numbered

#: seconds within which the record must have come out
PATIENCE = 60.0


class StartupSample(msgspec.Struct, frozen=True):
    """One start of one contender."""

    records: int
    wall_seconds: float
    cpu_seconds: float


@contextmanager
def opened(records: int) -> Iterator[Run]:
    """A broker for all runs."""
    with running_broker() as broker:

        def run(name: str, contender: Contender, root: Path) -> StartupSample:
            return run_one(broker, name, contender, records, root)

        yield run


def run_one(broker: ApacheKafka, name: str, contender: Contender, records: int, root: Path) -> StartupSample:
    """A contender with topics and a group of its own, started when all records are there, killed when all are out."""
    run = uuid.uuid4().hex[:8]
    source = broker.create_topic(f"{name}.{run}.in", PARTITIONS)
    target = broker.create_topic(f"{name}.{run}.out", PARTITIONS)
    orders = [order.value for order in make_orders(records)]
    produce_numbered(broker.bootstrap, source, records, value=orders.__getitem__)
    module, _, function = contender.run.partition(":")
    arguments = ", ".join(map(repr, (broker.bootstrap, source, target, f"bench-{name}-{run}")))
    program = f"from {module} import {function}; {function}({arguments})"
    with tempfile.TemporaryFile() as output, _receiver(broker.bootstrap, target) as consumer:
        began = time.monotonic()
        process = subprocess.Popen(
            die_with_parent([sys.executable, "-c", program]),
            cwd=root,
            env=with_code_of(root),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _await_records(consumer, records, process, began + PATIENCE)
            wall, cpu = time.monotonic() - began, cpu_seconds(process.pid)
        except RuntimeError as error:
            output.seek(0)
            raise RuntimeError(f"{name}: {error}\n{output.read().decode(errors='replace')[-2000:]}") from error
        finally:
            process.kill()
            process.wait()
    for topic in (source, target):
        delete_topic(broker.bootstrap, topic)
    return StartupSample(records, wall, cpu)


@contextmanager
def _receiver(bootstrap: str, topic: str) -> Iterator[Consumer]:
    """A consumer that waits at the end of a topic already, and hears of committed records alone."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench-startup",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 10,
            "log_level": 0,
        }
    )
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    consumer.poll(0.5)  # connects; nothing is there
    try:
        yield consumer
    finally:
        consumer.close()


def _await_records(consumer: Consumer, records: int, process: subprocess.Popen[bytes], until: float) -> None:
    received = 0
    while received < records:
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            received += 1
        elif process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"{received} of {records} records came out, then no more")


def _summary(sample: StartupSample) -> str:
    return f"{sample.wall_seconds:6.2f} s until the record was out  {sample.cpu_seconds:6.2f} s of CPU"


SUITE = Suite(
    name="startup",
    title="From the start of a process to its first record",
    contenders=STARTUP,
    sample=StartupSample,
    figures=(
        Figure("wall", "s", lambda sample: sample.wall_seconds, spread=True),
        Figure("cpu", "CPU s", lambda sample: sample.cpu_seconds),
    ),
    ratios=(("wall", "loop"), ("cpu", "loop")),
    records=1,
    rounds=15,
    opened=opened,
    summary=_summary,
)
