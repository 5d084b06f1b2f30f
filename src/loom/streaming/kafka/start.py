"""Where to begin with partitions: the group's position, else a fallback, else the reset policy as a real offset.

Asked by a reader before it reads, and by the exactly-once start, which reads positions behind its fencing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from loom.core.logger import get_logger
from loom.core.model import LoomFrozenStruct
from loom.streaming.kafka.client_config import is_transient, kafka_error
from loom.streaming.kafka.errors import BrokerUnavailableError, KafkaTransportError
from loom.streaming.kafka.offset_metadata import Committed, partition_counts
from loom.streaming.kafka.out_of_range import LogRange, go_on_after_expiry, go_on_at
from loom.streaming.kafka.record import TopicPartition
from loom.streaming.kafka.settings import ConsumerSettings

__all__ = ["StartPositions", "committed_positions", "log_range", "resolve_start"]

_log = get_logger(__name__)

#: seconds within which the positions to start at must be known
_START = 12.0
#: seconds of one call within that time: no signal is heard meanwhile
_CALL = 2.0
#: what one broker says of a topic that another has just made
_NOT_YET = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})

A = TypeVar("A")
#: lets the client work while a fault may pass; the time is in seconds
Pause = Callable[[float], Any]


class StartPositions(LoomFrozenStruct):
    """Where to begin, and what the group knew of it."""

    offsets: Mapping[TopicPartition, int]
    #: the partitions that the group had no position for
    unknown: tuple[TopicPartition, ...]
    #: what the group had, of these partitions and of their siblings
    committed: Mapping[TopicPartition, Committed]


def resolve_start(
    consumer: Consumer,
    settings: ConsumerSettings,
    partitions: Iterable[TopicPartition],
    fallback: Mapping[TopicPartition, int],
    pause: Pause,
    *,
    siblings: Iterable[TopicPartition] = (),
) -> StartPositions:
    """Where to begin with these partitions.

    The group's position comes first, then `fallback` (a recovery snapshot's). Of a partition that has neither, the
    partition count beside the positions of its topic tells what it is; `siblings` are further partitions whose positions
    may name it. A number that is not below the count is a new partition: it begins where its log begins. One below it has
    lost its position: `on_out_of_range` decides. Without a count the group is new in this topic: `auto_offset_reset`, as
    a real offset.

    Raises `OffsetOutOfRangeError` for a position that the log does not hold, or that has expired, unless
    `on_out_of_range` says where to go.
    """
    deadline = time.monotonic() + _START
    wanted = sorted(partitions)
    committed = committed_positions(consumer, settings, sorted({*wanted, *siblings}), pause, deadline=deadline)
    counts = partition_counts(committed)
    offsets, unknown = {}, []
    for partition in wanted:
        log = log_range(consumer, settings, partition, pause, deadline=deadline)
        if partition in committed:
            offset = committed[partition].offset
        else:
            unknown.append(partition)
            count = counts.get(partition.topic)
            offset = fallback[partition] if partition in fallback else _first_offset(settings, partition, log, count)
        offsets[partition] = offset if log.holds(offset) else go_on_at(settings, partition, offset, log)
    return StartPositions(offsets, tuple(unknown), committed)


def _first_offset(settings: ConsumerSettings, partition: TopicPartition, log: LogRange, count: int | None) -> int:
    """Where to begin with a partition that nobody has a position for."""
    if count is None:
        return log.low if settings.auto_offset_reset == "earliest" else log.high
    if partition.partition < count:
        return go_on_after_expiry(settings, partition, log)
    _log.warning(
        "partition_added",
        partition=str(partition),
        partitions_before=count,
        begins_at=log.low,
        why="it was added since the group's last start: its log is read from the beginning",
    )
    return log.low


def committed_positions(
    consumer: Consumer,
    settings: ConsumerSettings,
    partitions: Iterable[TopicPartition],
    pause: Pause,
    *,
    deadline: float | None = None,
) -> dict[TopicPartition, Committed]:
    """The positions that the group has of these partitions."""
    asked = [ClientPartition(*partition) for partition in partitions]
    found = _until(deadline, settings, pause, lambda left: _committed(consumer, asked, left))
    return {TopicPartition(p.topic, p.partition): Committed(p.offset, p.metadata or "") for p in found if p.offset >= 0}


def log_range(
    consumer: Consumer,
    settings: ConsumerSettings,
    partition: TopicPartition,
    pause: Pause,
    *,
    deadline: float | None = None,
) -> LogRange:
    """What the log of a partition holds now."""
    asked = ClientPartition(*partition)
    low, high = _until(
        deadline, settings, pause, lambda left: consumer.get_watermark_offsets(asked, timeout=left, cached=False)
    )
    return LogRange(low, high)


def _committed(consumer: Consumer, asked: list[ClientPartition], left: float) -> list[ClientPartition]:
    found = consumer.committed(asked, timeout=left)
    for partition in found:
        if partition.error is not None:
            # Of one partition or of all, it is the same kind of fault.
            raise KafkaException(partition.error)
    return found


def _until(deadline: float | None, settings: ConsumerSettings, pause: Pause, call: Callable[[float], A]) -> A:
    """Repeat a call whose fault may pass, until the deadline."""
    deadline = deadline or time.monotonic() + _START
    while True:
        left = deadline - time.monotonic()
        try:
            return call(max(min(left, _CALL), 0.1))
        except KafkaException as error:
            found = kafka_error(error)
            if not is_transient(found) and found.code() not in _NOT_YET:
                raise KafkaTransportError(f"the start positions are not to be had: {found.str()}") from None
            if time.monotonic() >= deadline:
                raise BrokerUnavailableError(
                    f"the start positions of group {settings.group_id!r} were not to be had within {_START:.0f} s: {found.str()}"
                ) from None
        pause(0.1)
