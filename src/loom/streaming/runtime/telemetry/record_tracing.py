"""Follows sampled records through a stage: one span each, with a child for each node that it passes.

The loop knows nothing of it: a sampled record is handed to the timed loop alone, between the others of its batch, so order and
results are what they would be without. Built only where an observer traces.
"""

from __future__ import annotations

import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from loom.core.log_context import log_context
from loom.core.observability import ObservabilityRuntime
from loom.core.observability.spans import OpenSpan, SpanRole, Tracing
from loom.core.tracing import TraceParent, format_traceparent, parse_traceparent
from loom.streaming.compiler.model import walk_nodes
from loom.streaming.compiler.names import OUTPUT, child_id
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.errors import ErrorKind
from loom.streaming.headers import Headers
from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.kafka.record_headers import TRACEPARENT, rewritten
from loom.streaming.kafka.settings import HeaderPolicy
from loom.streaming.message import Message
from loom.streaming.record import TopicPartitionOffset
from loom.streaming.runtime.error_log import ErrorLog
from loom.streaming.runtime.output_table import OutputTable
from loom.streaming.runtime.stages.node_timer import NodeTimer
from loom.streaming.runtime.stages.stage_io import Result

__all__ = ["RecordTracer", "TracedErrors", "tracer_of"]

Head = Callable[[Sequence[Any]], None]

_TRACESTATE = "tracestate"
_ORIGIN = 5
#: sampled records that are remembered, for the links of batches that they become a part of later
_MOST_REMEMBERED = 10_000
#: spans in a second of records that failed and were not sampled
_MOST_ERRORS_PER_S = 50


class RecordTracer:
    """The tracing of one stage. Used by its thread.

    `topics` names the topic of each step id that writes one; results of `bare` slots leave without headers.
    """

    def __init__(
        self,
        tracing: Tracing,
        view: RecordAccessor,
        flow: str,
        group_id: str,
        topics: Mapping[str, str],
        bare: frozenset[int],
        *,
        gathers: bool,
    ) -> None:
        self._tracing = tracing
        self._view = view
        self._flow = flow
        self._group_id = group_id
        self._topics = topics
        self._bare = bare
        #: whether records meet others in a node, after the loop
        self._gathers = gathers
        self._ratio, self._on_error = tracing.sampling.ratio, tracing.sampling.on_error
        self._skip = self._next_skip()
        self._timer: NodeTimer | None = None
        self._results: list[Result] = []
        #: what failed while a record was followed
        self._failed: list[tuple[str, BaseException]] = []
        self._following = False
        #: the records of the current batch
        self._origins: Sequence[Any] = ()
        #: the place of sampled records that a node may still hold, by the id of the record, which is held too
        self._remembered: OrderedDict[int, tuple[Any, TraceParent]] = OrderedDict()
        self._second, self._errors_in_second = 0, 0

    def head(self, plain: Head, timed: Head, timer: NodeTimer, results: list[Result]) -> Head:
        """A loop over a batch that follows the sampled records of it. `results` is where the stage collects."""
        self._timer, self._results = timer, results

        def run(origins: Sequence[Any]) -> None:
            self._origins = origins
            # In a batch that is timed anyway, all records take the timed loop.
            rest = timed if timer.on else plain
            done = 0
            for at, parent, state in self._picked(origins):
                if at > done:
                    rest(origins[done:at])
                self._follow(origins[at], parent, state, timed, timer)
                done = at + 1
            if done == 0:
                rest(origins)
            elif done < len(origins):
                rest(origins[done:])

        return run

    def batch(self, step_id: str, work: Callable[[list[Any]], None]) -> Callable[[list[Any]], None]:
        """A node's work on a batch, as a span that is linked to those of the sampled records in it."""

        def run(items: list[Any]) -> None:
            links = self._links(items)
            if not links:
                work(items)
                return
            attributes = {"loom.flow": self._flow, "loom.step": step_id, "messaging.batch.message_count": len(items)}
            span = self._tracing.begin(step_id, SpanRole.INTERNAL, time.time_ns(), attributes, links=links)
            was, self._following, before = self._following, True, len(self._failed)
            trail = self._timer.pause() if self._timer is not None else None
            try:
                with log_context(trace_id=span.place.trace_id, span_id=span.place.parent_id):
                    work(items)
            finally:
                self._following = was
                if self._timer is not None:
                    self._timer.resume(trail)
                failed = self._failed[before:]
                del self._failed[before:]
                span.end(time.time_ns(), failed[0][1] if failed else None)

        return run

    def mark(self, results: list[Result]) -> None:
        """Let results carry the trace of their records, those that became results after the loop."""
        if not self._remembered:
            return
        for index, result in enumerate(results):
            found = self._remembered.get(id(result[_ORIGIN]))
            if found is not None:
                results[index] = self._marked(result, found[1])
        if not self._gathers:
            self._remembered.clear()

    def noticed(self, kind: ErrorKind, step: str, error: BaseException, place: TopicPartitionOffset) -> None:
        """A record has failed at a step."""
        if self._following:
            self._failed.append((step, error))
            return
        if not self._on_error or not self._may_tell_error():
            return
        now = time.time_ns()
        origin = next((origin for origin in self._origins if self._view.place(origin) == place), None)
        parent, state = self._trace_of(origin) if origin is not None else (None, None)
        span = self._tracing.begin(
            self._name(place), SpanRole.CONSUMER, now, self._about(place), parent=parent, state=state
        )
        span.child(step, SpanRole.INTERNAL, now, now, {"loom.flow": self._flow, "loom.step": step}, error)
        span.end(now, error)

    def _picked(self, origins: Sequence[Any]) -> Iterable[tuple[int, TraceParent | None, str | None]]:
        """The records to follow, each with the trace that it came with."""
        picked: dict[int, tuple[TraceParent | None, str | None]] = {}
        while self._skip < len(origins):
            picked[self._skip] = (None, None)
            self._skip += 1 + self._next_skip()
        self._skip -= len(origins)
        if self._view.any_headers(origins):
            for at, origin in enumerate(origins):
                parent, state = self._trace_of(origin)
                if parent is None:
                    continue
                if parent.sampled:
                    picked[at] = (parent, state)
                else:
                    # Whoever began the trace has decided against it.
                    picked.pop(at, None)
        return [(at, *picked[at]) for at in sorted(picked)]

    def _follow(
        self, origin: Any, parent: TraceParent | None, state: str | None, timed: Head, timer: NodeTimer
    ) -> None:
        place = self._view.place(origin)
        begun, clock = time.time_ns(), time.perf_counter_ns()
        span = self._tracing.begin(
            self._name(place), SpanRole.CONSUMER, begun, self._about(place), parent=parent, state=state
        )
        if self._gathers:
            # Before it is at work: it may be the one that fills a batch.
            self._remember(origin, span.place)
        before, self._following = len(self._results), True
        raised: BaseException | None = None
        trail = timer.follow()
        try:
            with log_context(trace_id=span.place.trace_id, span_id=span.place.parent_id):
                timed((origin,))
        except BaseException as error:
            raised = error
            raise
        finally:
            self._following = False
            timer.unfollow()
            ended = time.perf_counter_ns()
            self._tell(span, trail, ended, begun - clock, raised)
            for index in range(before, len(self._results)):
                self._results[index] = self._marked(self._results[index], span.place)

    def _tell(
        self, span: OpenSpan, trail: list[tuple[str, int]], ended: int, shift: int, raised: BaseException | None
    ) -> None:
        failed = dict(self._failed)
        first = raised or (self._failed[0][1] if self._failed else None)
        self._failed.clear()
        for at, (step, began) in enumerate(trail):
            until = trail[at + 1][1] if at + 1 < len(trail) else ended
            topic = self._topics.get(step)
            attributes: dict[str, Any] = {"loom.flow": self._flow, "loom.step": step}
            name, role = step, SpanRole.INTERNAL
            if topic is not None:
                name, role = f"send {topic}", SpanRole.PRODUCER
                attributes |= _messaging("send", topic)
            span.child(name, role, began + shift, until + shift, attributes, failed.pop(step, None))
        for step, error in failed.items():
            attributes = {"loom.flow": self._flow, "loom.step": step}
            span.child(step, SpanRole.INTERNAL, ended + shift, ended + shift, attributes, error)
        span.end(ended + shift, first)

    def _marked(self, result: Result, place: TraceParent) -> Result:
        slot, value, key, time_ms, headers, origin = result
        wanted = {TRACEPARENT: format_traceparent(place).encode()}
        if isinstance(value, Message):
            value = value.with_headers(Headers(rewritten(Headers.of(value.meta.headers).pairs, wanted)))
        elif slot not in self._bare and (value is None or isinstance(value, bytes)):
            headers = rewritten(Headers.of(headers).pairs if headers else (), wanted)
        return slot, value, key, time_ms, headers, origin

    def _remember(self, origin: Any, place: TraceParent) -> None:
        self._remembered[id(origin)] = (origin, place)
        if len(self._remembered) > _MOST_REMEMBERED:
            self._remembered.popitem(last=False)

    def _links(self, items: list[Any]) -> list[TraceParent]:
        known = self._remembered
        return [known[id(item[1])][1] for item in items if id(item[1]) in known] if known else []

    def _trace_of(self, origin: Any) -> tuple[TraceParent | None, str | None]:
        if self._view.has_lost(origin) or not self._view.has_headers(origin):
            return None, None
        headers = Headers.of(self._view.headers(origin))
        parent = parse_traceparent(headers.get(TRACEPARENT) or b"")
        state = headers.get(_TRACESTATE) if parent is not None else None
        return parent, state.decode("ascii", "replace") if state else None

    def _name(self, place: TopicPartitionOffset) -> str:
        return f"process {place.topic}"

    def _about(self, place: TopicPartitionOffset) -> dict[str, Any]:
        about = {**_messaging("process", place.topic or ""), "messaging.consumer.group.name": self._group_id}
        if place.partition is not None:
            about["messaging.destination.partition.id"] = str(place.partition)
        if place.offset is not None:
            about["messaging.kafka.offset"] = place.offset
        return {**about, "loom.flow": self._flow}

    def _next_skip(self) -> int:
        """How many records pass before the next one is sampled: one draw for many records."""
        if self._ratio >= 1:
            return 0
        if self._ratio <= 0:
            return 1 << 62
        return int(math.log(1 - random.random()) / math.log(1 - self._ratio))

    def _may_tell_error(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._errors_in_second = second, 0
        self._errors_in_second += 1
        return self._errors_in_second <= _MOST_ERRORS_PER_S


class TracedErrors(ErrorLog):
    """Tells a tracer of failed records, and the log of the run as well."""

    def __init__(self, log: ErrorLog, tracer: RecordTracer) -> None:
        super().__init__()
        self._inner = log
        self._tracer = tracer

    def notice(
        self, kind: ErrorKind, step: str, error: BaseException, at: str | None, place: TopicPartitionOffset
    ) -> None:
        """A record failed at a step."""
        self._tracer.noticed(kind, step, error, place)
        self._inner.notice(kind, step, error, at, place)


def tracer_of(
    plan: CompiledPlan, outputs: OutputTable, view: RecordAccessor, observability: ObservabilityRuntime
) -> RecordTracer | None:
    """The tracer of one stage; `None` where no observer traces."""
    tracing = observability.tracing
    if tracing is None:
        return None
    topics = outputs.topics()
    written: dict[str, str] = {outlet.output.step_id: outlet.output.topic for outlet in topics.values()}
    if plan.output is not None:
        # In the loop, the end of the flow goes by this name.
        written[child_id(plan.name, OUTPUT)] = plan.output.topic
    bare = {slot for slot, outlet in topics.items() if outlet.output.settings.headers is HeaderPolicy.NONE}
    nodes = list(walk_nodes(plan.nodes))
    return RecordTracer(
        tracing,
        view,
        plan.name,
        plan.source.settings.group_id,
        written,
        frozenset(slot for slot in bare if not topics[slot].is_errors),
        gathers=any(node.gathers or node.waits for node in nodes),
    )


def _messaging(operation: str, topic: str) -> dict[str, Any]:
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": topic,
    }
