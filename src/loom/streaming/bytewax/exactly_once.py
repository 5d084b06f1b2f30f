"""Exactly once, in one process: the transactional producer, fenced before any position is read.

Order of a start: (1) fence every earlier holder of the transactional ids, of this layout and of the one that wrote last;
(2) read the group's positions, which nobody can change any more; (3) commit, in one transaction, those the group did not
have or that name another number of writers; (4) only then do source parts read. The runner opens this before it starts the
engine; without it the first source part does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import closing
from typing import Any

from loom.core.logger import get_logger
from loom.streaming.bytewax.delivery import StopSignal
from loom.streaming.bytewax.pace import Pace
from loom.streaming.bytewax.preflight import Preflight
from loom.streaming.bytewax.writer_count import marked, stored_writers
from loom.streaming.compiler.exactly_once import transaction_timeout_ms
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.kafka.consumer import PartitionReader
from loom.streaming.kafka.limits import MESSAGE_MAX_BYTES, fitting
from loom.streaming.kafka.record import TopicPartition
from loom.streaming.kafka.settings import client_key
from loom.streaming.kafka.transactions import Transactions
from loom.streaming.points import Point, reached

__all__ = ["ExactlyOnce"]

#: one process; several come with their own layout of ids
_WRITERS = 1

_log = get_logger(__name__)


class ExactlyOnce:
    """The transactions of this process and the group that their positions belong to. Opened once, by whoever is first."""

    def __init__(self, plan: CompiledPlan, preflight: Preflight, stop: StopSignal) -> None:
        self._plan = plan
        self._preflight = preflight
        self._stop = stop
        self._lock = threading.Lock()
        self._opened: tuple[Transactions, Any] | None = None

    def pace(self) -> Pace:
        """For one source client: a batch takes at most a quarter of what the broker grants a transaction."""
        return Pace(transaction_timeout_ms(self._plan) / 1000 / 4)

    def open(self) -> tuple[Transactions, Any]:
        """The fenced producer and the group's metadata."""
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def close(self) -> None:
        """Give up what is open. Never commits."""
        with self._lock:
            if self._opened is not None:
                self._opened[0].abort()

    def _waiting(self, waiting_for: str) -> None:
        """Before anything is read a stop ends every wait; afterwards only the end of its time does."""
        check = self._stop.check_start if self._opened is None else self._stop.check_deadline
        check(waiting_for)

    def _open(self) -> tuple[Transactions, Any]:
        seen = self._preflight.look()
        self._warn_of_unchecked_sizes()
        partitions = [TopicPartition(t, number) for t, numbers in seen.source_partitions.items() for number in numbers]
        transactions = self._fenced(0)
        reached(Point.FENCED)
        with closing(self._reader()) as reader:
            self._fence_earlier_layouts(reader, partitions)
            found = reader.resolve(partitions, {})
            transactions.found_at({partition: had.offset for partition, had in found.committed.items()})
            group = reader.group_metadata()
            mark = marked(_WRITERS)
            ours = {partition for partition, had in found.committed.items() if had.metadata == mark}
            rewritten = {p: offset for p, offset in found.offsets.items() if p not in ours or p in found.unconfirmed}
            if rewritten:
                transactions.begin()
                transactions.commit(rewritten, group)
        return transactions, group

    def _warn_of_unchecked_sizes(self) -> None:
        unchecked = sorted(output.name for output in self._plan.topics() if MESSAGE_MAX_BYTES in output.settings.extra)
        if unchecked:
            _log.warning(
                "record_sizes_unchecked",
                outputs=unchecked,
                help="extra sets message.max.bytes, so that the broker decides which records are too large; under "
                "exactly_once such a refusal aborts the transaction and ends the run, dlq or not",
            )

    def _fence_earlier_layouts(self, reader: PartitionReader, partitions: list[TopicPartition]) -> None:
        """Shut out the writers of the layout that wrote last, also those that this one has no process for."""
        fenced = _WRITERS
        while True:
            wrote = stored_writers(had.metadata for had in reader.committed(partitions).values())
            if wrote <= fenced:
                # Asked once more behind each fencing: what was still written until then may have named others.
                return
            _log.info("fencing the writers of an earlier layout", processes_then=wrote, processes_now=_WRITERS)
            for index in range(fenced, wrote):
                self._fenced(index).abort()
            fenced = wrote

    def _fenced(self, index: int) -> Transactions:
        """The writer of one process of a layout, with every earlier holder of its id shut out."""
        config = self._plan.topics()[0].settings.to_confluent_config()
        limits = self._preflight.look().max_message_bytes.get(client_key(config), {})
        transactions = Transactions(
            fitting(config, limits),
            f"{self._plan.source.settings.group_id}-{self._plan.name}-{index}",
            metadata=marked(_WRITERS),
            waiting=self._waiting,
            group_at=self._group_at,
            patience_s=self._plan.source.settings.start_timeout_ms / 1000,
        )
        transactions.fence()
        return transactions

    def _group_at(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        with closing(self._reader()) as reader:
            return {partition: had.offset for partition, had in reader.committed(partitions).items()}

    def _reader(self) -> PartitionReader:
        reader = PartitionReader(self._plan.source.settings)
        reader.waiting = self._waiting
        return reader
