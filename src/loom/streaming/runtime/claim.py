"""How the processes of a fixed layout take their group over: process 0 claims every position, the others wait for it.

A position is claimed when its metadata names this flow and this number of processes. So a layout of another size, or a flow
of another name, is followed by exactly one process, and nobody reads a position that a predecessor may still move. With one
process there is nothing to agree on. `exactly_once` does the same inside its first transaction.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from loom.core.counted import counted
from loom.core.logger import get_logger
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.failpoints import Failpoint, failpoint
from loom.streaming.kafka.consumer import ConsumerClient
from loom.streaming.kafka.offset_metadata import Committed, RunMetadata
from loom.streaming.kafka.outage import Clusters
from loom.streaming.kafka.patience import Patience
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.preflight import Preflight
from loom.streaming.runtime.stop import StopSignal

__all__ = ["LayoutClaim", "await_claim", "log_claim"]

_log = get_logger(__name__)

#: seconds between two looks at positions that process 0 has not claimed yet
_LOOK = 0.1


class LayoutClaim:
    """The claim of a process whose positions are committed outside a transaction. Opened once, before anything is read.

    `keeps_unknown`: a recovery store may know where to begin with a partition that has no position, so those are left to
    the process that reads them.
    """

    def __init__(
        self,
        plan: CompiledPlan,
        layout: Layout,
        preflight: Preflight,
        stop: StopSignal,
        metadata: RunMetadata,
        clusters: Clusters,
        *,
        keeps_unknown: bool,
    ) -> None:
        self._settings = plan.source.settings
        self._layout = layout
        self._preflight = preflight
        self._stop = stop
        self._metadata = metadata
        self._clusters = clusters
        self._keeps_unknown = keeps_unknown
        self._lock = threading.Lock()
        self._done = layout.is_alone

    def open(self) -> None:
        """Claim the group, or wait until it is claimed. Idempotent, from any thread.

        Raises `BrokerUnavailableError` where process 0 does not claim it within `start_timeout_ms`.
        """
        with self._lock:
            if not self._done:
                self._open()
                self._done = True

    def _open(self) -> None:
        topics = self._preflight.snapshot().source_partitions
        client = ConsumerClient(self._settings, metadata=self._metadata, clusters=self._clusters)
        client.waiting = self._stop.check_start
        try:
            if self._layout.is_first:
                self._claim(client, Layout().owned(topics))
            else:
                await_claim(
                    lambda: self._unclaimed(client, self._layout.owned(topics), Layout().owned(topics)),
                    self._layout,
                    client.serve,
                    self._settings.start_timeout_ms,
                )
        finally:
            client.close()

    def _unclaimed(
        self, client: ConsumerClient, partitions: Iterable[TopicPartition], siblings: Iterable[TopicPartition]
    ) -> list[TopicPartition]:
        committed = client.group.committed(siblings)
        found = self._metadata.unclaimed(partitions, committed)
        return [partition for partition in found if not self._keeps_unknown or partition in committed]

    def _claim(self, client: ConsumerClient, partitions: list[TopicPartition]) -> None:
        wanted = self._unclaimed(client, partitions, partitions)
        if not wanted:
            return
        found = client.resolve(wanted, {}, partitions)
        self._metadata.replaces(found.committed.values())
        self._metadata.found(found.committed)
        log_claim(self._layout, found.offsets, found.committed)
        failpoint(Failpoint.CLAIMING)
        client.group.commit_now(found.offsets)
        if self._metadata.covered(found.offsets):
            client.group.commit_now(found.offsets)


def await_claim(
    unclaimed: Callable[[], list[TopicPartition]],
    layout: Layout,
    serve: Callable[[float], None],
    timeout_ms: int,
) -> None:
    """Wait until process 0 has claimed the positions of this process. `serve` lets the client work, and may raise."""
    patience = Patience(
        f"process 0 of {layout.processes} to take over the group's offsets",
        timeout_ms / 1000,
        lambda: f"process 0 is not running, or was started with another number of processes than {layout.processes}",
    )
    while left := unclaimed():
        patience.spend(
            f"{counted(len(left), 'offset')} of {layout} without the name of this layout yet, {left[0]} for example"
        )
        serve(_LOOK)


def log_claim(layout: Layout, claimed: Iterable[TopicPartition], committed: Mapping[TopicPartition, Committed]) -> None:
    """Log that this process has taken positions over for all processes of its layout."""
    partitions = sorted(claimed)
    _log.info(
        "layout_claimed",
        processes=layout.processes,
        partitions=len(partitions),
        first=str(partitions[0]),
        had_offsets=sum(partition in committed for partition in partitions),
    )
