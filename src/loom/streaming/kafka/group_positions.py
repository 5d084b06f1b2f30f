"""Where a group is in the logs that it reads, and where it is moved to. Used by `loom offsets`.

A reset keeps what the runtime keeps beside an offset: whom a start has to shut out (flow, writers), how the partitions are
shared, and how many partitions of a topic have an offset. Only the run changes, so a run that is still alive ends with exit
code 8 at its next commit instead of moving the group back.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from loom.core.model import LoomFrozenStruct
from loom.streaming.kafka.errors import OffsetOutOfRangeError
from loom.streaming.kafka.log_reader import LogReader
from loom.streaming.kafka.offset_metadata import Committed, OffsetMetadata, escaped, partition_counts
from loom.streaming.kafka.offset_reset import LogRange
from loom.streaming.record import TopicPartition

__all__ = ["GroupPosition", "ResetTo", "group_positions", "metadata_after_reset", "offsets_after_reset"]


class GroupPosition(LoomFrozenStruct):
    """One partition: what the group has committed, what the log holds, and how old the next record is."""

    partition: TopicPartition
    log: LogRange
    committed: Committed | None = None
    #: the timestamp of the first record that the group has not read
    next_ms: int | None = None

    @property
    def lag(self) -> int | None:
        """How many offsets lie between the group and the end of the log; `None` without a committed offset."""
        return None if self.committed is None else max(self.log.high - self.committed.offset, 0)

    def lag_ms(self, now_ms: int) -> int | None:
        """How old the first record is that the group has not read; 0 if it has read all."""
        if self.next_ms is not None:
            return max(now_ms - self.next_ms, 0)
        return 0 if self.lag == 0 else None


class ResetTo(LoomFrozenStruct):
    """Where to: the beginning or the end of the log, an offset, or the first record that is not older than a time."""

    end: str | None = None  #: `earliest` or `latest`
    offset: int | None = None
    time_ms: int | None = None


def group_positions(reader: LogReader, partitions: Iterable[TopicPartition]) -> list[GroupPosition]:
    """Where the group of the reader is in these partitions."""
    wanted = sorted(partitions)
    logs, committed = reader.ranges(wanted), reader.committed(wanted)
    behind = {p: had.offset for p, had in committed.items() if had.offset < logs[p].high and logs[p].holds(had.offset)}
    ends = {partition: logs[partition].high for partition in behind}
    nexts = {
        TopicPartition(record.topic, record.partition or 0): record.timestamp_ms
        for record in reader.read(behind, ends, most_each=1)
    }
    return [GroupPosition(p, logs[p], committed.get(p), nexts.get(p)) for p in wanted]


def offsets_after_reset(
    reader: LogReader, positions: Iterable[GroupPosition], to: ResetTo
) -> dict[TopicPartition, int]:
    """The offset that each partition is moved to.

    Raises `OffsetOutOfRangeError` for an offset that a log does not hold.
    """
    logs = {position.partition: position.log for position in positions}
    if to.time_ms is not None:
        return {
            partition: logs[partition].high if offset is None else offset
            for partition, offset in reader.at_time(logs, to.time_ms).items()
        }
    if to.offset is not None:
        outside = [(p, log) for p, log in logs.items() if not log.holds(to.offset)]
        if outside:
            held = "; ".join(f"{p} holds {log.low} to {log.high}" for p, log in outside)
            raise OffsetOutOfRangeError(f"the offset {to.offset} is not in the log: {held}. Nothing was changed")
        return dict.fromkeys(logs, to.offset)
    return {partition: log.low if to.end == "earliest" else log.high for partition, log in logs.items()}


def metadata_after_reset(
    committed: Mapping[TopicPartition, Committed],
    moved: Iterable[TopicPartition],
    numbers: Mapping[str, tuple[int, ...]],
    flow: str | None = None,
) -> dict[TopicPartition, str]:
    """What is committed beside each offset that is moved.

    `committed` is what the group has in all partitions of its topics, `numbers` are the partitions of each topic. `flow`
    is named where no offset names one. A topic's partition count is raised only when each of its partitions then has an
    offset, as a run does.
    """
    wanted = list(moved)
    had = {partition: OffsetMetadata.parse(found.metadata) for partition, found in committed.items()}
    known = next((one for _, one in sorted(had.items()) if one.flow is not None), OffsetMetadata())
    writers = max((one.writers for one in had.values() if one.writers is not None), default=None)
    run, counts = uuid.uuid4().hex[:16], partition_counts(committed)
    covered = {*committed, *wanted}
    for topic, all_of_it in numbers.items():
        if covered.issuperset(TopicPartition(topic, number) for number in all_of_it):
            counts[topic] = len(all_of_it)
    made = {}
    for partition in wanted:
        before = had.get(partition, known)
        before = before if before.flow is not None else known
        named = before.flow or (escaped(flow) if flow is not None else None)
        made[partition] = replace(
            before, flow=named, run=run, writers=writers, partitions=counts.get(partition.topic)
        ).render()
    return made
