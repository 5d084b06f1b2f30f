"""Runs a flow in memory: the plan and the stages of production, without a broker and without waiting.

The entry point of tests. Its input is in `script.py`, what it keeps of the output in `capture.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import Any, Self

from loom.core.async_bridge import AsyncBridge
from loom.core.choices import choice
from loom.core.config import ConfigContext
from loom.streaming.compiler.model import NodePath
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.compiler.step_memory import Memory
from loom.streaming.errors import ErrorEnvelope, ErrorKind
from loom.streaming.flow import StreamFlow
from loom.streaming.message import Message
from loom.streaming.metrics import FlowCounts, FlowMetrics
from loom.streaming.record import KafkaRecord
from loom.streaming.runtime.assembly import MakeStage, Transport
from loom.streaming.runtime.build_options import BuildOptions
from loom.streaming.runtime.engine import Engine, available, load_engine
from loom.streaming.runtime.output_table import OutputTable
from loom.streaming.runtime.override_view import override_view
from loom.streaming.runtime.prepare import prepare
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.worker_source import OpenWorker
from loom.streaming.testing.capture import Captured
from loom.streaming.testing.config import with_kafka_sections
from loom.streaming.testing.counts import added
from loom.streaming.testing.in_memory import ManualClock, open_script, run_in_memory
from loom.streaming.testing.script import Key, Script

__all__ = ["StreamingTestRunner"]


class StreamingTestRunner:
    """Runs one flow in memory on payloads, messages or records, and keeps what comes out. Not thread-safe.

    A run reads what has been given since the last one and adds to the results; `reset` forgets both. The flow is compiled at
    the first run, and again after a `reset`.

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

    Args:
        flow: the flow.
        config: a complete config; the methods `from_…` fill in the Kafka sections.
    """

    _counts: FlowCounts
    #: that of the config, where it is installed here
    _engine: Engine

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
        """A runner with a config in which the Kafka sections may be missing, or with none.

        Args:
            flow: the flow.
            config: the config.
        """
        return cls(flow, with_kafka_sections(config, getattr(flow.source, "name", "")))

    @classmethod
    def from_yaml(cls, flow: StreamFlow[Any, Any], path: str | PathLike[str]) -> Self:
        """A runner with a config from a YAML file.

        Args:
            flow: the flow.
            path: the file.

        Raises:
            ConfigError: if it cannot be loaded.
        """
        return cls.from_flow(flow, ConfigContext.from_yaml(path))

    @classmethod
    def from_dict(cls, flow: StreamFlow[Any, Any], config: Mapping[str, Any]) -> Self:
        """A runner with a config from a mapping.

        Args:
            flow: the flow.
            config: the mapping.
        """
        return cls.from_flow(flow, config)

    def with_payloads(self, payloads: Iterable[Any], *, key: Callable[[Any], Key] | None = None) -> Self:
        """Add payloads to read, as messages of partition 0 of the source's first topic; the i-th has the id `test-<i>`.

        Args:
            payloads: what to read; may contain `Tombstone()`.
            key: makes the record key of a payload.
        """
        self._script.add_payloads(payloads, key)
        return self

    def with_messages(self, messages: Iterable[Message[Any]]) -> Self:
        """Add messages to read as they are; a key that is text becomes bytes, as on a broker.

        Args:
            messages: what to read.
        """
        self._script.add_messages(messages)
        return self

    def with_records(self, records: Iterable[KafkaRecord]) -> Self:
        """Add records to read, as bytes.

        Args:
            records: what to read; one without partition or offset gets the next of partition 0.
        """
        self._script.add_records(records)
        return self

    def advance(self, ms: int) -> Self:
        """Move time on between what has been given so far and what is given next.

        Time does not move otherwise, until the input is over: then it passes whatever records still wait for.

        Args:
            ms: milliseconds.
        """
        self._script.advance(ms)
        return self

    def with_batch_size(self, records: int) -> Self:
        """Pass at most this many records to the flow at once, instead of `kafka.consumer.batch_size`.

        Args:
            records: 1 or more.

        Raises:
            ValueError: for a number below 1.
        """
        if records < 1:
            raise ValueError(f"with_batch_size() takes at least 1 record, not {records}")
        self._batch_size = records
        return self

    def with_sinks(self) -> Self:
        """Open the storage sinks of the flow and write to them; `terminal` keeps the messages too."""
        self._real_sinks = True
        return self

    def capture_errors(self, *kinds: ErrorKind) -> Self:
        """Keep errors of some kinds if the flow has no route for them.

        Args:
            kinds: the kinds; all without an argument.
        """
        self._caught |= {choice(ErrorKind, kind, "capture_errors()") for kind in kinds or ErrorKind}
        return self

    def run(self) -> Self:
        """Read what was given, to its end, in this thread.

        Raises:
            CompilationError: if the flow does not compile.
            ConfigError: if the config does not fit.
            UnroutedRecordError: for an error whose kind is neither captured nor routed (unless the flow says
                `unrouted="drop"`); the exception of the step is its cause.
        """
        plan = self.plan
        clock, captured = self._clock, self._captured
        items = self._script.take(plan.source.topics[0])
        view = override_view(plan.source)
        size = self._batch_size or plan.source.settings.batch_size
        watched: list[OutputTable] = []

        def source(state: RunState, make_stage: MakeStage) -> OpenWorker:
            return lambda _index, _count: open_script(items, view, clock, size, state, make_stage)

        def watch(outlets: OutputTable) -> OutputTable:
            watched.append(captured.watch(plan, outlets, real_sinks=self._real_sinks))
            return watched[0]

        routed = {kind for route in plan.error_routes for kind in route.kinds}
        bridge = AsyncBridge()
        engine = self._engine
        built = engine.lower(
            plan,
            BuildOptions(
                error_sinks={kind: captured.error_sink() for kind in self._caught - routed},
                bridge=bridge,
                transport=Transport(view, source, lambda: captured.writers(watched[0]), watch),
                resumable=False,
            ),
        )
        try:
            run_in_memory(plan.name, built, engine)
        finally:
            bridge.shutdown()
            self._counts = added(self._counts, built.state.metrics.read())
        return self

    @property
    def plan(self) -> CompiledPlan:
        """The compiled flow.

        Files, directories and packages of the machine are not checked, nor are the sinks of the config.

        Raises:
            CompilationError: if the flow does not compile.
            ConfigError: if the config does not fit.
        """
        if self._plan is None:
            prepared = prepare(self._flow, self._config, None, elsewhere=True)
            self._plan, self._engine = prepared.plan, load_engine(available(prepared.section.engine))
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
        """What reached a topic or storage sink inside the process, in order.

        Args:
            path: the path of its node in the plan: `(1, 0, 0)` is the first node of the first branch of the second node.

        Raises:
            ValueError: if there is no terminal at that path.
        """
        known = (*self.plan.terminal_sinks, *self.plan.terminal_storage_sinks)
        if tuple(path) not in known:
            shown = ", ".join(map(str, known)) or "it has none"
            raise ValueError(f"{self.plan.name!r} has no terminal at {path}; its terminals: {shown}")
        return self._captured.messages[tuple(path)]

    def written(self, topic: str) -> list[KafkaRecord]:
        """What would have been written to a topic, as bytes; dead letters too.

        Args:
            topic: its physical name.
        """
        return self._captured.records[topic]

    @property
    def counts(self) -> FlowCounts:
        """The counters of all runs together."""
        return self._counts

    def reset(self) -> Self:
        """Forget input, results and compiled steps; ids start at `test-0` again. The settings of the runner stay.

        Steps, selectors and strategies that were given as instances are restored to their state before the first run: by
        their own `reset()` if they have one, otherwise attribute by attribute.

        Raises:
            CannotForgetError: for one that holds an iterator or a random generator, which cannot be restored.
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
