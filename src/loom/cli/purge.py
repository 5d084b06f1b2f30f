"""`loom dlq purge`: how much of each log of dead letters can go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom.cli.dlq import LetterFilter, LetterScene
from loom.core.model import LoomFrozenStruct
from loom.streaming.record import TopicPartition

if TYPE_CHECKING:
    from loom.streaming.kafka.log_reader import LogReader

__all__ = ["Cut", "plan_purge"]


class Cut(LoomFrozenStruct):
    """Where a log is cut: letters before `offset` go, of which so many were not replayed."""

    partition: TopicPartition
    offset: int
    letters: int = 0
    lost: int = 0


def plan_purge(scene: LetterScene, reader: LogReader, before_ms: int | None) -> list[Cut]:
    """Where to cut each log: at the first letter that was not replayed, or with a time at the first that is not older."""
    logs = reader.ranges(scene.partitions)
    offsets = {partition: log.low for partition, log in logs.items()}
    letters, lost = dict.fromkeys(logs, 0), dict.fromkeys(logs, 0)
    stopped: set[TopicPartition] = set()
    for found in scene.letters(reader, LetterFilter(), logs):
        record = found.letter.record
        partition = TopicPartition(record.topic, record.partition or 0)
        goes = found.replayed if before_ms is None else (record.timestamp_ms or 0) < before_ms
        if not goes:
            stopped.add(partition)
        if partition in stopped:
            continue
        letters[partition] += 1
        lost[partition] += not found.replayed
        offsets[partition] = (record.offset or 0) + 1
    return [Cut(p, offsets[p], letters[p], lost[p]) for p in sorted(logs)]
