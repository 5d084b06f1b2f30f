"""Exactly once for a member of a group: the transactions carry what ties the member to the group, as it was when it was given
its partitions.

Order of a start: (1) fence every earlier holder of this process's transactional id; (2) join the group; (3) look up the
offsets of the partitions that are given to it, fencing the writers of a fixed assignment that they name. Nobody else needs
fencing: the broker refuses the offsets of a process that is no member any more.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from loom.core.logger import get_logger
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.failpoints import Failpoint, failpoint
from loom.streaming.kafka.errors import TransactionAbortedError, TransactionFailedError
from loom.streaming.kafka.group_settings import Membership, instance_name
from loom.streaming.kafka.offset_metadata import Committed, OffsetMetadata, RunMetadata, escaped
from loom.streaming.kafka.outage import Clusters
from loom.streaming.kafka.transactions import Transactions
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.exactly_once import ExactlyOnce
from loom.streaming.runtime.offsets import OffsetTable
from loom.streaming.runtime.preflight import Preflight
from loom.streaming.runtime.stages.stage_io import Positions
from loom.streaming.runtime.stop import StopSignal

__all__ = ["MemberTransactions"]

_log = get_logger(__name__)


class MemberTransactions(ExactlyOnce):
    """The transactions of a process that is a member of its group."""

    def __init__(
        self,
        plan: CompiledPlan,
        preflight: Preflight,
        stop: StopSignal,
        metadata: RunMetadata,
        clusters: Clusters | None,
        offsets: OffsetTable,
    ) -> None:
        super().__init__(plan, preflight, stop, metadata, clusters)
        self._offsets = offsets
        #: what ties offsets to the group, as of the last assignment; set by the share of the group
        self.captured: Callable[[], Any] = lambda: None
        #: raises where this process is no member any more; set by the share of the group
        self.confirmed: Callable[[], None] = lambda: None
        name = instance_name(plan.source.settings.group_instance_id)
        self._is_static = name is not None
        self._instance = escaped(name) if name is not None else uuid.uuid4().hex[:16]
        #: the runs of a fixed assignment whose writers were fenced: another run takes the same ids again
        self._fenced_runs: set[str | None] = set()

    def group_metadata(self) -> Any:
        """What is sent with the offsets of this epoch. Raises `TransactionAbortedError` where not all of them are ours.

        It is taken before the rows are looked at: a row that is given up in between has its offsets refused by the broker,
        or was still ours when they were sent.
        """
        transactions = self.open()[0]
        metadata = self.captured()
        failpoint(Failpoint.METADATA_CAPTURED)
        if metadata is None:
            raise transactions.given_up("this process was taken out of its group")
        if not self._offsets.is_current:
            raise transactions.given_up("partitions whose results it holds were given to another member of the group")
        return metadata

    def fence_named(self, committed: Mapping[TopicPartition, Committed]) -> bool:
        """Fence the writers of a fixed assignment that these offsets name. Returns whether any was new.

        Then the offsets must be fetched again: what was still written until then is among them.
        """
        found = [OffsetMetadata.parse(had.metadata) for had in committed.values()]
        fixed = [m for m in found if m.flow is not None and m.mode == Membership.FIXED.value]
        runs = {m.run for m in fixed} - self._fenced_runs
        if not runs:
            return False
        # Each process of a layout has a run of its own, and any of them may have taken over from one that was fenced.
        ids = {self._id_of(m.flow, index) for m in fixed if m.flow is not None for index in range(m.writers or 1)}
        _log.info("writers_fenced", transactional_ids=sorted(ids))
        for transactional_id in sorted(ids):
            self._fenced(transactional_id).abort()
        self._fenced_runs |= runs
        return True

    def renewed(self, partitions: Iterable[TopicPartition]) -> None:
        """Nothing is kept of single partitions here."""

    def _open(self) -> tuple[Transactions, Any]:
        self._warn_of_unchecked_sizes()
        transactions = self._fenced(self._id_of(self._metadata.flow, self._instance))
        failpoint(Failpoint.FENCED)
        return transactions, None

    def _checked(self, positions: Positions) -> Positions:
        return positions

    def _group_at(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        # Who has the partitions is told by the group, so that an id that was taken away was so by a time-out.
        return {}

    def can_go_on(self, fault: BaseException) -> bool:
        """Whether the run may be taken up again after this fault, if need be with a new writer.

        Nobody else has the id of a member without a name, so that one that has failed for good can be replaced too.
        """
        return isinstance(fault, TransactionAbortedError) or (
            isinstance(fault, TransactionFailedError) and not self._is_static
        )

    def take_up_again(self) -> None:
        """Go on with the writer where it has aborted in order, else with a new one of the same id.

        A static member whose name another process has taken must not shut that out: the group tells it first.
        """
        with self._lock:
            if self._opened is not None and self._opened[0].can_go_on:
                self._opened[0].go_on()
                return
            if self._is_static:
                self.confirmed()
            self._opened = self._open()
