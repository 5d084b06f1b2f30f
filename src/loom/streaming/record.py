"""A record of Kafka and its position. No client is imported here.

Sources and dead letters use `KafkaRecord`; offsets are kept by `TopicPartition`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from loom.core.model import LoomFrozenStruct

__all__ = ["NO_TIMESTAMP", "KafkaRecord", "TopicPartition", "TopicPartitionOffset"]

#: the timestamp of a record without one (Kafka protocol); other negative timestamps are times before 1970
NO_TIMESTAMP = -1


class TopicPartition(NamedTuple):
    """One partition of one topic; the key under which offsets are kept.

    >>> str(TopicPartition("orders.raw", 3))
    'orders.raw[3]'

    Args:
        topic: its name.
        partition: its number, from 0.
    """

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class KafkaRecord(LoomFrozenStruct):
    """One Kafka record, as bytes.

    >>> record = KafkaRecord("orders.raw", key=b"7", value=b'{"id": 7}', headers={"source": b"web"})
    >>> record.offset is None
    True

    Args:
        topic: the physical topic.
        key: the key, if it has one.
        value: the value; `None` for a tombstone.
        headers: by name.
        partition: where it was read; `None` for a record that was not.
        offset: as `partition`.
        timestamp_ms: milliseconds since 1970; `None` if it has none.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes] = {}
    partition: int | None = None
    offset: int | None = None
    timestamp_ms: int | None = None


class TopicPartitionOffset(NamedTuple):
    """Where a record was read; every part is `None` if it was not read from a broker."""

    topic: str | None
    partition: int | None
    offset: int | None

    def __str__(self) -> str:
        if self.topic is None:
            return "a record without a position"
        return f"{self.topic}[{self.partition}]@{self.offset}"
