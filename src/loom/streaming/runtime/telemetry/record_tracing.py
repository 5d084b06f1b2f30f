"""Follows sampled records through a stage: one span each, with a child for each node that it passes.

The loop over a batch knows nothing of it: a sampled record is handed to a loop of its own, between the others of its batch, so
order and results are what they would be without. Built only where an observer traces.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from time import monotonic, time_ns
from typing import Any

from msgspec.structs import replace

from loom.core.observability import ObservabilityRuntime
from loom.core.observability.spans import FinishedSpan, SpanError, Tracing
from loom.core.tracing import (
    TraceParent,
    current_place,
    format_traceparent,
    new_place,
    new_traces,
    parse_traceparent,
    place_of,
)
from loom.streaming.compiler.model import walk_nodes
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.errors import ErrorKind
from loom.streaming.headers import Headers
from loom.streaming.kafka.record_accessor import BatchHeaders, LostHeaders, RecordAccessor
from loom.streaming.kafka.record_headers import TRACEPARENT, rewritten
from loom.streaming.kafka.settings import HeaderPolicy
from loom.streaming.message import Message
from loom.streaming.record import TopicPartitionOffset
from loom.streaming.runtime.error_log import ErrorLog
from loom.streaming.runtime.output_table import OutputTable
from loom.streaming.runtime.stages.codegen import Watch, WorkOnRecord
from loom.streaming.runtime.stages.decode import BareHead, Head, of_one
from loom.streaming.runtime.stages.node_timer import NodeTimer
from loom.streaming.runtime.stages.stage_io import Result
from loom.streaming.runtime.telemetry.followed_batch import FollowedBatch, Picks, failed_span
from loom.streaming.runtime.telemetry.follower import Follower
from loom.streaming.runtime.telemetry.sampling import Sampler
from loom.streaming.runtime.telemetry.span_shapes import SpanShapes, shapes_of

__all__ = ["RecordTracer", "TracedErrors", "tracer_of"]

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
        self,
        tracing: Tracing,
        view: RecordAccessor,
        timer: NodeTimer,
        shapes: SpanShapes,
        bare: frozenset[int],
        *,
        gathers: bool,
    ) -> None:
        self._tracing = tracing
        self._timer = timer
        #: what the tracer has found out about the headers of a batch
        self._headers = BatchHeaders()
        #: access to the records of the stage, which need not find out the same
        self.view = self._view = replace(view, known=self._headers)
        self._follower = follower = Follower(tracing, timer)
        #: where a record was read
        self._found = view.coordinates or view.place
        #: what a loop asks for the records to follow
        self.watch = Watch(follower.first, follower.work)
        #: a node is at work on a batch with records that are followed
        self._in_batch = False
        self._shapes = shapes
        self._bare = bare
        #: whether records meet others in a node, after the loop
        self._gathers = gathers
        self._on_error = tracing.sampling.on_error
        self._sampler = Sampler(tracing.sampling.ratio)
        #: the records of the current batch
        self._origins: Sequence[Any] = ()
        #: the header with the trace of sampled records that a node may still hold, by the id of the record, which is held too
        self._remembered: OrderedDict[int, tuple[Any, bytes]] = OrderedDict()
        self._second, self._errors_in_second = 0, 0

    def head(
        self,
        plain: Head,
        timed: Head,
        followed: WorkOnRecord,
        watched: Head | None,
        bare: tuple[BareHead, BareHead] | None,
        results: list[Result],
    ) -> Head:
        """A loop over a batch that follows the sampled records of it.

        Args:
            plain: the loop that follows none.
            timed: the one of a batch that is timed, in which all records take it.
            followed: the work on a single record that is followed.
            watched: the plain loop that looks out for these by itself; without it the batch is split at each.
            bare: the plain and the watched loop for records without headers.
            results: where the stage collects.
        """
        headers, timer, follower = self._headers, self._timer, self._follower
        followed_and_timed = of_one(timed)

        def follow(origins: Sequence[Any], picks: Picks, loop: BareHead | None) -> Any:
            self._origins = origins
            measures = timer.on
            follower.begin(origins, picks, results, followed_and_timed if measures else followed)
            try:
                if loop is not None:
                    return loop(origins)
                return _split(origins, picks.at, timed if measures else plain, follower)
            finally:
                self._tell(results)

        def run(origins: Sequence[Any]) -> None:
            self._origins = origins
            drawn = self._sampler.of_batch(len(origins))
            if bare is not None and not timer.on:
                unwatched, looking = bare
                met = follow(origins, self._begun(origins, drawn), looking) if drawn else unwatched(origins)
                if met is None:
                    return
                done = next(at for at, origin in enumerate(origins) if origin is met)
                self._origins = origins = origins[done:]
                drawn = [at - done for at in drawn if at >= done]
                for at in drawn:
                    self._remembered.pop(id(origins[at]), None)
            picks = self._picked(origins, drawn)
            try:
                if picks is None:
                    (timed if timer.on else plain)(origins)
                else:
                    follow(origins, picks, None if timer.on else watched)
            finally:
                headers.absent = False

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
            follower, timer = self._follower, self._timer
            was, self._in_batch, before = self._in_batch, True, len(follower.failed)
            # What others than the followed record bring about is none of its path.
            follows, timer.follows = timer.follows, False
            shown = self._tracing.is_asked
            token = self._tracing.enter(place) if shown else None
            said = current_place.set(format_traceparent(place).encode())
            try:
                work(items)
            finally:
                current_place.reset(said)
                if shown:
                    self._tracing.leave(token)
                self._in_batch, timer.follows = was, follows
                failed = follower.failed[before:]
                del follower.failed[before:]
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
                results[index] = self._marked(result, (TRACEPARENT, found[1]))
        if not self._gathers:
            self._remembered.clear()

    def noticed(self, kind: ErrorKind, step: str, error: BaseException, place: TopicPartitionOffset) -> None:
        """A record has failed at a step."""
        if self._timer.follows or self._in_batch:
            self._follower.failed.append((step, error))
            return
        if not self._on_error or not self._may_tell_error():
            return
        now = time_ns()
        origin = next((origin for origin in self._origins if self._view.place(origin) == place), None)
        parent, state = self._trace_of(origin) if origin is not None else _NOBODY
        self._tracing.add(failed_span(error, step, place, parent, state, self._shapes, now))

    def _picked(self, origins: Sequence[Any], drawn: Sequence[int]) -> Picks | None:
        """The records to follow; `None` for none."""
        if not self._view.any_headers(origins):
            self._headers.absent = True
            return self._begun(origins, drawn) if drawn else None
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
        return self._noted(origins, _continued(sorted(traced), traced)) if traced else None

    def _begun(self, origins: Sequence[Any], drawn: Sequence[int]) -> Picks:
        """Those that were drawn of records without headers, each with a trace of its own."""
        ids, headers = new_traces(len(drawn))
        return self._noted(origins, Picks(drawn, ids, headers, list(zip(zip(repeat(TRACEPARENT), headers)))))

    def _noted(self, origins: Sequence[Any], picks: Picks) -> Picks:
        if self._gathers:
            # Before they are at work: one may be what fills a batch.
            for at, header in zip(picks.at, picks.headers, strict=True):
                self._remember(origins[at], header)
        return picks

    def _tell(self, results: list[Result]) -> None:
        """Hand over the spans of a batch, and let the results of their records carry the trace, those that do not yet."""
        follower, times = self._follower, self._timer.times
        for header, before, after in follower.unmarked:
            wanted = (TRACEPARENT, header)
            for index in range(before, after):
                results[index] = self._marked(results[index], wanted)
        picks = follower.picks
        places = list(map(self._found, [self._origins[at] for at in picks.at[: len(follower.ways)]]))
        self._tracing.add_all(FollowedBatch(self._shapes, picks, places, follower.ways, times, follower.errors))
        times.clear()

    def _marked(self, result: Result, wanted: tuple[str, bytes]) -> Result:
        slot, value, key, time_ms, headers, origin = result
        if isinstance(value, Message):
            value = value.with_headers(Headers(rewritten(Headers.of(value.meta.headers).pairs, dict((wanted,)))))
        elif slot not in self._bare and (value is None or isinstance(value, bytes)):
            headers = rewritten(Headers.of(headers).pairs, dict((wanted,))) if headers else (wanted,)
        return slot, value, key, time_ms, headers, origin

    def _remember(self, origin: Any, header: bytes) -> None:
        self._remembered[id(origin)] = (origin, header)
        if len(self._remembered) > _MOST_REMEMBERED:
            self._remembered.popitem(last=False)

    def _links(self, items: list[Any]) -> list[TraceParent]:
        known = self._remembered
        return [place_of(known[id(item[1])][1]) for item in items if id(item[1]) in known] if known else []

    def _trace_of(self, origin: Any) -> tuple[TraceParent | None, str | None]:
        try:
            found = self._view.headers(origin)
        except SystemError:
            found = self._view.lose(origin)
        if not found or found.__class__ is LostHeaders:
            return _NOBODY
        headers = Headers.of(found)
        parent = parse_traceparent(headers.get(TRACEPARENT) or b"")
        state = headers.get(_TRACESTATE) if parent is not None else None
        return parent, state.decode("ascii", "replace") if state else None

    def _may_tell_error(self) -> bool:
        second = int(monotonic())
        if second != self._second:
            self._second, self._errors_in_second = second, 0
        self._errors_in_second += 1
        return self._errors_in_second <= _MOST_ERRORS_PER_S


def _split(origins: Sequence[Any], picked: Sequence[int], rest: Head, follower: Follower) -> None:
    """A batch in which each record that is followed is handed over alone, between parts that are not."""
    done = 0
    for at in picked:
        if at > done:
            rest(origins[done:at])
        follower.work(origins[at])
        done = at + 1
    if done < len(origins):
        rest(origins[done:])


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
    plan: CompiledPlan,
    outputs: OutputTable,
    view: RecordAccessor,
    observability: ObservabilityRuntime,
    timer: NodeTimer | None,
) -> RecordTracer | None:
    """The tracer of one stage; `None` where no observer traces. `timer` is there where one does."""
    tracing = observability.tracing
    if tracing is None:
        return None
    assert timer is not None
    topics = outputs.topics()
    bare = {slot for slot, outlet in topics.items() if outlet.output.settings.headers is HeaderPolicy.NONE}
    return RecordTracer(
        tracing,
        view,
        timer,
        shapes_of(plan, outputs),
        frozenset(slot for slot in bare if not topics[slot].is_errors),
        gathers=any(node.gathers or node.waits for node in walk_nodes(plan.nodes)),
    )


def _continued(at: Sequence[int], traced: Mapping[int, tuple[TraceParent | None, str | None]]) -> Picks:
    """Records of which some came with a trace."""
    parents = [traced[index][0] for index in at]
    places = [new_place(parent) for parent in parents]
    return Picks(
        at,
        bytes.fromhex("".join([place.trace_id + place.parent_id for place in places])),
        [format_traceparent(place).encode() for place in places],
        [None] * len(at),
        parents,
        [traced[index][1] for index in at],
    )
