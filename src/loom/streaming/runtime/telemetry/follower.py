"""Works on the followed records of a batch, one at a time, each on its own while its span is the current one.

Hot path, in a way: between a hundred other records, code that runs once is not in the caches of the processor and takes several
times as long. So as little as possible is done here; the rest is done for all of them after the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import time_ns
from typing import Any

from loom.core.observability.spans import SpanError, Tracing
from loom.core.tracing import current_place
from loom.streaming.runtime.stages.node_timer import NodeTimer
from loom.streaming.runtime.stages.stage_io import Result
from loom.streaming.runtime.telemetry.followed_batch import Picked

__all__ = ["Follower"]

_be_current, _be_no_longer = current_place.set, current_place.reset


class Follower:
    """That of one stage. Used by its thread.

    Args:
        tracing: told of the span that is current.
        timer: that of the stage.
        results: where the stage collects.
    """

    __slots__ = (
        "_measures",
        "_note",
        "_origins",
        "_picked",
        "_results",
        "_shown",
        "_timer",
        "_tracing",
        "alone",
        "ends",
        "errors",
        "failed",
        "follows",
    )

    def __init__(self, tracing: Tracing, timer: NodeTimer, results: list[Result]) -> None:
        self._tracing = tracing
        self._timer = timer
        self._results = results
        self._note = timer.trail.append
        self._origins: Sequence[Any] = ()
        self._picked: Sequence[Picked] = ()
        #: the batch is timed; somebody can ask which span is the current one
        self._measures = self._shown = False
        #: the loop for a single record
        self.alone: Callable[[Sequence[Any]], None] = lambda _: None
        #: of each record that was followed, the end of its part of the trail, and how many results there were before and after
        self.ends: list[tuple[int, int, int]] = []
        #: of those that failed: the first error, and all by step. By the index of the record among those that are followed.
        self.errors: dict[int, tuple[SpanError, Mapping[str, SpanError]]] = {}
        #: a record is at work
        self.follows = False
        #: what has failed at which step while one was
        self.failed: list[tuple[str, BaseException]] = []

    def begin(self, origins: Sequence[Any], picked: Sequence[Picked], alone: Callable[[Sequence[Any]], None]) -> None:
        """A batch begins. Some of its records will be followed."""
        self._origins, self._picked, self.alone = origins, picked, alone
        self._measures, self._shown = self._timer.on, self._tracing.is_asked
        self.ends, self.errors = [], {}

    def first(self) -> Any:
        """The first record to be followed."""
        return self._origins[self._picked[0][0]]

    def work(self, origin: Any) -> Any:
        """Work on a record that is to be followed. Returns the next one; `None` after the last."""
        index, timer, note, results, shown = len(self.ends), self._timer, self._note, self._results, self._shown
        _, place, _, state = self._picked[index]
        before = len(results)
        token = self._tracing.enter(place, state) if shown else None
        said = _be_current(place)
        self.follows = timer.on = timer.follows = True
        note(time_ns())
        try:
            self.alone((origin,))
        except BaseException as error:
            self.errors[index] = SpanError.of(error, time_ns()), {}
            raise
        finally:
            note(time_ns())
            self.follows = timer.follows = False
            timer.on = self._measures
            _be_no_longer(said)
            if shown:
                self._tracing.leave(token)
            if self.failed:
                self._note_failure(index)
            self.ends.append((len(timer.trail), before, len(results)))
        index += 1
        return self._origins[self._picked[index][0]] if index < len(self._picked) else None

    def _note_failure(self, index: int) -> None:
        """The record has failed, which need not be what has ended the run."""
        now = time_ns()
        inner = {step: SpanError.of(error, now) for step, error in self.failed}
        self.failed = []
        first = self.errors[index][0] if index in self.errors else next(iter(inner.values()))
        self.errors[index] = first, inner
