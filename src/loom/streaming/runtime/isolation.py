"""One record at a time: how a supervised run finds the record that kills the process, and continues after it.

Used by the source of a run whose supervisor requests it. Each record is reported before it is processed. One that is alone
waits until everything before it is durable, and everything after it waits in the same way, so that whatever kills the
process during that time is caused by that record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from msgspec.structs import replace

from loom.core.config import ConfigError, ConfigProblem
from loom.core.logger import get_logger
from loom.streaming.compiler.model import CompiledSource
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.errors import ErrorKind
from loom.streaming.record import TopicPartition, TopicPartitionOffset
from loom.streaming.runtime.run_errors import ProcessKilledError
from loom.streaming.runtime.settings import BytewaxRuntimeConfig, SupervisionSettings
from loom.streaming.runtime.source_loop import RecordReader
from loom.streaming.runtime.stages.buffering import BufferingNodes
from loom.streaming.runtime.stages.stage_io import Positions, SourceBatch
from loom.streaming.runtime.stop import StopSignal
from loom.streaming.runtime.supervised import Isolation, Supervisor

__all__ = ["IsolatingReader", "check_poison_route", "isolation_of", "one_at_a_time"]

_log = get_logger(__name__)

#: milliseconds of an epoch while records are isolated, since one that is alone takes about two of them
_EPOCH_MS = 20
#: Up to so many records each is alone from the start. Of more, that would take minutes: they are only read one by one,
#: and where that ends the process, those that were in it are alone the next time.
_FEW = 1_000
#: seconds of one wait for what is in the process
_SLICE = 0.005
#: seconds without a record after which the isolated records are thought to be past: they are no longer in the log
_IDLE = 5.0


class _Client(Protocol):
    """What is needed of the client that reads."""

    def serve(self, wait_s: float) -> None:
        """Let it answer while nothing is to be read."""

    def hold(self, partitions: Iterable[TopicPartition]) -> None:
        """Read nothing more of these partitions."""


def isolation_of(supervisor: Supervisor | None, plan_source: CompiledSource) -> Isolation | None:
    """The records that a run isolates. A member of a group cannot ask for their partitions, so it isolates none."""
    return supervisor.isolation if supervisor is not None and not plan_source.settings.shares_group else None


def one_at_a_time(runtime: BytewaxRuntimeConfig) -> BytewaxRuntimeConfig:
    """How the engine runs while records are isolated: with one worker and short epochs."""
    return replace(runtime, workers_per_process=1, epoch_interval_ms=min(runtime.epoch_ms, _EPOCH_MS))


def check_poison_route(
    plan: CompiledPlan, taken: Collection[ErrorKind], supervision: SupervisionSettings, file: str | None = None
) -> None:
    """Raise `ConfigError` where records that kill the process are to be dead letters and no error route would take them.

    `taken` are the kinds that sinks take.
    """
    routed = any(ErrorKind.TASK in route.kinds for route in plan.error_routes) or ErrorKind.TASK in taken
    if supervision.on_poison == "dead_letter" and not routed and plan.unrouted == "fail":
        raise ConfigError(
            [
                ConfigProblem(
                    file,
                    "streaming.supervision.on_poison",
                    f"the flow {plan.name!r} has no route for task errors, so there is nowhere for a record that kills "
                    "the process to go",
                    remedy="give the flow errors=IntoTopic(…), or set on_poison: fail",
                )
            ]
        )


class IsolatingReader:
    """Reads records one by one for the only worker of the process; used on its thread.

    `read` is how far each partition has been read, `durable` up to where its results are durable, `place` returns a position.
    """

    def __init__(
        self,
        inner: RecordReader,
        client: _Client,
        supervisor: Supervisor,
        isolation: Isolation,
        stop: StopSignal,
        room: BufferingNodes,
        *,
        read: Mapping[TopicPartition, int],
        durable: Mapping[TopicPartition, int],
        place: Callable[[Any], TopicPartitionOffset],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner = inner
        self._client = client
        self._supervisor = supervisor
        self._until = dict(isolation.until)
        self._alone = isolation.alone
        self._fatal = isolation.fatal
        self._stop = stop
        self._room = room
        self._read = read
        self._durable = durable
        self._place = place
        self._clock = clock
        self._begun = False
        self._few = False
        #: read, and waiting for what is before it in the process
        self._held: tuple[Sequence[Any], Positions] | None = None
        #: up to which offset records have been passed on
        self._handed_on: dict[TopicPartition, int] = {}
        #: the last one is alone and not yet durable
        self._busy = False
        self._last_at = 0.0
        self._refusal: ProcessKilledError | None = None

    def read(self, most: int) -> tuple[Sequence[Any], Positions, bool]:
        """The next record, or none while it has to wait."""
        if not self._begun:
            self._begin()
        if self._held is None:
            if self._busy:
                if not self._empty():
                    return self._wait()
                self._busy = False
                self._supervisor.works_on_nothing()
            records, positions, over = self._inner.read(1)
            if not records:
                self._handed_on.update(positions)
                self._end_if_past()
                return records, positions, over
            self._last_at = self._clock()
            self._held = records, positions
        return self._hand_on(*self._held)

    def refuse(self, batches: list[SourceBatch]) -> None:
        """Mark the batch of a record that is not processed again."""
        for batch in batches:
            if batch.origins:
                batch.refused, self._refusal = self._refusal, None

    def forget(self, topic: str) -> None:
        """The topic was deleted or recreated: what was read of it is not what is suspected."""
        if self._held is not None and self._place(self._held[0][0]).topic == topic:
            self._held = None
        for kept in (self._until, self._handed_on):
            for partition in [partition for partition in kept if partition.topic == topic]:
                del kept[partition]

    def _begin(self) -> None:
        self._begun = True
        self._last_at = self._clock()
        left = sum(max(until - self._read.get(partition, until), 0) for partition, until in self._until.items())
        self._few = left <= _FEW
        self._client.hold([partition for partition in self._read if not self._open(partition)])
        _log.warning("isolation_started", records=left, until=_told(self._until), each_alone=self._few)

    def _hand_on(self, records: Sequence[Any], positions: Positions) -> tuple[Sequence[Any], Positions, bool]:
        place = self._place(records[0])
        partition, offset = TopicPartition(place.topic or "", place.partition or 0), place.offset or 0
        alone = self._few or offset < self._alone.get(partition, 0) or place in self._fatal
        if alone and not self._empty():
            return self._wait()
        self._held = None
        self._busy = alone
        self._supervisor.works_on(partition, offset, alone=alone)
        self._handed_on.update(positions)
        self._client.hold([partition for partition in positions if not self._open(partition)])
        if place in self._fatal:
            self._refusal = ProcessKilledError(self._fatal[place])
        return records, positions, False

    def _open(self, partition: TopicPartition) -> bool:
        """Whether there still are isolated records in a partition."""
        return self._read.get(partition, 0) < self._until.get(partition, 0)

    def _empty(self) -> bool:
        """Whether nothing is in the process: kept by a node, or not durable yet."""
        durable = self._durable
        return self._room.kept() == 0 and all(
            durable.get(partition, -1) >= position for partition, position in self._handed_on.items()
        )

    def _wait(self) -> tuple[Sequence[Any], Positions, bool]:
        self._client.serve(_SLICE)
        return (), {}, False

    def _end_if_past(self) -> None:
        past = not any(partition in self._read and self._open(partition) for partition in self._until)
        if (past or self._clock() - self._last_at > _IDLE) and self._empty() and not self._stop.requested:
            _log.warning("isolation_ended", read=_told(self._read))
            self._supervisor.isolation_over()
            self._stop.request("the isolated records are past", restart=True)


def _told(positions: Mapping[TopicPartition, int]) -> str:
    return ", ".join(f"{partition}@{offset}" for partition, offset in sorted(positions.items())[:20])
