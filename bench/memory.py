"""In memory: decode, two steps, encode, from a list to a list. What is left of a framework when nothing else costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bytewax.operators as op
import msgspec
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main

from bench.contenders import MEMORY, Contender, resolve
from bench.measure import CPU, RATE, RSS, Sample, cpu_and_rate, in_fresh_process, measured
from bench.orders import decode, encode, make_orders, price, validate
from bench.result import Run, Suite

BATCH = 1_000
WARM_UP = 20_000


class Job(msgspec.Struct, frozen=True):
    """One run."""

    contender: str
    records: int


@contextmanager
def opened(records: int) -> Iterator[Run]:
    """Nothing is needed but a process for each run."""

    def run(name: str, contender: Contender, root: Path) -> Sample:
        return in_fresh_process("memory", contender, Job(name, records), root)

    yield run


def run_job(job: Job) -> Sample:
    """Called in the contender's own process."""
    return run_in_memory(MEMORY[job.contender], [order.value for order in make_orders(job.records)])


def run_in_memory(contender: Contender, values: list[bytes]) -> Sample:
    """Prepare, warm up, measure; what happens once, at the first records, is warm-up."""
    run = resolve(contender.run)
    records: Any = values if contender.prepare is None else resolve(contender.prepare)(values)
    run(records[:WARM_UP])
    return measured(lambda: run(records), len(records))


def plain(records: Sequence[bytes]) -> int:
    """The loop that one would write by hand."""
    written: list[bytes] = []
    append = written.append
    for record in records:
        append(encode(price(validate(decode(record)))))
    return len(written)


def bytewax_maps(records: Sequence[bytes]) -> int:
    """A Bytewax dataflow as its guide shows it, one operator for each step."""
    written: list[bytes] = []
    flow = Dataflow("orders")
    stream: Any = op.input("input", flow, _Batches(records))
    for name, step in (("decode", decode), ("validate", validate), ("price", price), ("encode", encode)):
        stream = op.map(name, stream, step)
    op.output("output", stream, _Collect(written))
    cli_main(flow)
    return len(written)


class _Batches(DynamicSource[bytes]):
    def __init__(self, records: Sequence[bytes]) -> None:
        self._records = records

    def build(self, *_: object) -> StatelessSourcePartition[bytes]:
        return _BatchesPartition(self._records)


class _BatchesPartition(StatelessSourcePartition[bytes]):
    def __init__(self, records: Sequence[bytes]) -> None:
        self._records = records
        self._at = 0

    def next_batch(self) -> Sequence[bytes]:
        if self._at >= len(self._records):
            raise StopIteration
        batch = self._records[self._at : self._at + BATCH]
        self._at += BATCH
        return batch


class _Collect(DynamicSink[bytes]):
    def __init__(self, written: list[bytes]) -> None:
        self._written = written

    def build(self, *_: object) -> StatelessSinkPartition[bytes]:
        return _CollectPartition(self._written)


class _CollectPartition(StatelessSinkPartition[bytes]):
    def __init__(self, written: list[bytes]) -> None:
        self._written = written

    def write_batch(self, items: list[bytes]) -> None:
        self._written.extend(items)


SUITE = Suite(
    name="memory",
    title="In memory",
    contenders=MEMORY,
    sample=Sample,
    figures=(CPU, RATE, RSS),
    ratios=(("cpu", "plain"), ("cpu", "bytewax_maps")),
    records=400_000,
    rounds=5,
    opened=opened,
    summary=cpu_and_rate,
)
