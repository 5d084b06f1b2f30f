"""Exactly once, in one process: the transactional producer, fenced before any position is read.

Order of a start: (1) fence every earlier holder of the transactional id; (2) read the group's positions, which nobody can
change any more; (3) commit, in a transaction, those the group did not have, with the number of writers; (4) only then do
source parts read. The runner opens this before it starts the engine; without it the first source part does.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from loom.streaming.bytewax.delivery import StopSignal
from loom.streaming.bytewax.pace import Pace
from loom.streaming.bytewax.preflight import Preflight
from loom.streaming.compiler.exactly_once import transaction_timeout_ms
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.kafka.consumer import PartitionReader
from loom.streaming.kafka.errors import WriterCountError
from loom.streaming.kafka.producer import fitting
from loom.streaming.kafka.record import TopicPartition
from loom.streaming.kafka.settings import client_key
from loom.streaming.kafka.transactions import Transactions

__all__ = ["ExactlyOnce"]

_METADATA = "loom-writers="
#: one process; several come with their own layout of ids
_WRITERS = 1


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
        """The fenced producer and the group's metadata.

        Raises `WriterCountError` when the group was last written by another number of processes.
        """
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
        source, outputs = self._plan.source, self._plan.topics()
        seen = self._preflight.look()
        config = outputs[0].settings.to_confluent_config()
        limits = seen.max_message_bytes.get(client_key(config), {})
        transactions = Transactions(
            fitting(config, limits),
            f"{source.settings.group_id}-{self._plan.name}-0",
            metadata=f"{_METADATA}{_WRITERS}",
            waiting=self._waiting,
        )
        transactions.fence()
        reader = PartitionReader(source.settings)
        reader.waiting = self._waiting
        try:
            partitions = [
                TopicPartition(t, number) for t, numbers in seen.source_partitions.items() for number in numbers
            ]
            found = reader.resolve(partitions, {})
            group = reader.group_metadata()
            unmarked = _without_writers(found.metadata, found.offsets)
            if unmarked:
                transactions.begin()
                transactions.commit(unmarked, group)
        finally:
            reader.close()
        return transactions, group


def _without_writers(
    metadata: Mapping[TopicPartition, str], offsets: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """The positions that do not say how many processes write yet."""
    unmarked = {}
    for partition, offset in offsets.items():
        said = metadata.get(partition, "")
        if not said.startswith(_METADATA):
            unmarked[partition] = offset
        elif said != f"{_METADATA}{_WRITERS}":
            raise WriterCountError(
                f"the group was last written by {said.removeprefix(_METADATA)} processes (position of {partition}), and "
                f"this run has {_WRITERS}; changing their number is not supported yet"
            )
    return unmarked
