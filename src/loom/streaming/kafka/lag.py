"""Is there a record at or after an offset? Asked by the watchdog, with a client of its own, about a flow without progress.

The end of a log is not enough: its last offsets may be transaction markers, and whole ranges may be compacted away. So one
record is read, as the flow would read it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from loom.streaming.kafka.client_config import is_transient, kafka_error, make_client
from loom.streaming.kafka.errors import BrokerUnavailableError
from loom.streaming.kafka.settings import ConsumerSettings
from loom.streaming.record import TopicPartition

__all__ = ["records_behind"]

#: seconds of one call; between two the caller decides whether to continue
_SLICE = 0.1
_CALL = 1.0
#: seconds in which the partitions must answer
_REACH = 10.0

#: commits nothing, reports the end of a log, and fetches as little as possible
_LOOKING = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "queued.min.messages": 1,
    "max.partition.fetch.bytes": 1024,
}


def records_behind(
    settings: ConsumerSettings, positions: Mapping[TopicPartition, int], keep_going: Callable[[], bool]
) -> dict[TopicPartition, int]:
    """The partitions that hold a record at or after these offsets, each with the distance to its end.

    A partition that does not answer while others do is left out. `keep_going` is called between the slices of every wait; `False`
    ends the search with what is known.

    Raises `BrokerUnavailableError` if no partition answers, or the offsets of the group are not available.
    """
    consumer = make_client(Consumer, settings.to_confluent_config() | _LOOKING)
    try:
        asked = [ClientPartition(*partition, offset) for partition, offset in positions.items()]
        _ask_group(consumer, asked, keep_going)
        consumer.assign(asked)
        unanswered = set(positions)
        found: list[TopicPartition] = []
        deadline = time.monotonic() + _REACH
        while unanswered and time.monotonic() < deadline and keep_going():
            message = consumer.poll(_SLICE)
            if message is None:
                continue
            topic, number, error = message.topic(), message.partition(), message.error()
            if topic is None or number is None or (error is not None and error.code() != KafkaError._PARTITION_EOF):
                continue
            partition = TopicPartition(topic, number)
            if partition in unanswered:
                unanswered.discard(partition)
                consumer.incremental_unassign([ClientPartition(*partition)])
                if error is None:
                    found.append(partition)
        if len(unanswered) == len(positions) and keep_going():
            raise BrokerUnavailableError(f"no partition answers within {_REACH:.0f} s")
        return {partition: _distance(consumer, partition, positions[partition]) for partition in found}
    finally:
        consumer.close()


def _ask_group(consumer: Consumer, asked: list[ClientPartition], keep_going: Callable[[], bool]) -> None:
    """Offsets can be committed only if they can be fetched."""
    deadline = time.monotonic() + _REACH
    while keep_going():
        try:
            consumer.committed(asked, timeout=_CALL)
            return
        except KafkaException as error:
            found = kafka_error(error)
        if not is_transient(found) or time.monotonic() > deadline:
            raise BrokerUnavailableError(f"the offsets of the group are not available: {found.str()}") from None


def _distance(consumer: Consumer, partition: TopicPartition, position: int) -> int:
    try:
        # Known from the record that was read: no request.
        _, end = consumer.get_watermark_offsets(ClientPartition(*partition), cached=True)
    except KafkaException:
        return 1
    return max(int(end) - position, 1)
