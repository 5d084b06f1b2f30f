"""Where a supervised run is, in memory that outlives it: an unnamed file that the run and its supervisor map.

Writing is an assignment, so it costs nothing per batch, and it survives whatever kills the run. The run also reads here what
its supervisor wants of it. Used by `channel` on one side and by `supervise` on the other.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import threading
from collections.abc import Mapping

import msgspec

from loom.core.model import LoomFrozenStruct
from loom.streaming.record import TopicPartition, TopicPartitionOffset
from loom.streaming.runtime.supervised import Isolation

__all__ = ["AtWork", "Recorder", "Recording", "RunState"]

#: partitions of which something is recorded; of a run with more the others are left out
_PARTITIONS = 8192
#: the row of the record at work (-1: none), its offset, and whether it is alone in the process
_AT_WORK = struct.Struct("=qqq")
#: where the next run would begin with a partition, and how far it has been read
_ROW = struct.Struct("=qq")
_POSITION = struct.Struct("=q")
_TEXT = 4 << 20
_NAMES = _AT_WORK.size + _PARTITIONS * _ROW.size
_ORDERS = _NAMES + _TEXT
_SIZE = _ORDERS + _TEXT
_NOWHERE = -1


class AtWork(LoomFrozenStruct):
    """The isolated record that a run was working on."""

    partition: str
    offset: int
    alone: bool

    def __str__(self) -> str:
        return f"{self.partition}@{self.offset}"


class RunState(LoomFrozenStruct):
    """Where a run is, or was when it ended."""

    #: where the next run would begin, and how far this one has read, by partition
    committed: dict[str, int] = {}
    read: dict[str, int] = {}
    at_work: AtWork | None = None


class _Orders(LoomFrozenStruct):
    """An `Isolation` as it is written: partitions by their names, and of a fatal record its partition, offset and ends."""

    until: dict[str, int]
    alone: dict[str, int]
    fatal: list[tuple[str, int, str]]


class Recorder:
    """The side of the run. Takes the descriptor over."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, _SIZE)
        #: a program that the flow starts must not hold it
        os.close(descriptor)
        self._lock = threading.Lock()
        self._rows: dict[TopicPartition, int] = {}
        self._names_end = _NAMES
        #: what the supervisor asks of this run
        self.isolation = _isolation(_text_at(self._memory, _ORDERS))

    def committed(self, positions: Mapping[TopicPartition, int]) -> None:
        """Where the next run would begin."""
        self._note(positions, 0)

    def reads(self, positions: Mapping[TopicPartition, int]) -> None:
        """How far partitions have been read."""
        self._note(positions, _POSITION.size)

    def works_on(self, partition: TopicPartition, offset: int, *, alone: bool) -> None:
        """A record is about to be processed."""
        row = self._row(partition)
        self.works_on_nothing()
        if row is not None:
            _AT_WORK.pack_into(self._memory, 0, row, offset, alone)

    def works_on_nothing(self) -> None:
        """No record is at work."""
        _POSITION.pack_into(self._memory, 0, _NOWHERE)

    def _note(self, positions: Mapping[TopicPartition, int], column: int) -> None:
        for partition, offset in positions.items():
            row = self._row(partition)
            if row is not None:
                _POSITION.pack_into(self._memory, _AT_WORK.size + row * _ROW.size + column, offset)

    def _row(self, partition: TopicPartition) -> int | None:
        row = self._rows.get(partition)
        return row if row is not None else self._new_row(partition)

    def _new_row(self, partition: TopicPartition) -> int | None:
        name = str(partition).encode() + b"\n"
        with self._lock:
            if partition in self._rows:
                return self._rows[partition]
            row, end = len(self._rows), self._names_end + len(name)
            if row == _PARTITIONS or end > _ORDERS:
                return None
            _ROW.pack_into(self._memory, _AT_WORK.size + row * _ROW.size, _NOWHERE, _NOWHERE)
            # The last byte of a name makes it one, so it comes last.
            self._memory[self._names_end : end - 1] = name[:-1]
            self._memory[end - 1 : end] = b"\n"
            self._names_end = end
            self._rows[partition] = row
            return row


class Recording:
    """The side of the supervisor: created before a run starts, with its orders, and read when it has ended."""

    def __init__(self, isolation: Isolation | None = None) -> None:
        if hasattr(os, "memfd_create"):
            self.descriptor = os.memfd_create("loom-recorder")
        else:
            with tempfile.TemporaryFile() as file:
                self.descriptor = os.dup(file.fileno())
        os.ftruncate(self.descriptor, _SIZE)
        self._memory = mmap.mmap(self.descriptor, _SIZE)
        _AT_WORK.pack_into(self._memory, 0, _NOWHERE, 0, 0)
        orders = _written(isolation)
        self._memory[_ORDERS : _ORDERS + len(orders)] = orders

    def state(self) -> RunState:
        """Where the run is."""
        whole = _text_at(self._memory, _NAMES).rpartition(b"\n")[0]
        names = [name.decode() for name in whole.split(b"\n") if name]
        committed, read = {}, {}
        for row, name in enumerate(names):
            offset, reached = _ROW.unpack_from(self._memory, _AT_WORK.size + row * _ROW.size)
            if offset >= 0:
                committed[name] = offset
            if reached >= 0:
                read[name] = reached
        row, offset, alone = _AT_WORK.unpack_from(self._memory, 0)
        at_work = AtWork(names[row], offset, bool(alone)) if 0 <= row < len(names) else None
        return RunState(committed, read, at_work)

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
        os.close(self.descriptor)


def _text_at(memory: mmap.mmap, start: int) -> bytes:
    """The text that starts there, without touching the pages after it."""
    return memory[start : memory.find(b"\0", start)]


def _written(isolation: Isolation | None) -> bytes:
    if isolation is None:
        return b""
    orders = _Orders(
        {str(partition): offset for partition, offset in isolation.until.items()},
        {str(partition): offset for partition, offset in isolation.alone.items()},
        [(f"{place.topic}[{place.partition}]", place.offset or 0, ends) for place, ends in isolation.fatal.items()],
    )
    return msgspec.json.encode(orders)


def _isolation(written: bytes) -> Isolation | None:
    if not written:
        return None
    orders = msgspec.json.decode(written, type=_Orders)
    fatal = {}
    for name, offset, ends in orders.fatal:
        fatal[TopicPartitionOffset(*partition_named(name), offset)] = ends
    return Isolation(_partitions(orders.until), _partitions(orders.alone), fatal)


def _partitions(named: Mapping[str, int]) -> dict[TopicPartition, int]:
    return {partition_named(name): offset for name, offset in named.items()}


def partition_named(name: str) -> TopicPartition:
    """The partition that is written like this.

    >>> partition_named("orders.raw[3]")
    TopicPartition(topic='orders.raw', partition=3)
    """
    topic, _, number = name.removesuffix("]").rpartition("[")
    return TopicPartition(topic, int(number))
