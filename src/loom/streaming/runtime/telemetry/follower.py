"""Works on the followed records of a batch, one at a time, each on its own while its span is the current one.

Hot path, in a way: between a hundred other records, code that runs once is not in the caches of the processor and takes several
times as long. So little is done here, and only what needs the record, which is in the caches now and no longer after the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import time_ns
from typing import Any

from loom.core.observability.spans import SpanError, Tracing
from loom.core.tracing import TraceParent, current_place
from loom.streaming.runtime.stages.codegen import WorkOnRecord
from loom.streaming.runtime.stages.node_timer import NodeTimer
from loom.streaming.runtime.stages.stage_io import Result
from loom.streaming.runtime.telemetry.followed_batch import Followed, Picked
from loom.streaming.runtime.telemetry.span_shapes import Coordinates

__all__ = ["Follower"]

_be_current, _be_no_longer = current_place.set, current_place.reset
_HEADERS = 4


class Follower:
    """That of one stage. Used by its thread.

    Args:
        tracing: told of the span that is current.
        timer: that of the stage.
        found: where a record was read.
    """

    __slots__ = (
        "_alone",
        "_current",
        "_found",
        "_left",
        "_measures",
        "_note",
        "_origins",
        "_results",
        "_shown",
        "_timer",
        "_tracing",
        "errors",
        "failed",
        "records",
        "unmarked",
    )

    def __init__(self, tracing: Tracing, timer: NodeTimer, found: Callable[[Any], Coordinates]) -> None:
        self._tracing = tracing
        self._timer = timer
        self._found = found
        self._note = timer.trail.append
        self._origins: Sequence[Any] = ()
        self._results: list[Result] = []
        #: the record to be followed next, and those after it
        self._current: Picked | None = None
        self._left: Iterator[Picked] = iter(())
        #: the work on a single record
        self._alone: WorkOnRecord = lambda _origin, _traced: None
        #: the batch is timed; somebody can ask which span is the current one
        self._measures = self._shown = False
        #: those that were followed
        self.records: list[Followed] = []
        #: results that do not carry the trace of their record yet: its place, and how many there were before and after
        self.unmarked: list[tuple[TraceParent, int, int]] = []
        #: of those that failed: the first error, and all by step. By the index of the record in `records`.
        self.errors: dict[int, tuple[SpanError, Mapping[str, SpanError]]] = {}
        #: what has failed at which step while one was at work
        self.failed: list[tuple[str, BaseException]] = []

    def begin(
        self, origins: Sequence[Any], picked: Sequence[Picked], results: list[Result], alone: WorkOnRecord
    ) -> None:
        """A batch begins. Some of its records will be followed.

        Args:
            origins: the batch.
            picked: those, at least one.
            results: where the stage collects.
            alone: the work on a single record.
        """
        self._origins, self._results, self._alone = origins, results, alone
        self._left = iter(picked)
        self._current = next(self._left)
        self._measures, self._shown = self._timer.on, self._tracing.is_asked
        self.records, self.unmarked, self.errors = [], [], {}

    def first(self) -> Any:
        """The first record to be followed."""
        return None if self._current is None else self._origins[self._current[0]]

    def work(self, origin: Any) -> Any:
        """Work on a record that is to be followed. Returns the next one; `None` after the last."""
        current = self._current
        assert current is not None
        _, place, parent, state, traced = current
        timer, note, results, shown = self._timer, self._note, self._results, self._shown
        before = len(results)
        token = self._tracing.enter(place, state) if shown else None
        said = _be_current(place)
        timer.on = timer.follows = True
        note(time_ns())
        try:
            self._alone(origin, traced)
        except BaseException as error:
            self.errors[len(self.records)] = SpanError.of(error, time_ns()), {}
            raise
        finally:
            note(time_ns())
            timer.follows = False
            timer.on = self._measures
            _be_no_longer(said)
            if shown:
                self._tracing.leave(token)
            if self.failed:
                self._note_failure()
            if traced is None or len(results) != before + 1 or results[before][_HEADERS] is not traced:
                self.unmarked.append((place, before, len(results)))
            self.records.append((self._found(origin), place, parent, state, len(timer.trail)))
        self._current = current = next(self._left, None)
        return None if current is None else self._origins[current[0]]

    def _note_failure(self) -> None:
        """The record has failed, which need not be what has ended the run."""
        now, index = time_ns(), len(self.records)
        inner = {step: SpanError.of(error, now) for step, error in self.failed}
        self.failed = []
        first = self.errors[index][0] if index in self.errors else next(iter(inner.values()))
        self.errors[index] = first, inner
