"""Records that the client hands over a second time.

It has done so when the leader of a partition moved while its position was checked, and when partitions were resumed
(librdkafka's issues 4261 and 4637, both mended). Under exactly-once each would be a duplicate that no transaction holds back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress

from confluent_kafka import Message

from loom.core.logger import get_logger
from loom.streaming.record import TopicPartition

__all__ = ["unseen"]

_log = get_logger(__name__)

_topic_of, _partition_of, _offset_of = Message.topic, Message.partition, Message.offset


def unseen(messages: Sequence[Message], positions: Mapping[TopicPartition, int]) -> Sequence[Message]:
    """The records of a batch without those that were handed over before, in it or ahead of it.

    Args:
        messages: the batch; of each partition the offsets rise.
        positions: the next offset of each partition when it was read.
    """
    fresh: list[bool] = []
    ahead = {(partition.topic, partition.partition): offset for partition, offset in positions.items()}
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
    _log.warning("records_handed_over_again", records=again, note="they are passed on once")
    return list(compress(messages, fresh))
