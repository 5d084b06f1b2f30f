"""The records of a batch that were followed, and the spans that become of them. Used by the thread of the worker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, repeat
from typing import Any, NamedTuple, TypeAlias

from loom.core.observability.spans import MOST_IN_RUN, FinishedSpan, SpanError, SpanRun
from loom.core.tracing import TraceParent, ids_of_each, new_place, place_of
from loom.streaming.record import TopicPartitionOffset
from loom.streaming.runtime.telemetry.span_shapes import Coordinates, SpanShapes

__all__ = ["Errors", "Failed", "FollowedBatch", "Picks", "failed_span"]

#: records in a run, so that a request may end between two
_MOST_RECORDS = 200
#: of the trace and the span of a record
_ID_BYTES = 24

#: what failed, by step
Failed: TypeAlias = Sequence[tuple[str, BaseException]]
#: of those that failed: the first error, and all by step. By the number of the record among those that were followed.
Errors: TypeAlias = Mapping[int, tuple[SpanError, Mapping[str, SpanError]]]


class Picks(NamedTuple):
    """The records of a batch that will be followed, in order, by columns."""

    #: their indices in the batch
    at: Sequence[int]
    #: of each its trace and its span, 24 bytes
    ids: bytes
    #: the `traceparent` headers that name their spans
    headers: Sequence[bytes]
    #: headers with their traces for their results, `None` where a record may have others; of all of them, or nothing at all
    traced: Sequence[tuple[tuple[str, bytes]] | None]
    #: the traces that they came with, and the `tracestate` of these; empty if none came with one
    parents: Sequence[TraceParent | None] = ()
    states: Sequence[str | None] = ()


class FollowedBatch:
    """Those of one batch.

    Args:
        shapes: those of the flow.
        picks: what was decided before.
        places: where they were read.
        ways: the nodes that they came to. The last of `picks` have none if the run has ended before them.
        times: of each of them the time at each of these nodes, and that of the end.
        errors: of those that failed.
    """

    __slots__ = ("_errors", "_parts", "_picks", "_places", "_shapes", "_times", "_ways")

    def __init__(
        self,
        shapes: SpanShapes,
        picks: Picks,
        places: Sequence[Coordinates],
        ways: Sequence[tuple[str, ...]],
        times: Sequence[int],
        errors: Errors,
    ) -> None:
        self._shapes = shapes
        self._picks = picks
        self._places = places
        self._ways = ways
        self._times = times
        self._errors = errors
        self._parts: tuple[list[bytes], list[int]] | None = None

    def __len__(self) -> int:
        return len(self._ways)

    @property
    def spans(self) -> int:
        """How many spans they are: one for each record, and one for each node that it came to."""
        return len(self._times)

    def __iter__(self) -> Iterator[FinishedSpan | SpanRun]:
        """Records that took the same way together; those with what few have by themselves."""
        if not self._ways:
            return
        topics, partitions, offsets = zip(*self._places, strict=True)
        parents = self._picks.parents
        continued = [parent is not None for parent in parents] if parents else repeat(False)
        keys = list(zip(topics, partitions, self._ways, continued, strict=False))
        apart = self._apart(offsets)
        for at in sorted(apart):
            yield self._single(at)
        if not apart and len(set(keys)) == 1:
            groups: list[Sequence[int]] = [range(len(keys))]
        else:
            found: defaultdict[Any, list[int]] = defaultdict(list)
            for at, key in enumerate(keys):
                if at not in apart:
                    found[key].append(at)
            groups = [*found.values()]
        for group in groups:
            for begin in range(0, len(group), _MOST_RECORDS):
                yield self._run(group[begin : begin + _MOST_RECORDS], offsets)

    def _apart(self, offsets: Sequence[int | None]) -> set[int]:
        """Those with what few have."""
        apart = set(self._errors)
        if None in offsets or min(offsets) < 0 or max(offsets) >= MOST_IN_RUN:  # type: ignore[type-var, operator]
            apart |= {at for at, offset in enumerate(offsets) if offset is None or not 0 <= offset < MOST_IN_RUN}
        if any(self._picks.states):
            apart |= {at for at, state in enumerate(self._picks.states) if state}
        return apart

    def _run(self, group: Sequence[int], offsets: Sequence[Any]) -> SpanRun:
        """A run of some of them, at least one."""
        times, parents, path = self._times, self._picks.parents, self._ways[group[0]]
        ids = self._picks.ids[: _ID_BYTES * len(self._ways)]
        each = len(path) + 1
        if len(group) != len(self._ways):
            known, ends = self._by_record()
            ids = b"".join([known[at] for at in group])
            times = [time for at in group for time in times[ends[at] - each : ends[at]]]
            offsets = [offsets[at] for at in group]
        parent_ids = [parent.parent_id for parent in (parents[at] for at in group if parents) if parent is not None]
        return SpanRun(
            self._shapes.record(self._places[group[0]]),
            path,
            ids,
            offsets,
            [times[at::each] for at in range(each)],
            parent_ids,
        )

    def _by_record(self) -> tuple[list[bytes], list[int]]:
        """The ids of each of them, and where its times end; needed if not all are alike."""
        if self._parts is None:
            self._parts = ids_of_each(self._picks.ids), list(accumulate(len(way) + 1 for way in self._ways))
        return self._parts

    def _single(self, index: int) -> FinishedSpan:
        picks, found = self._picks, self._places[index]
        path, end = self._ways[index], self._by_record()[1][index]
        *times, ended = self._times[end - len(path) - 1 : end]
        parent = picks.parents[index] if picks.parents else None
        first, inner = self._errors.get(index, _NOTHING)
        offset = found[2]
        return FinishedSpan(
            self._shapes.record(found),
            place_of(picks.headers[index]),
            times[0] if times else ended,
            ended,
            0,
            None if parent is None else parent.parent_id,
            picks.states[index] if picks.states else None,
            () if offset is None else (offset,),
            path,
            times,
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
