"""A generated process does the same inside every kind of scope: what leaves is what leaves `With`, whose nodes are fused.

So whatever the oracle says of a process holds for calls that overlap, in an event loop and in threads: results, errors with
their headers, drops, counters, and the order within each partition.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import anyio
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from loom.streaming import Process, StreamFlow, With, WithAsync, step
from loom.streaming.compiler import Code, CompilationError
from tests.streaming.runtime.stages.oracle.flows import FIRST_MS, Number, flow_of, records_of
from tests.streaming.runtime.stages.oracle.profiles import ORACLE
from tests.streaming.runtime.stages.oracle.shapes import Chain, Input, chains, inputs
from tests.support.running import Written, config_for, into_topics

pytestmark = pytest.mark.timeout(21_600)


@step(name="pause")
def pause(number: Number) -> Number:
    return number


@step(name="pause")
def block(number: Number) -> Number:
    time.sleep(0.0005 / (1 + number.n % 4))
    return number


@step(name="pause")
async def wait(number: Number) -> Number:
    # The later ones are the faster ones, as often as not.
    await anyio.sleep(0.001 / (1 + number.n % 4) if number.n % 3 else 0)
    return number


def scoped(chain: Chain, scope: str) -> StreamFlow[Any, Any]:
    flow = flow_of(chain)
    nodes = flow.process.nodes
    inside: Any
    if scope == "async":
        inside = WithAsync(process=Process(wait, *nodes), max_concurrency=4)
    elif scope == "threads":
        inside = With(process=Process(block, *nodes), max_threads=3)
    else:
        inside = With(process=Process(pause, *nodes))
    return StreamFlow(flow.name, flow.source, Process(inside), flow.output, flow.errors)


def by_partition(topics: dict[str, list[Written]], read: list[Input]) -> dict[tuple[str, int], list[Written]]:
    found: dict[tuple[str, int], list[Written]] = defaultdict(list)
    for topic, records in topics.items():
        for record in records:
            stamp = record.timestamp_ms or int(dict(record.headers).get("x-error-timestamp") or b"-1")
            found[topic, read[stamp - FIRST_MS].partition].append(record)
    return found


@settings(ORACLE, max_examples=max(1, ORACLE.max_examples // 4))
@given(
    chain=chains(timeouts=(), sinks=False),
    read=inputs(),
    batch_size=st.integers(1, 6),
    scope=st.sampled_from(["async", "async", "threads"]),
    delivery=st.sampled_from(["at_least_once", "exactly_once"]),
)
def test_a_process_does_the_same_in_every_scope(
    chain: Chain, read: list[Input], batch_size: int, scope: str, delivery: str
) -> None:
    config = config_for(consumer={"batch_size": batch_size, "delivery": delivery})
    try:
        found, counts = into_topics(scoped(chain, scope), records_of(read), config=config)
    except CompilationError as refused:
        # It gathers the records of several calls, or has a retry policy of a step.
        assume(any(issue.code is not Code.SCOPE_NODE for issue in refused.errors))
        raise
    expected, as_counted = into_topics(scoped(chain, "fused"), records_of(read), config=config)
    assert by_partition(found, read) == by_partition(expected, read)
    assert counts == as_counted
