"""Works on the followed records of a batch, one at a time, each on its own while its span is the current one.

Hot path, in a way: between a hundred other records, code that runs once is not in the caches of the processor and takes several
times as long. So little is done here, and only what cannot be done for all of them before or after the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from time import time_ns
from typing import Any

from loom.core.observability.spans import SpanError, Tracing
from loom.core.tracing import current_place, place_of
from loom.streaming.runtime.stages.codegen import WorkOnRecord
from loom.streaming.runtime.stages.node_timer import NodeTimer
from loom.streaming.runtime.stages.stage_io import Result
from loom.streaming.runtime.telemetry.followed_batch import Picks

__all__ = ["Follower"]

_be_current, _be_no_longer = current_place.set, current_place.reset
_NO_PICKS = Picks((), b"", (), ())


class Follower:
    """That of one stage. Used by its thread.

    Args:
        tracing: told of the span that is current.
        timer: that of the stage.
    """

    __slots__ = (
        "_alone",
        "_first",
        "_measures",
        "_results",
        "_timer",
        "_tracing",
        "_upcoming",
        "_whole",
        "errors",
        "failed",
        "picks",
        "unmarked",
        "ways",
    )

    def __init__(self, tracing: Tracing, timer: NodeTimer) -> None:
        self._tracing = tracing
        self._timer = timer
        self._results: list[Result] = []
        self._first: Any = None
        #: of the next one its header, headers for its results, and the record after it
        self._upcoming: Callable[[], tuple[bytes, Any, Any]] = iter(()).__next__
        #: the work on a single record, and the same where others have to know which one is at work
        self._alone: WorkOnRecord = _nothing
        self._whole: WorkOnRecord = _nothing
        #: the batch is timed
        self._measures = False
        #: those of the batch
        self.picks = _NO_PICKS
        #: of those that were followed, the nodes that they came to; the times are those of the timer
        self.ways: list[tuple[str, ...]] = []
        #: results that may not carry the trace of their record yet: the header with it, and how many there were before and after
        self.unmarked: list[tuple[bytes, int, int]] = []
        #: of those that failed: the first error, and all by step. By their number among those that were followed.
        self.errors: dict[int, tuple[SpanError, Mapping[str, SpanError]]] = {}
        #: what has failed at which step while one was at work
        self.failed: list[tuple[str, BaseException]] = []

    def begin(self, origins: Sequence[Any], picks: Picks, results: list[Result], alone: WorkOnRecord) -> None:
        """A batch begins. Some of its records will be followed.

        Args:
            origins: the batch.
            picks: those, at least one.
            results: where the stage collects.
            alone: the work on a single record.
        """
        ahead: Iterator[Any] = iter([origins[at] for at in picks.at])
        self._first = next(ahead)
        self._upcoming = zip(picks.headers, picks.traced, chain(ahead, (None,)), strict=True).__next__
        self._results, self._whole, self._measures = results, alone, self._timer.on
        self._alone = self._shown if self._tracing.is_asked else alone
        self.picks, self.ways, self.unmarked, self.errors = picks, [], [], {}

    def first(self) -> Any:
        """The first record to be followed."""
        return self._first

    def work(self, origin: Any) -> Any:
        """Work on a record that is to be followed. Returns the next one; `None` after the last."""
        header, traced, after = self._upcoming()
        before, timer, way = len(self._results), self._timer, None
        said = _be_current(header)
        timer.on = timer.follows = True
        try:
            way = self._alone(origin, traced)
        except BaseException as error:
            self.errors[len(self.ways)] = SpanError.of(error, time_ns()), {}
            raise
        finally:
            timer.follows = False
            timer.on = self._measures
            _be_no_longer(said)
            if way is None or traced is None or self.failed:
                way = self._unusual(way, header, before)
            self.ways.append(way)
        return after

    def _shown(self, origin: Any, traced: Any) -> tuple[str, ...] | None:
        """Work on a record while somebody can ask which span is the current one."""
        at, picks = len(self.ways), self.picks
        token = self._tracing.enter(place_of(picks.headers[at]), picks.states[at] if picks.states else None)
        try:
            return self._whole(origin, traced)
        finally:
            self._tracing.leave(token)

    def _unusual(self, way: tuple[str, ...] | None, header: bytes, before: int) -> tuple[str, ...]:
        """A record whose way others have told of, that has failed, or whose results do not carry its trace yet."""
        now, trail = time_ns(), self._timer.trail
        self.unmarked.append((header, before, len(self._results)))
        if self.failed:
            index = len(self.ways)
            inner = {step: SpanError.of(error, now) for step, error in self.failed}
            self.failed = []
            first = self.errors[index][0] if index in self.errors else next(iter(inner.values()))
            self.errors[index] = first, inner
        if way is None:
            way = tuple(trail[0::2])
            self._timer.times += (*trail[1::2], now)
            trail.clear()
        return way


def _nothing(_origin: Any, _traced: Any) -> None:
    """Before there is a batch."""
