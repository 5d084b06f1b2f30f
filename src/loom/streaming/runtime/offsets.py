"""Where every partition of a process is: the one place in the runtime that holds offsets from one call to the next.

A row is one partition from the moment it is taken up until it is given up. Each column has one writing thread: `start` and
`read` are written by the worker that reads the partition, `completed` and `committable` by the thread of the sink part,
`committed` by the committing thread. Readers on other threads see single offsets, never half of one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from loom.streaming.record import TopicPartition

__all__ = ["IllegalMoveError", "OffsetTable", "PartitionOffsets", "WorkerOffsets"]

Positions = Mapping[TopicPartition, int]


class IllegalMoveError(AssertionError):
    """An offset was to be moved where it may not go: a fault of the runtime, and the end of the run."""


class PartitionOffsets:
    """One row: the offsets of one partition while one worker has it. `None` in a column: not known yet."""

    __slots__ = (
        "commits",
        "committable",
        "committed",
        "committed_at",
        "completed",
        "generation",
        "partition",
        "read",
        "read_time_ms",
        "reported",
        "resume",
        "start",
        "tenure",
    )

    def __init__(self, partition: TopicPartition, resume: int | None = None) -> None:
        self.partition = partition
        #: batches of earlier generations say nothing about this row; 0 while it has not been taken up
        self.generation = 0
        #: what a recovery store holds
        self.resume = resume
        #: where this run began
        self.start: int | None = None
        #: the next offset to read
        self.read: int | None = None
        #: the timestamp of a record that was read lately, in milliseconds since 1970, where somebody wants to know
        self.read_time_ms: int | None = None
        #: everything before it has left the stage
        self.completed: int | None = None
        #: everything before it is durable
        self.committable: int | None = None
        #: what the group, or a tracker, is known to hold of us, and when that was said, in monotonic seconds
        self.committed: int | None = None
        self.committed_at = 0.0
        #: whether the next run begins at `committed`; else what is durable is the best that is known
        self.commits = False
        #: the number under which a member of a group has the partition; 0 where the assignment is fixed
        self.tenure = 0
        #: what was last reported to a supervisor
        self.reported: int | None = None

    @property
    def restart(self) -> int | None:
        """Where the next run would begin if this one ended now; `None` before the partition was taken up."""
        if self.commits or self.committable is None:
            return self.committed if self.commits else self.start
        return self.committable


class OffsetTable:
    """The rows of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        #: batches that are made now belong to it; raised whenever a row is taken up or given up
        self.generation = 0
        #: batches that came for rows that had been given up, counted once for each such row
        self.late = 0
        #: results of a row that had been given up have been written since the last epoch
        self.tainted = False
        self._rows: dict[TopicPartition, PartitionOffsets] = {}
        #: rows with offsets that have been completed since the last epoch
        self._fresh: dict[PartitionOffsets, int] = {}
        self._lock = threading.Lock()

    def worker(self) -> WorkerOffsets:
        """The rows of one worker, none yet."""
        return WorkerOffsets(self)

    def row(self, partition: TopicPartition) -> PartitionOffsets | None:
        """The row of a partition that some worker has."""
        return self._rows.get(partition)

    def take_up(self, row: PartitionOffsets, start: int) -> None:
        """A worker begins with a partition. Raises `IllegalMoveError` where another row has it."""
        with self._lock:
            if self._rows.get(row.partition, row) is not row:
                raise IllegalMoveError(f"{row.partition} has been taken up already")
            self._begin(row, start)

    def ensure(self, partition: TopicPartition, start: int) -> PartitionOffsets:
        """The row of a partition, created if there is none yet."""
        with self._lock:
            row = self._rows.get(partition)
            if row is None:
                row = PartitionOffsets(partition)
                self._begin(row, start)
            return row

    def _begin(self, row: PartitionOffsets, start: int) -> None:
        self.generation += 1
        row.generation = self.generation
        row.start = row.read = start
        self._rows[row.partition] = row

    def revoke(self, partitions: Iterable[TopicPartition]) -> list[PartitionOffsets]:
        """Give partitions up: whatever still comes for their rows is ignored and counted. Returns the rows."""
        with self._lock:
            self.generation += 1
            return [row for partition in partitions if (row := self._rows.pop(partition, None)) is not None]

    def complete(self, positions: Positions, generation: int) -> None:
        """Take what a stage has completed, from a batch of this generation. Called by the sink part."""
        rows, fresh = self._rows, self._fresh
        for partition, offset in positions.items():
            row = rows.get(partition)
            if row is None or row.generation > generation:
                self.late += 1
                self.tainted = True
            else:
                row.completed = fresh[row] = offset

    def pending(self) -> dict[TopicPartition, int]:
        """What has been completed since the last epoch and is not given up. Called by the sink part."""
        return {row.partition: offset for row, offset in self._fresh.items() if self._rows.get(row.partition) is row}

    @property
    def is_current(self) -> bool:
        """Whether everything that was taken since the last epoch is of rows that are still this process's."""
        return not self.tainted and all(self._rows.get(row.partition) is row for row in self._fresh)

    def abandon(self) -> None:
        """Give up every row, and what was taken of it. Called by the sink part."""
        with self._lock:
            self.generation += 1
            self._rows.clear()
        self._fresh.clear()
        self.tainted = False

    def publish(self) -> None:
        """Everything that was taken is durable: what is pending is committable. Called by the sink part."""
        for row, offset in self._fresh.items():
            row.committable = offset
        self._fresh.clear()
        self.tainted = False


class WorkerOffsets:
    """The rows of one worker, by partition. Changed by its thread alone."""

    def __init__(self, table: OffsetTable) -> None:
        self._table = table
        self._rows: dict[TopicPartition, PartitionOffsets] = {}

    @property
    def rows(self) -> list[PartitionOffsets]:
        """Its rows, as of now; from any thread."""
        return list(self._rows.values())

    def expect(self, partition: TopicPartition, resume: int | None = None) -> None:
        """The worker will read this partition; where from is not known yet."""
        self._rows[partition] = PartitionOffsets(partition, resume)

    def expected(self) -> dict[TopicPartition, int | None]:
        """The partitions that have not been taken up, with what a recovery store holds of them."""
        return {partition: row.resume for partition, row in self._rows.items() if row.start is None}

    def take_up(self, starts: Positions, *, committed: bool) -> None:
        """Begin with partitions. `committed`: these offsets are the group's, and the next run begins at what it holds."""
        for partition, start in starts.items():
            row = self._rows.get(partition)
            if row is None or row.start is not None:
                row = PartitionOffsets(partition)
            self._table.take_up(row, start)
            row.commits = committed
            if committed:
                row.committed, row.committed_at = start, self._table.clock()
            self._rows[partition] = row

    def adopt(self, partition: TopicPartition, start: int) -> None:
        """Share the row of a partition that comes from several sources of the caller's own."""
        if partition not in self._rows:
            self._rows[partition] = self._table.ensure(partition, start)

    def give_up(self, partitions: Collection[TopicPartition]) -> None:
        """Stop reading these; nothing that is in flight from them is committed."""
        self._table.revoke([partition for partition in partitions if partition in self._rows])
        for partition in partitions:
            self._rows.pop(partition, None)

    def close(self) -> None:
        """Give up all of them."""
        self.give_up(list(self._rows))

    def go_back(self) -> dict[TopicPartition, int]:
        """Begin again at what is durable: what is in flight counts no more, and what is committed is still known.

        Returns where each partition that was taken up begins.
        """
        starts: dict[TopicPartition, int] = {}
        for partition, row in list(self._rows.items()):
            if row.start is None:
                continue
            starts[partition] = row.start if row.committable is None else row.committable
            again = PartitionOffsets(partition, row.resume)
            again.committable, again.tenure = row.committable, row.tenure
            again.committed, again.committed_at, again.commits = row.committed, row.committed_at, row.commits
            self._table.take_up(again, starts[partition])
            self._rows[partition] = again
        return starts

    def hold(self, tenures: Positions) -> None:
        """A member of the group has these partitions, each under this number. Their positions are said again in its name."""
        for partition, tenure in tenures.items():
            row = self._rows[partition]
            row.tenure = tenure
            row.committable, row.committed_at = row.start, -math.inf

    def tenures(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The numbers under which these partitions are held."""
        return {partition: self._rows[partition].tenure for partition in partitions if partition in self._rows}

    def advance(self, positions: Positions) -> None:
        """Records before these offsets have been read."""
        for partition, offset in positions.items():
            row = self._rows.get(partition)
            if row is not None:
                row.read = offset

    def dated(self, times_ms: Positions) -> None:
        """When the last records read were produced, in milliseconds since 1970."""
        for partition, time_ms in times_ms.items():
            row = self._rows.get(partition)
            if row is not None:
                row.read_time_ms = time_ms

    def uncommitted(self, older_than_s: float | None = None, *, as_read: bool = False) -> dict[TopicPartition, int]:
        """The committable offsets that are not committed yet, or were so longer ago than this.

        A group without members loses its offsets after the broker's retention, each by its own last commit. `as_read`: what
        was read counts, whatever has become of it.
        """
        long_ago = self._table.clock() - older_than_s if older_than_s is not None else -math.inf
        return {
            row.partition: offset
            for row in self._rows.values()
            if (offset := row.read if as_read else row.committable) is not None
            and (offset != row.committed or row.committed_at < long_ago)
        }

    def committed(self, positions: Positions) -> None:
        """These offsets have been committed. Raises `IllegalMoveError` for one that was never read."""
        now = self._table.clock()
        for partition, offset in positions.items():
            row = self._rows.get(partition)
            if row is None:
                continue
            if row.read is None:
                raise IllegalMoveError(f"{partition} was committed at {offset}, and was never taken up")
            row.committed, row.committed_at = offset, now

    def restarts(self) -> dict[TopicPartition, int]:
        """Where the next run would begin, by partition; from any thread."""
        return {row.partition: at for row in self.rows if (at := row.restart) is not None}

    def reads(self) -> dict[TopicPartition, int]:
        """The next offset to read, by partition; from any thread."""
        return {row.partition: row.read for row in self.rows if row.read is not None}

    def durable(self) -> Mapping[TopicPartition, int]:
        """A live view of what is durable."""
        return _Column(self._rows, lambda row: row.committable)

    def read(self) -> Mapping[TopicPartition, int]:
        """A live view of the next offsets to read."""
        return _Column(self._rows, lambda row: row.read)


class _Column(Mapping[TopicPartition, int]):
    """One column of some rows, with the current values."""

    def __init__(
        self, rows: Mapping[TopicPartition, PartitionOffsets], column: Callable[[PartitionOffsets], int | None]
    ) -> None:
        self._rows = rows
        self._column = column

    def __getitem__(self, partition: TopicPartition) -> int:
        found = self._column(self._rows[partition])
        if found is None:
            raise KeyError(partition)
        return found

    def __iter__(self) -> Iterator[TopicPartition]:
        return (partition for partition, row in list(self._rows.items()) if self._column(row) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)
