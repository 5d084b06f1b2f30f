"""Follows sampled records through a stage: one span each, with a child for each node that it passes.

The loop knows nothing of it: a sampled record is handed to the timed loop alone, between the others of its batch, so order and
results are what they would be without. Built only where an observer traces.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from time import monotonic, perf_counter_ns, time_ns
from typing import Any

from loom.core.observability import ObservabilityRuntime
from loom.core.observability.spans import FinishedSpan, SpanError, Tracing
from loom.core.tracing import TraceParent, current_place, format_traceparent, new_place, parse_traceparent
from loom.streaming.compiler.model import walk_nodes
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
from loom.streaming.runtime.telemetry.followed_record import FollowedRecord, failed_span
from loom.streaming.runtime.telemetry.sampling import Gaps
from loom.streaming.runtime.telemetry.span_shapes import SpanShapes, shapes_of

__all__ = ["RecordTracer", "TracedErrors", "tracer_of"]

Head = Callable[[Sequence[Any]], None]

_TRACESTATE = "tracestate"
_ORIGIN = 5
#: sampled records that are remembered, for the links of batches that they become a part of later
_MOST_REMEMBERED = 10_000
#: spans in a second of records that failed and were not sampled
_MOST_ERRORS_PER_S = 50
#: the trace of a record that comes without one
_NOBODY: tuple[TraceParent | None, str | None] = None, None


class RecordTracer:
    """The tracing of one stage. Used by its thread. Results of `bare` slots leave without headers."""

    def __init__(
        self, tracing: Tracing, view: RecordAccessor, shapes: SpanShapes, bare: frozenset[int], *, gathers: bool
    ) -> None:
        self._tracing = tracing
        self._view = view
        self._shapes = shapes
        self._bare = bare
        #: whether records meet others in a node, after the loop
        self._gathers = gathers
        self._on_error = tracing.sampling.on_error
        self._gaps = Gaps(tracing.sampling.ratio)
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
            picked = self._picked(origins)
            if not picked:
                rest(origins)
                return
            shown = self._tracing.is_asked
            done = 0
            try:
                for one in picked:
                    at = one.at
                    if at > done:
                        rest(origins[done:at])
                    self._follow(origins[at : at + 1], one, timed, timer, shown=shown)
                    done = at + 1
                if done < len(origins):
                    rest(origins[done:])
            finally:
                self._tell(origins, picked)

        return run

    def batch(self, step_id: str, work: Callable[[list[Any]], None]) -> Callable[[list[Any]], None]:
        """A node's work on a batch, as a span that is linked to those of the sampled records in it."""
        shape = self._shapes.batch(step_id)

        def run(items: list[Any]) -> None:
            links = self._links(items)
            if not links:
                work(items)
                return
            place, began = new_place(), time_ns()
            was, self._following, before = self._following, True, len(self._failed)
            trail = self._timer.pause() if self._timer is not None else None
            shown = self._tracing.is_asked
            token, said = self._tracing.enter(place) if shown else None, current_place.set(place)
            try:
                work(items)
            finally:
                current_place.reset(said)
                if shown:
                    self._tracing.leave(token)
                self._following = was
                if self._timer is not None:
                    self._timer.resume(trail)
                failed = self._failed[before:]
                del self._failed[before:]
                ended = time_ns()
                error = SpanError.of(failed[0][1], ended) if failed else None
                self._tracing.add(
                    FinishedSpan(shape, place, began, ended, values=(len(items),), links=links, error=error)
                )

        return run

    def mark(self, results: list[Result]) -> None:
        """Let results carry the trace of their records, those that became results after the loop."""
        if not self._remembered:
            return
        for index, result in enumerate(results):
            found = self._remembered.get(id(result[_ORIGIN]))
            if found is not None:
                results[index] = self._marked(result, _header_of(found[1]))
        if not self._gathers:
            self._remembered.clear()

    def noticed(self, kind: ErrorKind, step: str, error: BaseException, place: TopicPartitionOffset) -> None:
        """A record has failed at a step."""
        if self._following:
            self._failed.append((step, error))
            return
        if not self._on_error or not self._may_tell_error():
            return
        now = time_ns()
        origin = next((origin for origin in self._origins if self._view.place(origin) == place), None)
        parent, state = self._trace_of(origin) if origin is not None else _NOBODY
        self._tracing.add(failed_span(error, step, place, parent, state, self._shapes, now))

    def _picked(self, origins: Sequence[Any]) -> list[FollowedRecord]:
        """The records to follow, in order."""
        drawn = self._gaps.among(len(origins))
        if not self._view.any_headers(origins):
            picked = [FollowedRecord(at, None, None) for at in drawn]
        else:
            traced = dict.fromkeys(drawn, _NOBODY)
            for at, origin in enumerate(origins):
                parent, state = self._trace_of(origin)
                if parent is None:
                    continue
                if parent.sampled:
                    traced[at] = (parent, state)
                else:
                    # Whoever began the trace has decided against it.
                    traced.pop(at, None)
            picked = [FollowedRecord(at, *traced[at]) for at in sorted(traced)]
        if self._gathers:
            # Before they are at work: one may be what fills a batch.
            for one in picked:
                self._remember(origins[one.at], one.place)
        return picked

    def _follow(
        self, record: Sequence[Any], one: FollowedRecord, timed: Head, timer: NodeTimer, *, shown: bool
    ) -> None:
        """Work on one record, while its span is the current one for log lines, and for spans of the author's own."""
        one.before = len(self._results)
        token = self._tracing.enter(one.place, one.state) if shown else None
        said = current_place.set(one.place)
        self._following = True
        one.trail = timer.follow()
        one.begun = perf_counter_ns()
        try:
            timed(record)
        except BaseException as error:
            one.raised = error
            raise
        finally:
            one.ended = perf_counter_ns()
            timer.unfollow()
            self._following = False
            current_place.reset(said)
            if shown:
                self._tracing.leave(token)
            one.after = len(self._results)
            if self._failed:
                one.failed, self._failed = self._failed, []

    def _tell(self, origins: Sequence[Any], picked: list[FollowedRecord]) -> None:
        """Hand over the spans of a batch, and let the results of their records carry the trace."""
        clock = time_ns() - perf_counter_ns()
        place_of, shapes, add, results = self._view.place, self._shapes, self._tracing.add, self._results
        for one in picked:
            if not one.ended:
                # One before it has ended the run.
                return
            add(one.span(place_of(origins[one.at]), shapes, clock))
            if one.after > one.before:
                wanted = _header_of(one.place)
                for index in range(one.before, one.after):
                    results[index] = self._marked(results[index], wanted)

    def _marked(self, result: Result, wanted: tuple[str, bytes]) -> Result:
        slot, value, key, time_ms, headers, origin = result
        if isinstance(value, Message):
            value = value.with_headers(Headers(rewritten(Headers.of(value.meta.headers).pairs, dict((wanted,)))))
        elif slot not in self._bare and (value is None or isinstance(value, bytes)):
            headers = rewritten(Headers.of(headers).pairs, dict((wanted,))) if headers else (wanted,)
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

    def _may_tell_error(self) -> bool:
        second = int(monotonic())
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
    bare = {slot for slot, outlet in topics.items() if outlet.output.settings.headers is HeaderPolicy.NONE}
    return RecordTracer(
        tracing,
        view,
        shapes_of(plan, outputs),
        frozenset(slot for slot in bare if not topics[slot].is_errors),
        gathers=any(node.gathers or node.waits for node in walk_nodes(plan.nodes)),
    )


def _header_of(place: TraceParent) -> tuple[str, bytes]:
    return TRACEPARENT, format_traceparent(place).encode()
