"""What goes into a stage and what comes out: the interface between source, stage and sink.

Hot path: one `SourceBatch` and one `StageResults` per batch; per record only the result tuple.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol, TypeAlias

from loom.streaming.record import TopicPartition
from loom.streaming.runtime.epochs import InFlight, Mark

__all__ = ["EndMark", "GoneLogs", "Positions", "Result", "RunsBatches", "SourceBatch", "StageResults"]

#: offsets of the next record to read, by partition
Positions: TypeAlias = Mapping[TopicPartition, int]

#: (slot, value, key, timestamp in ms (None: the time of writing), header pairs or None, origin). The slot is a place in the
#: plan's table of outlets; `value` is bytes or `None` for a topic, and a message or error envelope for a hosted sink. The
#: origin is the record as its source handed it over.
Result: TypeAlias = tuple[int, Any, bytes | None, int | None, Any, Any]


class EndMark(Enum):
    """The reason of an end. It decides what happens to records that still wait."""

    INPUT = "input"  #: the input is over: what waits is emitted
    STOP = "stop"  #: a stop was requested: what waits stays uncommitted


class GoneLogs:
    """Partitions whose log is gone, since their topic was deleted or recreated. Travels with a batch, from source to sink.

    Positions that come before it belong to the old log, those that come with it or later to the new one, if there is one.
    """

    __slots__ = ("partitions",)

    def __init__(self, partitions: Iterable[TopicPartition]) -> None:
        self.partitions = frozenset(partitions)


class RunsBatches(Protocol):
    """What works on a batch: the stage of the source client that read it."""

    def run(self, batch: SourceBatch) -> StageResults:
        """Work on one batch."""


class SourceBatch:
    """What a source hands to its stage.

    `origins` may be empty: a tick, by which a stage acts on time. `positions` are those that the source has moved on to
    with this batch; `now` is a monotonic time in seconds. `gone` are logs that were left before it. Records of a batch that
    was `refused` are not processed: each is that error.
    """

    __slots__ = (
        "attempt",
        "bytes",
        "discarded",
        "end",
        "generation",
        "gone",
        "in_flight",
        "leaving",
        "mark",
        "now",
        "origins",
        "positions",
        "produced_ms",
        "refused",
        "stage",
    )

    def __init__(
        self,
        stage: RunsBatches,
        origins: Sequence[Any],
        positions: Positions,
        now: float,
        end: EndMark | None = None,
        gone: GoneLogs | None = None,
    ) -> None:
        self.stage = stage
        self.origins = origins
        self.positions = positions
        self.now = now
        self.end = end
        self.refused: Exception | None = None
        self.gone = gone
        #: partitions that are to be another's: nothing new is begun with what is kept of them
        self.leaving: frozenset[TopicPartition] = frozenset()
        #: partitions that are another's now: what is kept of them is dropped, uncommitted
        self.discarded: frozenset[TopicPartition] = frozenset()
        #: how often the run had been taken up again when it was made
        self.attempt = 0
        #: of the offset table when this batch was made
        self.generation = 0
        #: ends an epoch after this batch
        self.mark: Mark | None = None
        #: the timestamps of its first and last record, in milliseconds, where somebody wants to know
        self.produced_ms: tuple[int, ...] = ()
        #: counts what its worker has in flight, this batch included, and the bytes it was counted as
        self.in_flight: InFlight | None = None
        self.bytes = 0


class StageResults:
    """What a stage hands to the sink: tagged results in source order, and the positions that are safe with them.

    A position is safe when every record before it has left the stage, in this batch or an earlier one. `batch` is what the
    stage processed.
    """

    __slots__ = ("batch", "results", "safe")

    def __init__(self, results: list[Result], safe: Positions, batch: SourceBatch) -> None:
        self.results = results
        self.safe = safe
        self.batch = batch

    def __reduce__(self) -> Any:
        # The engine pickles what it sends to another process.
        raise RuntimeError(
            "results may not leave their process, whose offsets they carry: start the processes of a cluster with loom run "
            "or StreamingRunner, which know which process they are, not with an engine of your own"
        )
