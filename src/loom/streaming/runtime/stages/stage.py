"""Everything between source and sink as one batch function. `run` is the hot path: called by the adapter once per batch.

Each source client has a stage of its own, so only the author's steps are shared between worker threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Any, Protocol

from loom.streaming.errors import ErrorKind
from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.metrics import Counts
from loom.streaming.runtime.run_errors import ResourceError
from loom.streaming.runtime.stages.buffering import BufferingNodes
from loom.streaming.runtime.stages.codegen import Watch, WorkOnRecord
from loom.streaming.runtime.stages.failures import Failures
from loom.streaming.runtime.stages.node_input import Ancestors, Indexes, Item
from loom.streaming.runtime.stages.node_timer import NodeTimer
from loom.streaming.runtime.stages.reorder_buffer import ReorderBuffer
from loom.streaming.runtime.stages.services import StageServices
from loom.streaming.runtime.stages.stage_io import Result, SourceBatch, StageResults

__all__ = ["BatchScope", "Stage"]

_slot_of = itemgetter(0)
_ORIGIN = 5


class BatchScope(Protocol):
    """Resources that are opened for one batch."""

    def close(self, error: BaseException | None) -> None:
        """The batch is over, or has failed. Raises `ResourceError`."""


class TracesRecords(Protocol):
    """Follows sampled records through a stage."""

    @property
    def watch(self) -> Watch:
        """What a loop asks for the records to follow."""

    def head(
        self,
        plain: Callable[[Sequence[Any]], None],
        timed: Callable[[Sequence[Any]], None],
        followed: WorkOnRecord,
        watched: Callable[[Sequence[Any]], None] | None,
        bare: tuple[Callable[[Sequence[Any]], Any], Callable[[Sequence[Any]], Any]] | None,
        results: list[Result],
    ) -> Callable[[Sequence[Any]], None]:
        """A loop over a batch that follows some of its records."""

    def batch(self, step_id: str, work: Callable[[list[Item]], None]) -> Callable[[list[Item]], None]:
        """A node's work on a batch, told of where records that are followed are in it."""

    def mark(self, results: list[Result]) -> None:
        """Let results carry the trace of their records."""


class Stage:
    """One worker's work on the records of one source client."""

    def __init__(
        self, counts: Counts, names: tuple[str, ...], view: RecordAccessor, services: StageServices | None = None
    ) -> None:
        self.services = services or StageServices()
        self._held: list[Any] = []
        #: what is opened by a batch and closed at its end
        self.batch_scopes: list[BatchScope] = []
        #: called at the end of each batch
        self.batch_ends: list[Callable[[], None]] = []
        #: where a record was read
        self.place = view.place
        self._counts = counts
        self._names = names
        self._view = view
        self.results: list[Result] = []
        #: which child each result is of, where expansions and gathering nodes together could change the order of children
        self._children: list[Indexes] | None = None
        self._multiplies = False
        self._failures: Failures | None = None
        #: the slot that every result goes to which is no error, where there is but one
        self._only_output: int | None = None
        #: takes the records of one batch
        self.head: Callable[[Sequence[Any]], None] = lambda origins: None
        #: makes a record an error without working on it; set by who builds the stage
        self.refuse: Callable[[Exception, Any], None] | None = None
        #: what gathers records until the end of the engine's batch, the nearest to the source first
        self.flushes: list[Callable[[], None]] = []
        self.room = BufferingNodes()
        #: only where nodes keep records beyond their batch
        self.gate: ReorderBuffer | None = None
        self._timer: NodeTimer | None = None
        #: follows sampled records; set by who builds the stage
        self.tracer: TracesRecords | None = None
        self._timed_head: Callable[[Sequence[Any]], None] = self.head
        #: the end mark has been processed
        self.ending = False
        #: and nothing waits any more
        self.ended = False

    def prepare(
        self,
        failures: Failures,
        *,
        multiplies: bool,
        notes_children: bool,
        waits: bool,
        outputs: Collection[int],
    ) -> None:
        """Told by the builder before it builds: whether one record may have several results, come late, and go where."""
        self._failures = failures
        # Where nodes keep records, errors may be among the results long after they were made.
        self._only_output = next(iter(outputs)) if len(outputs) == 1 and not waits else None
        self._multiplies = multiplies
        if notes_children:
            self._children = []
        if waits:
            self.gate = ReorderBuffer(self._view, self._counts)

    def time_with(self, timer: NodeTimer, head: Callable[[Sequence[Any]], None]) -> None:
        """Time batches, those that the timer wants, with a head that tells it of each node."""
        self._timer, self._timed_head = timer, head

    def emitter(self, above: Ancestors) -> Callable[[Result], None]:
        """What takes the results of a place."""
        emit, noted, indexes = self.results.append, self._children, above.indexes
        if noted is None:
            return emit

        def emit_child(result: Result) -> None:
            emit(result)
            noted.append(indexes())

        return emit_child

    def run(self, batch: SourceBatch) -> StageResults:
        """Work on one batch; what it returns is in source order per output."""
        if not self.batch_scopes and not self.batch_ends:
            return self._run_timed(batch)
        try:
            results = self._run_timed(batch)
        except BaseException as error:
            for scope in reversed(self.batch_scopes):
                with suppress(ResourceError):  # the first error is the one that is reported
                    scope.close(error)
            raise
        for scope in reversed(self.batch_scopes):
            scope.close(None)
        for end in self.batch_ends:
            end()
        return results

    def close(self) -> None:
        """Release what the scopes of this stage hold, the last opened first. Called on the thread of the worker. Idempotent."""
        for held in reversed(self._held):
            self.services.lifetime.closed(held)
        self._held.clear()

    def hold(self, thing: Any, what: str, close: Callable[[], None]) -> None:
        """Note something that was opened for this stage and is closed with it, however the run ends."""
        self._held.append(thing)
        self.services.lifetime.opened(thing, what, close)

    def _run_timed(self, batch: SourceBatch) -> StageResults:
        timer = self._timer
        if timer is None or not timer.wants(batch.now):
            return self._run(batch, self.head)
        timer.start()
        try:
            results = self._run(batch, self._timed_head)
        except BaseException as error:
            timer.stop(batch.now, error)
            raise
        timer.stop(batch.now)
        return results

    def _run(self, batch: SourceBatch, head: Callable[[Sequence[Any]], None]) -> StageResults:
        origins, gate, room = batch.origins, self.gate, self.room
        room.now = batch.now
        if batch.gone is not None:
            if gate is not None:
                gate.forget(batch.gone.partitions)
            room.forget(batch.gone.partitions)
        if batch.leaving:
            room.leave(batch.leaving)
        if batch.discarded:
            room.discard(batch.discarded)
            if gate is not None:
                gate.discard(batch.discarded)
        if origins:
            if gate is not None:
                gate.arrive(origins)
            if batch.refused is None:
                head(origins)
            else:
                self._refuse(origins, batch.refused)
            self.flush()
        room.tick(batch.now)
        if batch.end is not None:
            self.ending = True
            room.end(batch.end)
        if self.ending:
            room.end_on()
            self.ended = room.kept() == 0
        if gate is not None:
            results = gate.passed(*self._taken(), self._failed())
            self._count_outputs(results)
            self._counts.read += len(origins)
        else:
            results = self._in_order(origins)
            self._count(origins, results)
        if self.tracer is not None:
            self.tracer.mark(results)
        return StageResults(results, room.safe(batch.positions), batch)

    def _refuse(self, origins: Sequence[Any], error: Exception) -> None:
        if self.refuse is None:
            raise error
        for origin in origins:
            self.refuse(error, origin)

    def flush(self) -> None:
        """Let everything that gathers records hand them on."""
        for flush in self.flushes:
            flush()

    def _taken(self) -> tuple[list[Result], list[Indexes] | None]:
        results = self.results.copy()
        self.results.clear()
        if self._children is None:
            return results, None
        children = self._children.copy()
        self._children.clear()
        return results, children

    def _in_order(self, origins: Sequence[Any]) -> list[Result]:
        results, children = self._taken()
        if not self.flushes or len(results) < 2:
            return results
        # A batch step lets others overtake the records it gathers; what leaves is put back in source order.
        place = {id(origin): index for index, origin in enumerate(origins)}
        if children is None:
            results.sort(key=lambda result: place.get(id(result[_ORIGIN]), -1))
            return results
        keys = [(place.get(id(result[_ORIGIN]), -1), child) for result, child in zip(results, children, strict=True)]
        return [results[index] for index in sorted(range(len(results)), key=keys.__getitem__)]

    def _failed(self) -> list[tuple[Any, ErrorKind]]:
        return self._failures.failed if self._failures is not None else []

    def _count_outputs(self, results: list[Result]) -> None:
        counts, names = self._counts, self._names
        if not results:
            return
        if self._only_output is not None and not (self._failures is not None and self._failures.emitted):
            counts.outputs[names[self._only_output]] += len(results)
            return
        for slot, count in Counter(map(_slot_of, results)).items():
            counts.outputs[names[slot]] += count

    def _count(self, origins: Sequence[Any], results: list[Result]) -> None:
        counts = self._counts
        failed = self._failed()
        counts.read += len(origins)
        self._count_outputs(results)
        if self._multiplies:
            first: dict[int, ErrorKind] = {}
            for origin, kind in failed:
                first.setdefault(id(origin), kind)
            written = len({id(result[_ORIGIN]) for result in results} - first.keys())
            kinds = list(first.values())
        else:
            # One result for each input: what did not become an error is written.
            kinds = [kind for _, kind in failed]
            written = len(results) - (self._failures.emitted if self._failures is not None else 0)
        if kinds:
            counts.inputs_failed.update(kinds)
        counts.inputs_written += written
        counts.inputs_dropped += len(origins) - written - len(kinds)
        if failed:
            failed.clear()
        if self._failures is not None:
            self._failures.emitted = 0
