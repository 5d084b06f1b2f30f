"""In memory: decode, two steps, encode, from a list to a list. What is left of a framework when nothing else costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.contenders import MEMORY, Contender, resolve
from bench.measure import CPU, RATE, RSS, Job, Sample, alone, cpu_and_rate, measured
from bench.orders import decode, encode, make_orders, price, validate
from bench.result import Suite

BATCH = 1_000
#: records before those that are measured: a hundred batches, of which one has records that are followed where there are traces
WARM_UP = 100_000


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


def let_go(written: list[bytes]) -> int:
    """How many results there are, which are released here: the plain loop does it on its way out, an engine may at exit."""
    made = len(written)
    written.clear()
    return made


SUITE = Suite(
    name="memory",
    title="In memory",
    contenders=MEMORY,
    sample=Sample,
    figures=(CPU, RATE, RSS),
    ratios=(("cpu", "plain"), ("cpu", "bytewax_maps")),
    records=400_000,
    rounds=5,
    opened=alone("memory"),
    summary=cpu_and_rate,
)
