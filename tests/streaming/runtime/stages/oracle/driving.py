"""A stage without an engine: handed batches one by one, at times of the test's own choosing."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from loom.core.config import ConfigContext
from loom.streaming import ErrorKind, compile_flow
from loom.streaming.kafka import TopicPartition
from loom.streaming.metrics import Counts
from loom.streaming.runtime.output_table import output_table_of
from loom.streaming.runtime.override_view import override_view
from loom.streaming.runtime.stages.fuse import build_stage
from loom.streaming.runtime.stages.stage_io import EndMark, SourceBatch
from tests.streaming.runtime.stages.oracle.flows import flow_of
from tests.streaming.runtime.stages.oracle.shapes import Chain
from tests.support.running import config_for
from tests.support.scripted import ListSink

__all__ = ["Driven", "Left"]


@lru_cache
def _context(delivery: str | None) -> ConfigContext:
    return ConfigContext.from_dict(config_for(consumer={"delivery": delivery} if delivery is not None else {}))


@dataclass(frozen=True)
class Left:
    """A result that has left the stage."""

    slot: str
    value: Any
    key: bytes | None
    headers: dict[str, bytes | None]
    #: which of the inputs it stems from
    origin: int


@dataclass
class Driven:
    """A stage of a described flow, and all that has left it so far."""

    chain: Chain
    delivery: str | None = "at_least_once"
    hosted: bool = False
    left: list[Left] = field(default_factory=list)
    safe: dict[TopicPartition, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plan = compile_flow(flow_of(self.chain), config=_context(self.delivery))
        sinks: dict[str, Any] = {"sink": None, "terminal_sinks": None, "error_sinks": None}
        if self.hosted:
            sinks["sink"] = ListSink([]) if plan.output is not None else None
            sinks["terminal_sinks"] = {path: ListSink([]) for path in plan.terminal_sinks}
            sinks["error_sinks"] = {kind: ListSink([]) for kind in ErrorKind}
        slots = output_table_of(plan, **sinks).slots
        self.slots = slots
        self.counts = Counts()
        self.stage = build_stage(plan, slots, override_view(plan.source), self.counts, lambda envelope: None)
        self._numbers: dict[int, int] = {}
        self._held: list[Any] = []  # so that an id stays one record's

    def run(
        self, records: list[Any], positions: dict[TopicPartition, int], now: float, end: EndMark | None = None
    ) -> list[Left]:
        """Hand over one batch; what leaves with it."""
        for record in records:
            self._numbers[id(record)] = len(self._held)
            self._held.append(record)
        came = self.stage.run(SourceBatch(self.stage, records, positions, now, end))
        found = [
            Left(
                self.slots.names[slot],
                value,
                key,
                dict(getattr(headers, "pairs", headers) or ()),
                self._numbers[id(origin)],
            )
            for slot, value, key, _, headers, origin in came.results
        ]
        self.left += found
        self.safe.update(came.safe)
        return found
