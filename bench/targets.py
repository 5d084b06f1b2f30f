"""What the project wants its figures to be. A row is a ratio to another contender, or without one the figure itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from bench.result import Result, Suite


class Target(msgspec.Struct, frozen=True):
    """`limit` is what is accepted, `goal` where the project is going."""

    suite: str
    contender: str
    figure: str
    against: str | None
    sense: Literal["<=", ">="]
    limit: float
    goal: float

    def met(self, value: float, bound: float) -> bool:
        """Whether a value is on the right side of a bound."""
        return value <= bound if self.sense == "<=" else value >= bound


TARGETS = (
    Target("memory", "loom_step", "cpu", "plain", "<=", 1.3, 1.15),
    Target("memory", "loom_record_step", "cpu", "plain", "<=", 1.6, 1.4),
    Target("memory", "loom_overrides", "cpu", "plain", "<=", 2.0, 1.6),
    # Orders wait for 100 ms each, 200 at a time: 2,000 records/s would be ideal.
    Target("async", "loom", "rate", "semaphore", ">=", 0.9, 0.95),
    Target("async", "loom", "cpu", "semaphore", "<=", 2.0, 1.3),
    Target("async", "loom_evenly", "rate", None, ">=", 1_600.0, 1_800.0),
    Target("kafka", "loom", "cpu", "loop", "<=", 1.3, 1.1),
    Target("kafka", "loom", "rate", "loop", ">=", 0.9, 1.0),
    Target("kafka", "loom", "cpu", "bytewax_bundled", "<=", 0.5, 0.45),
    Target("kafka", "loom", "cpu", "quix", "<=", 0.3, 0.25),
    Target("kafka", "loom_hundred", "cpu", "loom", "<=", 1.1, 1.05),
    Target("kafka", "loom_exactly_once", "rate", "loom", ">=", 0.85, 0.95),
    Target("kafka", "loom_exactly_once", "cpu", "loom", "<=", 1.1, 1.05),
    Target("latency", "loom", "p99", "quix", "<=", 1.0, 0.7),
    # One epoch of 1,000 ms: nothing is visible to a reader of committed records before its epoch ends.
    Target("latency", "loom_exactly_once", "p99", None, "<=", 1_100.0, 1_100.0),
    Target("latency", "loom", "idle", None, "<=", 1.5, 1.0),
    Target("processes", "memory_two", "rate", "memory_one", ">=", 1.7, 1.8),
    # Three members, six partitions.
    Target("members", "loom", "join", None, "<=", 1.5, 1.0),
    Target("members", "loom_named", "join", None, "<=", 1.5, 1.0),
    # Of it 1.0 is an epoch.
    Target("members", "loom_exactly_once", "join", None, "<=", 1.5, 1.2),
    Target("members", "loom_exactly_once_named", "join", None, "<=", 1.5, 1.2),
    Target("members", "loom_named", "again", None, "<=", 3.0, 2.0),
    Target("members", "loom_exactly_once_named", "again", None, "<=", 3.0, 3.0),
    Target("startup", "loom", "wall", "loop", "<=", 3.0, 2.0),
    Target("latency", "loom_exactly_once", "idle", None, "<=", 1.5, 1.0),
)


def verdicts(suite: Suite, result: Result) -> Iterator[str]:
    """One line for each target that the result can be held against."""
    for target in TARGETS:
        if target.suite != suite.name or target.contender not in result.samples:
            continue
        figure = suite.figure(target.figure)
        if target.against is None:
            value: float | None = result.value(target.contender, figure)
            what = f"{target.contender}: {figure.title}"
        else:
            value = result.ratio(target.contender, figure, target.against)
            what = f"{target.contender}: {figure.title} / {target.against}"
        if value is None:
            continue
        verdict = "goal" if target.met(value, target.goal) else "met" if target.met(value, target.limit) else "MISSED"
        yield f"{what} = {value:,.2f}, wanted {target.sense} {target.limit:g} (goal {target.goal:g}): {verdict}"
