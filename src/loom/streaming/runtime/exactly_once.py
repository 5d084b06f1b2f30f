"""Exactly once, in one process: the transactional producer, fenced before any position is read.

Order of a start: (1) see that nobody is subscribed with the group; (2) fence every earlier holder of the transactional ids,
of this flow and of every flow and layout that the positions name; (3) read the group's positions, which nobody can change
any more; (4) commit all of them in one transaction, with this run's metadata; (5) only then do source parts read. The runner
opens this before it starts the engine; without it the first source part does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from loom.core.logger import get_logger
from loom.streaming.compiler.exactly_once import transaction_timeout_ms
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.failpoints import Failpoint, failpoint
from loom.streaming.kafka.errors import FencedError, TransactionAbortedError, TransactionFailedError
from loom.streaming.kafka.limits import MESSAGE_MAX_BYTES, producer_properties
from loom.streaming.kafka.offset_metadata import Committed, OffsetMetadata, RunMetadata, escaped
from loom.streaming.kafka.outage import Clusters
from loom.streaming.kafka.topic_monitor import look_at_states
from loom.streaming.kafka.transaction_group import TransactionGroup
from loom.streaming.kafka.transactions import Transactions
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.claim import await_claim, log_claim
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.pace import Pace
from loom.streaming.runtime.preflight import Preflight
from loom.streaming.runtime.refencing import await_no_successor
from loom.streaming.runtime.stages.stage_io import Positions
from loom.streaming.runtime.stop import StopSignal

__all__ = ["ExactlyOnce", "transactional_id"]

_log = get_logger(__name__)

_TIMEOUT = "transaction.timeout.ms"


class ExactlyOnce:
    """The transactions of this process and the group that their offsets belong to. Opened once, by the first user."""

    def __init__(
        self,
        plan: CompiledPlan,
        preflight: Preflight,
        stop: StopSignal,
        metadata: RunMetadata,
        clusters: Clusters | None = None,
        layout: Layout = Layout(),  # noqa: B008 - frozen
    ) -> None:
        self._layout = layout
        self._plan = plan
        self._preflight = preflight
        self._stop = stop
        self._metadata = metadata
        self._clusters = clusters
        self._lock = threading.Lock()
        self._opened: tuple[Transactions, Any] | None = None
        self._group: TransactionGroup | None = None
        #: seconds from the fencing of this start to its first commit
        self._start_took_s = 0.0
        #: the id is taken again, and positions are written as at a start
        self._refencing = False
        #: called with a topic that is gone, so that the source checks it at once
        self.suspect: Callable[[str, str], None] = _nobody

    def pace(self) -> Pace:
        """For one source client: a batch takes at most a quarter of what the broker grants a transaction."""
        return Pace(transaction_timeout_ms(self._plan) / 1000 / 4)

    def open(self) -> tuple[Transactions, Any]:
        """The fenced producer and the group's metadata."""
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def group_metadata(self) -> Any:
        """What ties the offsets of an epoch to the group."""
        return self.open()[1]

    def can_go_on(self, fault: BaseException) -> bool:
        """Whether the run may be taken up again after this fault: no successor is known to have caused it."""
        return self._opened is not None and (
            isinstance(fault, TransactionAbortedError)
            or (isinstance(fault, TransactionFailedError) and not isinstance(fault, FencedError))
        )

    def take_up_again(self) -> None:
        """Begin again under the same id.

        Where the producer has aborted its transaction in order, nobody has taken the id. Where the broker took the id away,
        that was for a transaction that outlasted its time-out, or for a successor; then the id is taken again once it is
        sure that there is none.

        Raises `SecondInstanceError` where another run has committed an offset.
        """
        with self._lock:
            assert self._opened is not None
            assert self._group is not None
            transactions, metadata = self._opened
            if transactions.can_go_on:
                transactions.go_on()
            else:
                self._opened = self._fenced_again(self._group), metadata
            self._group.aborted()

    def _fenced_again(self, group: TransactionGroup) -> Transactions:
        """Our id with a new producer, and our positions with a new run id, so that a wrong guess ends only one of two."""
        committed = await_no_successor(
            group, self._start_took_s, self._plan.source.settings.start_timeout_ms + transaction_timeout_ms(self._plan)
        )
        self._metadata.begin_again()
        self._refencing = True
        try:
            transactions = self._fenced(self._own_id(self._layout.index))
            failpoint(Failpoint.FENCED)
            # A member fences this id once, when it takes our partitions: it must not be taken again while it is there.
            self._preflight.check_group_again()
            committed = group.committed(committed)
            positions = {partition: had.offset for partition, had in committed.items()}
            self._metadata.found(committed)
            transactions.found_at(positions)
            transactions.begin()
            transactions.commit(positions, group.client_metadata())
        finally:
            self._refencing = False
        return transactions

    def renewed(self, partitions: Iterable[TopicPartition]) -> None:
        """Positions that come from now on are not in the log in which earlier ones were."""
        if self._group is not None:
            self._group.renewed(partitions)

    def close(self) -> None:
        """Give up what is open. Never commits."""
        with self._lock:
            if self._opened is not None:
                self._opened[0].abort()
            if self._group is not None:
                self._group.close()

    def _waiting(self, waiting_for: str) -> None:
        """Before anything is read a stop ends every wait; afterwards only the end of its time does."""
        check = self._stop.check_start if self._opened is None else self._stop.check_deadline
        check(waiting_for)

    def _open(self) -> tuple[Transactions, Any]:
        seen = self._preflight.snapshot()
        self._warn_of_unchecked_sizes()
        self._preflight.group()
        everywhere = Layout().owned(seen.source_partitions)
        partitions = self._layout.owned(seen.source_partitions)
        own_id = self._own_id(self._layout.index)
        fenced_at = time.monotonic()
        transactions = self._fenced(own_id) if self._layout.is_first else None
        settings = self._plan.source.settings
        self._group = group = TransactionGroup(
            settings,
            seen.source_topics,
            look_at_states(self._plan.source.cluster.properties, seen.source_topics),
            self._metadata,
            waiting=self._waiting,
            gone=self._gone,
            clusters=self._clusters,
        )
        others: list[TopicPartition] = []
        if transactions is not None:
            failpoint(Failpoint.FENCED)
            self._fence_earlier(group, everywhere)
            others = self._unclaimed(group, set(everywhere).difference(partitions), everywhere)
        else:
            await_claim(
                lambda: self._unclaimed(group, partitions, everywhere),
                self._layout,
                group.serve,
                settings.start_timeout_ms,
            )
            # Not before: the claim fences every id of the layout.
            fenced_at = time.monotonic()
            transactions = self._fenced(own_id)
            failpoint(Failpoint.FENCED)
        found = group.start([*partitions, *others], everywhere)
        transactions.found_at({p: found.committed[p].offset for p in partitions if p in found.committed})
        self._metadata.replaces(found.committed.values())
        self._metadata.found(found.committed)
        self._metadata.covered(found.offsets)
        if others:
            log_claim(self._layout, found.offsets, found.committed)
            failpoint(Failpoint.CLAIMING)
        transactions.begin()
        transactions.commit(found.offsets, group.client_metadata())
        self._start_took_s = time.monotonic() - fenced_at
        # From now on they belong to the processes that read them.
        group.renewed(others)
        transactions.forget(others)
        return transactions, group.client_metadata()

    def _unclaimed(
        self, group: TransactionGroup, partitions: Iterable[TopicPartition], siblings: Iterable[TopicPartition]
    ) -> list[TopicPartition]:
        wanted = sorted(partitions)
        return self._metadata.unclaimed(wanted, group.committed(siblings)) if wanted else []

    def _warn_of_unchecked_sizes(self) -> None:
        unchecked = sorted(output.name for output in self._plan.topics() if MESSAGE_MAX_BYTES in output.settings.extra)
        if unchecked:
            _log.warning(
                "record_sizes_unchecked",
                outputs=unchecked,
                help="extra sets message.max.bytes, so that the broker decides which records are too large; under "
                "exactly_once such a refusal aborts the transaction and ends the run, dlq or not",
            )

    def _fence_earlier(self, group: TransactionGroup, partitions: list[TopicPartition]) -> None:
        """Fence the writers that the group's offsets name, including those that are not started any more."""
        fenced = {self._own_id(0)}
        while True:
            left = sorted(self._earlier_ids(group.committed(partitions)) - fenced)
            if not left:
                # Fetched again after each fencing: what was still written until then may have named others.
                return
            _log.info("writers_fenced", transactional_ids=left)
            for transactional_id in left:
                self._fenced(transactional_id).abort()
            fenced.update(left)

    def _earlier_ids(self, committed: Mapping[TopicPartition, Committed]) -> set[str]:
        found = {OffsetMetadata.parse(had.metadata) for had in committed.values()}
        ids = {
            transactional_id(self._group_id, m.flow, i)
            for m in found
            if m.flow is not None
            for i in range(m.writers or 1)
        }
        if not ids:
            # Nobody has written in this form yet: an earlier version of the product named its writers otherwise.
            writers = max((m.writers or 1 for m in found), default=1)
            ids = {f"{self._group_id}-{self._plan.name}-{index}" for index in range(writers)}
        ours = {self._own_id(index) for index in range(self._layout.processes)}
        if len(self._metadata.unclaimed(committed, committed)) < len(committed):
            # Processes of this layout may be running. One that starts again takes its own id, and no other.
            return ids - ours
        return ids | ours if committed else ids

    def _own_id(self, index: int) -> str:
        """The id of a process of this layout."""
        return self._id_of(self._metadata.flow, index)

    def _id_of(self, flow: str, writer: int | str) -> str:
        """The transactional id of one writer of a flow; `flow` is escaped already."""
        return transactional_id(self._group_id, flow, writer)

    @property
    def _group_id(self) -> str:
        return self._plan.source.settings.group_id

    def _fenced(self, transactional_id: str) -> Transactions:
        """The writer of an id, with every earlier holder of it shut out."""
        producer = self._plan.producers[0]
        limits = self._preflight.snapshot().written[producer.index].max_message_bytes
        transactions = Transactions(
            {**producer_properties(producer.properties, limits), _TIMEOUT: transaction_timeout_ms(self._plan)},
            transactional_id,
            metadata=self._metadata.text,
            waiting=self._waiting,
            group_at=self._group_at,
            patience_s=self._plan.source.settings.start_timeout_ms / 1000,
            checked=self._checked,
            committed=self._committed,
            clusters=self._clusters,
        )
        transactions.fence()
        return transactions

    def _checked(self, positions: Positions) -> Positions:
        starts = self._opened is None or self._refencing
        return positions if starts or self._group is None else self._group.checked(positions)

    def _committed(self, positions: Positions) -> None:
        if self._group is not None:
            self._group.wrote(positions)

    def _group_at(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        assert self._group is not None
        return {partition: had.offset for partition, had in self._group.committed(partitions).items()}

    def _gone(self, topic: str, why: str) -> None:
        self.suspect(topic, why)


def _nobody(topic: str, why: str) -> None:
    _log.info("topic_check_skipped", topic=topic, why=why)


def transactional_id(group_id: str, flow: str, index: int | str) -> str:
    """The transactional id of one writer; `flow` is escaped already.

    It is how a start shuts out earlier ones, so a version that names it differently would not fence its predecessor.
    """
    return f"{escaped(group_id)}@{flow}@{index}"
