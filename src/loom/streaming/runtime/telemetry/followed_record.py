"""A record that is followed through the loop over its batch. Made before the batch, filled in on the way, told of after it.

While the record is at work as little as possible is done: between a hundred others, code that runs once is not in the caches of
the processor and takes several times as long. What can wait is done for all followed records of the batch together.
"""

from __future__ import annotations

from loom.core.observability.spans import FinishedSpan, Lap, SpanError
from loom.core.tracing import TraceParent, new_place
from loom.streaming.record import TopicPartitionOffset
from loom.streaming.runtime.telemetry.span_shapes import SpanShapes

__all__ = ["FollowedRecord", "failed_span"]


class FollowedRecord:
    """One record on its way through a stage.

    Args:
        at: its index in the batch.
        parent: the trace that it came with, and the `tracestate` of that.
        state: see `parent`.
    """

    __slots__ = ("after", "at", "before", "begun", "ended", "failed", "parent", "place", "raised", "state", "trail")

    def __init__(self, at: int, parent: TraceParent | None, state: str | None) -> None:
        self.at = at
        self.parent = parent
        self.state = state
        self.place = new_place(parent)
        #: nanoseconds; nothing has been done with it as long as it has no end
        self.begun = self.ended = 0
        #: the nodes it came to, each with the time
        self.trail: list[Lap] = []
        #: how many results there were before it, and after it
        self.before = self.after = 0
        #: what failed, by step
        self.failed: list[tuple[str, BaseException]] | None = None
        #: what ended the run
        self.raised: BaseException | None = None

    def span(self, found: TopicPartitionOffset, shapes: SpanShapes, clock: int) -> FinishedSpan:
        """Its span.

        Args:
            found: where it was read.
            shapes: those of its flow.
            clock: what makes its times nanoseconds since 1970.
        """
        parent, offset = self.parent, found.offset
        shape, values = shapes.record(found), (() if offset is None else (offset,))
        above = None if parent is None else parent.parent_id
        begun, ended = self.begun, self.ended
        if self.failed is None and self.raised is None:
            return FinishedSpan(shape, self.place, begun, ended, clock, above, self.state, values, self.trail)
        inner = {step: SpanError.of(error, ended) for step, error in self.failed or ()}
        first = next(iter(inner.values())) if self.raised is None else SpanError.of(self.raised, ended)
        return FinishedSpan(
            shape, self.place, begun, ended, clock, above, self.state, values, self.trail, (), first, inner
        )


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
    one = FollowedRecord(0, parent, state)
    one.begun = one.ended = now
    one.trail = [(step, now)]
    one.failed = [(step, error)]
    return one.span(found, shapes, 0)
