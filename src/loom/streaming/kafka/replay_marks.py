"""Which dead letters have been replayed: one bit for each offset, in a compacted topic beside them.

A mark is written in the transaction that replays its letter, so both are there or neither. A consumer group's offset would
not do: letters are replayed by filters, in any order, and brokers forget the offsets of a group that is idle for a week.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from loom.streaming.record import TopicPartition

if TYPE_CHECKING:
    from loom.streaming.kafka.log_reader import LogReader

__all__ = ["MARKS_TOPIC", "ReplayMarks"]

MARKS_TOPIC = "loom-dlq-replays"
#: offsets of one record of the topic
_BLOCK = 4096


class ReplayMarks:
    """The marks of some topics of dead letters. `topic_ids` tell a topic from one of the same name that was deleted."""

    def __init__(self, topic_ids: Mapping[str, str]) -> None:
        self._ids = dict(topic_ids)
        self._blocks: dict[bytes, bytearray] = {}

    def load(self, reader: LogReader, partitions: Iterable[TopicPartition]) -> None:
        """Read all marks; `partitions` are those of the marks' topic, of which there are none before the first replay."""
        logs = reader.ranges(partitions)
        start, until = ({p: getattr(log, end) for p, log in logs.items()} for end in ("low", "high"))
        for record in reader.read(start, until):
            if record.key is not None:
                self._blocks[record.key] = bytearray(record.value or b"")

    def __contains__(self, letter: tuple[str, int, int]) -> bool:
        topic, partition, offset = letter
        block = self._blocks.get(self._key(topic, partition, offset))
        place = offset % _BLOCK
        return block is not None and place // 8 < len(block) and bool(block[place // 8] >> place % 8 & 1)

    def mark(self, letters: Iterable[tuple[str, int, int]]) -> dict[bytes, bytes]:
        """Note letters as replayed. Returns the records that say so, value by key."""
        changed = set()
        for topic, partition, offset in letters:
            key = self._key(topic, partition, offset)
            block = self._blocks.setdefault(key, bytearray())
            place = offset % _BLOCK
            block.extend(bytes(max(0, place // 8 + 1 - len(block))))
            block[place // 8] |= 1 << place % 8
            changed.add(key)
        return {key: bytes(self._blocks[key]) for key in sorted(changed)}

    def _key(self, topic: str, partition: int, offset: int) -> bytes:
        return f"{topic}/{self._ids.get(topic, '-')}/{partition}/{offset // _BLOCK}".encode()
