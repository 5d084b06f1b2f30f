"""The records of a batch that were followed: noted by the thread of the worker, made into spans by the one that sends them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from loom.core.observability.spans import FinishedSpan, SpanError, SpanRun
from loom.core.tracing import TraceParent, new_place
from loom.streaming.record import TopicPartitionOffset
from loom.streaming.runtime.telemetry.span_shapes import Coordinates, SpanShapes

__all__ = ["Failed", "Followed", "FollowedBatch", "Picked", "failed_span"]

#: what failed, by step
Failed: TypeAlias = Sequence[tuple[str, BaseException]]
#: one that will be followed: its index in the batch, its span, the trace that it came with, the `tracestate` of that, and headers
#: with its trace for its results, if these are known to inherit none
Picked: TypeAlias = tuple[int, TraceParent, TraceParent | None, str | None, tuple[tuple[str, bytes]] | None]
#: one that was: where it was read, its span, the trace that it came with, its `tracestate`, and the end of its part of
#: the trail
Followed: TypeAlias = tuple[Coordinates, TraceParent, TraceParent | None, str | None, int]

#: spans of records in a run, so that a request may end between two
_MOST_IN_RUN = 100


class FollowedBatch:
    """Those of one batch.

    Args:
        shapes: those of the flow.
        records: the records.
        trail: for each of them when it began, the nodes that it came to, each followed by the time, and when it ended; in
            nanoseconds since 1970.
        errors: of those that failed: the first one, and all by step. By the index of the record here.
    """

    __slots__ = ("_errors", "_records", "_shapes", "_trail")

    def __init__(
        self,
        shapes: SpanShapes,
        records: Sequence[Followed],
        trail: list[Any],
        errors: Mapping[int, tuple[SpanError, Mapping[str, SpanError]]],
    ) -> None:
        self._shapes = shapes
        self._records = records
        self._trail = trail
        self._errors = errors

    def __len__(self) -> int:
        return len(self._records)

    @property
    def spans(self) -> int:
        """How many spans they are: one for each record, and one for each node that it came to."""
        return len(self._trail) // 2

    def __iter__(self) -> Iterator[FinishedSpan | SpanRun]:
        """Records that took the same way together; those with what few have by themselves."""
        begin, trail, errors = 0, self._trail, self._errors
        runs: dict[Any, SpanRun] = {}
        for index, (found, place, parent, state, end) in enumerate(self._records):
            noted = trail[begin:end]
            begin = end
            path = tuple(noted[1:-1:2])
            topic, partition, offset = found
            if state is not None or offset is None or index in errors:
                yield self._single(index, path, noted)
                continue
            key = path, partition, topic, parent is None
            run = runs.get(key)
            if run is None:
                run = runs[key] = SpanRun(self._shapes.record(found), path)
            run.places.append(place)
            if parent is not None:
                run.parent_ids.append(parent.parent_id)
            run.values.append(offset)
            run.trail += noted
            if len(run.places) == _MOST_IN_RUN:
                yield runs.pop(key)
        yield from runs.values()

    def _single(self, index: int, path: tuple[str, ...], noted: list[Any]) -> FinishedSpan:
        found, place, parent, state, _ = self._records[index]
        first, inner = self._errors.get(index, _NOTHING)
        offset = found[2]
        return FinishedSpan(
            self._shapes.record(found),
            place,
            noted[0],
            noted[-1],
            0,
            None if parent is None else parent.parent_id,
            state,
            () if offset is None else (offset,),
            path,
            noted[2:-1:2],
            (),
            first,
            inner,
        )


_NOTHING: tuple[SpanError | None, Mapping[str, SpanError]] = None, {}


def failed_span(
    error: BaseException,
    step: str,
    found: TopicPartitionOffset,
    parent: TraceParent | None,
    state: str | None,
    shapes: SpanShapes,
    now: int,
) -> FinishedSpan:
    """The span of a record that has failed without having been followed."""
    told = SpanError.of(error, now)
    return FinishedSpan(
        shapes.record(found),
        new_place(parent),
        now,
        now,
        0,
        None if parent is None else parent.parent_id,
        state,
        () if found.offset is None else (found.offset,),
        (step,),
        [now],
        (),
        told,
        {step: told},
    )
