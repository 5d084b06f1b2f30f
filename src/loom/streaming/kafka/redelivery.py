"""Records that the client delivers a second time.

It has done so when the leader of a partition moved while its position was checked, and when partitions were resumed
(librdkafka's issues 4261 and 4637, both mended). Under exactly-once each would be a duplicate that no transaction holds back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress

from confluent_kafka import Message

from loom.core.logger import get_logger
from loom.streaming.record import TopicPartition

__all__ = ["without_redelivered"]

_log = get_logger(__name__)

_topic_of, _partition_of, _offset_of = Message.topic, Message.partition, Message.offset


def without_redelivered(messages: Sequence[Message], positions: Mapping[TopicPartition, int]) -> Sequence[Message]:
    """The records of a batch without those that were delivered before, in it or ahead of it.

    Args:
        messages: the batch; of each partition the offsets rise.
        positions: the next offset of each partition when it was read.
    """
    fresh: list[bool] = []
    ahead: dict[tuple[str, int], int] = dict(positions.items())
    for topic, number, offset in zip(
        map(_topic_of, messages), map(_partition_of, messages), map(_offset_of, messages), strict=True
    ):
        # Only events lack them.
        assert topic is not None
        assert number is not None
        assert offset is not None
        partition = topic, number
        fresh.append(is_fresh := offset >= ahead.get(partition, 0))
        if is_fresh:
            ahead[partition] = offset + 1
    again = fresh.count(False)
    if not again:
        return messages
    _log.warning("records_redelivered", records=again, note="the client delivered them twice; they are passed on once")
    return list(compress(messages, fresh))
