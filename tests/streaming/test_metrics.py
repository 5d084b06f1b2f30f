"""The counters of all parts of a run add up to one picture."""

from __future__ import annotations

from loom.streaming import ErrorKind
from loom.streaming.metrics import FlowMetrics


def test_a_run_that_has_not_begun_counts_nothing() -> None:
    metrics = FlowMetrics()
    metrics.part()
    counts = metrics.read()
    assert (counts.read, counts.written, counts.dropped, counts.durable) == (0, 0, 0, 0)
    assert counts.failed == counts.outputs == counts.drops == counts.errors == counts.refused == {}


def test_what_the_parts_have_counted_adds_up() -> None:
    metrics = FlowMetrics()
    one, other = metrics.part(), metrics.part()
    one.read, other.read = 5, 4
    one.inputs_written, other.inputs_written = 3, 2
    one.inputs_dropped = 1
    one.inputs_failed[ErrorKind.WIRE] += 1
    other.inputs_failed[ErrorKind.WIRE] += 1
    other.inputs_failed[ErrorKind.TASK] += 1
    one.outputs["orders.priced"] += 3
    other.outputs["orders.priced"] += 2
    other.outputs["orders.errors"] += 2
    one.drops["orders.keep"] += 1
    one.errors[ErrorKind.WIRE, "orders.source"] += 1
    other.errors[ErrorKind.WIRE, "orders.source"] += 1
    other.refused["orders.priced"] += 1
    metrics.durable = 7
    counts = metrics.read()
    assert (counts.read, counts.written, counts.dropped, counts.durable) == (9, 5, 1, 7)
    assert counts.failed == {ErrorKind.WIRE: 2, ErrorKind.TASK: 1}
    assert counts.outputs == {"orders.priced": 5, "orders.errors": 2}
    assert counts.drops == {"orders.keep": 1}
    assert counts.errors == {(ErrorKind.WIRE, "orders.source"): 2}
    assert counts.refused == {"orders.priced": 1}
    assert counts.accounted == counts.read


def test_a_reading_is_a_moment_that_later_counts_do_not_change() -> None:
    metrics = FlowMetrics()
    part = metrics.part()
    part.outputs["a"] += 1
    before = metrics.read()
    part.outputs["a"] += 1
    assert before.outputs == {"a": 1}
    assert metrics.read().outputs == {"a": 2}
