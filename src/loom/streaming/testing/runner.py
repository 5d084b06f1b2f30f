"""Runs a flow in memory: the plan and the stages of production, without a broker and without waiting.

The entry point of tests. What it gives the flow stands in `script.py`, what it keeps of it in `capture.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import Any, Self

from loom.core.async_bridge import AsyncBridge
from loom.core.choices import choice
from loom.core.config import ConfigContext
from loom.streaming.bytewax.adapter import lower
from loom.streaming.bytewax.in_memory import ManualClock, MemorySource, run_in_memory
from loom.streaming.bytewax.override_source import override_view
from loom.streaming.compiler.model import NodePath
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.errors import ErrorEnvelope, ErrorKind
from loom.streaming.flow import StreamFlow
from loom.streaming.message import Message
from loom.streaming.metrics import FlowCounts, FlowMetrics
from loom.streaming.record import KafkaRecord
from loom.streaming.runtime.assembly import MakeStage, Transport
from loom.streaming.runtime.output_table import OutputTable
from loom.streaming.runtime.prepare import prepare
from loom.streaming.runtime.run_state import RunState
from loom.streaming.testing.capture import Captured
from loom.streaming.testing.config import with_kafka_sections
from loom.streaming.testing.counts import added
from loom.streaming.testing.memory import Memory
from loom.streaming.testing.script import Key, Script

__all__ = ["StreamingTestRunner"]


class StreamingTestRunner:
    """Runs one flow on payloads, messages or records, and tells what came out.

    A run reads what has been given since the last one and adds to the results; `reset` forgets both. The flow is
    compiled at the first run, and again after a `reset`. Not for use by several threads.

    >>> from loom.core.model import LoomFrozenStruct
    >>> from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, step
    >>> class Order(LoomFrozenStruct):
    ...     quantity: int
    >>> @step
    ... def double(order: Order) -> Order:
    ...     return Order(order.quantity * 2)
    >>> flow = StreamFlow("orders", FromTopic("orders.raw", Order), Process(double), IntoTopic("orders.doubled"))
    >>> runner = StreamingTestRunner.from_flow(flow).with_payloads([Order(1), Order(2)]).run()
    >>> [message.payload.quantity for message in runner.output]
    [2, 4]
    """

    _counts: FlowCounts

    def __init__(self, flow: StreamFlow[Any, Any], config: ConfigContext) -> None:
        self._flow = flow
        self._config = config
        self._caught: set[ErrorKind] = set()
        self._real_sinks = False
        self._batch_size: int | None = None
        self._plan: CompiledPlan | None = None
        #: what the objects of the flow knew when it was compiled
        self._memory: Memory | None = None
        self._forget()

    @classmethod
    def from_flow(cls, flow: StreamFlow[Any, Any], config: ConfigContext | Mapping[str, Any] | None = None) -> Self:
        """A runner on a config in which the Kafka sections may be missing, or on none."""
        return cls(flow, with_kafka_sections(config, getattr(flow.source, "name", "")))

    @classmethod
    def from_yaml(cls, flow: StreamFlow[Any, Any], path: str | PathLike[str]) -> Self:
        """A runner on a YAML file. Raises `ConfigError` when it cannot be loaded."""
        return cls.from_flow(flow, ConfigContext.from_yaml(path))

    @classmethod
    def from_dict(cls, flow: StreamFlow[Any, Any], config: Mapping[str, Any]) -> Self:
        """A runner on a mapping."""
        return cls.from_flow(flow, config)

    def with_payloads(self, payloads: Iterable[Any], *, key: Callable[[Any], Key] | None = None) -> Self:
        """Payloads to read, as messages of partition 0 of the source's first topic; `test-<i>` is the id of the i-th.

        `key` makes a payload's record key. A payload may be a `Tombstone()`.
        """
        self._script.add_payloads(payloads, key)
        return self

    def with_messages(self, messages: Iterable[Message[Any]]) -> Self:
        """Messages to read as they are; a key that is text becomes bytes, since a broker knows no other."""
        self._script.add_messages(messages)
        return self

    def with_records(self, records: Iterable[KafkaRecord]) -> Self:
        """Records to read, as bytes; one without partition or offset is given the next of partition 0."""
        self._script.add_records(records)
        return self

    def advance(self, ms: int) -> Self:
        """Let so many milliseconds pass between what has been given so far and what is given next.

        Time stands still otherwise, so a `CollectBatch` is emitted when it is full, when time has passed, or at the end.
        """
        self._script.advance(ms)
        return self

    def with_batch_size(self, records: int) -> Self:
        """Hand at most so many records to the flow at once, instead of `kafka.consumer.batch_size`."""
        if records < 1:
            raise ValueError(f"with_batch_size() takes at least 1 record, not {records}")
        self._batch_size = records
        return self

    def with_sinks(self) -> Self:
        """Open the flow's storage sinks and write to them, besides keeping what they are handed for `terminal`."""
        self._real_sinks = True
        return self

    def capture_errors(self, *kinds: ErrorKind) -> Self:
        """Keep errors of these kinds, or of all without an argument, where the flow has no route for them."""
        self._caught |= {choice(ErrorKind, kind, "capture_errors()") for kind in kinds or ErrorKind}
        return self

    def run(self) -> Self:
        """Read what was given, to its end, in this thread.

        Raises what `plan` does, and `UnroutedRecordError` for an error whose kind is neither captured nor routed
        (unless the flow says `unrouted="drop"`), both with the user's exception as the cause.
        """
        plan = self.plan
        clock, captured = self._clock, self._captured
        items = self._script.take(plan.source.topics[0])
        view = override_view(plan.source)
        size = self._batch_size or plan.source.settings.batch_size
        watched: list[OutputTable] = []

        def source(delivery: RunState, make_stage: MakeStage) -> MemorySource:
            return MemorySource(items, view, clock, size, delivery, make_stage)

        def watch(outlets: OutputTable) -> OutputTable:
            watched.append(captured.watch(plan, outlets, real_sinks=self._real_sinks))
            return watched[0]

        routed = {kind for route in plan.error_routes for kind in route.kinds}
        bridge = AsyncBridge()
        built = lower(
            plan,
            error_sinks={kind: captured.error_sink() for kind in self._caught - routed},
            bridge=bridge,
            transport=Transport(view, source, lambda: captured.writers(watched[0]), watch),
        )
        try:
            run_in_memory(plan.name, built)
        finally:
            bridge.shutdown()
            self._counts = added(self._counts, built.delivery.metrics.read())
        return self

    @property
    def plan(self) -> CompiledPlan:
        """The compiled flow. Raises what a run would refuse: `CompilationError`, `ConfigError`.

        Files, directories and packages of the machine it will run on are not asked for, nor are the sinks of its config.
        """
        if self._plan is None:
            self._plan = prepare(self._flow, self._config, None, elsewhere=True).plan
            self._memory = Memory(self._plan)
        return self._plan

    @property
    def output(self) -> list[Message[Any]]:
        """What reached the flow's output, in order."""
        return self._captured.messages[()]

    @property
    def errors(self) -> dict[ErrorKind, list[ErrorEnvelope[Any]]]:
        """What failed, by kind, whether captured or routed by the flow; an empty list for a kind of which nothing did."""
        return defaultdict(list, self._captured.errors)

    def terminal(self, path: NodePath) -> list[Message[Any]]:
        """What reached the terminal at a node path: a topic or storage sink inside the process.

        Raises `ValueError` for a path at which there is none.
        """
        known = (*self.plan.terminal_sinks, *self.plan.terminal_storage_sinks)
        if tuple(path) not in known:
            shown = ", ".join(map(str, known)) or "it has none"
            raise ValueError(f"{self.plan.name!r} has no terminal at {path}; its terminals: {shown}")
        return self._captured.messages[tuple(path)]

    def written(self, topic: str) -> list[KafkaRecord]:
        """What would stand in a topic, as bytes; dead letters too. `topic` is its physical name."""
        return self._captured.records[topic]

    @property
    def counts(self) -> FlowCounts:
        """The counters of all runs together."""
        return self._counts

    def reset(self) -> Self:
        """Forget input, results and compiled steps; ids begin at `test-0`. What the runner was told to do stays.

        Steps, selectors and strategies that were given as instances are as they were before the first run: asked to
        `reset()` where they have one, else by putting their attributes back. Raises `CannotForgetError` for one that holds
        an iterator or a random generator, of which there is no way back.
        """
        if self._memory is not None:
            self._memory.restore()
        self._plan, self._memory = None, None
        self._forget()
        return self

    def _forget(self) -> None:
        self._script = Script()
        self._captured = Captured()
        self._clock = ManualClock()
        self._counts = FlowMetrics().read()
