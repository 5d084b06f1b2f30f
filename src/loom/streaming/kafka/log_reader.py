"""Reads records outside of any group: from where one wants to where the log ends, and what a group has committed.

Used by the tools of the command line. A flow reads with the consumer client of its worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as ClientPartition

from loom.streaming.kafka.client_config import is_denied, is_transient, kafka_error, make_client
from loom.streaming.kafka.client_records import CLIENT_RECORDS
from loom.streaming.kafka.cluster_faults import ClusterFaults, denied
from loom.streaming.kafka.errors import BrokerUnavailableError, KafkaTransportError, SecondInstanceError
from loom.streaming.kafka.group_offsets import HAS_MEMBERS
from loom.streaming.kafka.interruptible import call_interruptibly
from loom.streaming.kafka.offset_metadata import Committed
from loom.streaming.kafka.offset_reset import LogRange
from loom.streaming.kafka.settings import ConsumerSettings
from loom.streaming.kafka.start_offsets import committed_positions, log_ranges
from loom.streaming.record import KafkaRecord, TopicPartition

__all__ = ["LogReader"]

#: seconds of one wait on the client, and of one request
_SLICE = 0.1
_CALL = 10.0
#: seconds without an answer of any partition
_REACH = 15.0
#: records of one call
_MOST = 500

#: commits nothing, and reports the end of a log
_READING = {"enable.auto.commit": False, "enable.auto.offset.store": False, "enable.partition.eof": True}


class LogReader:
    """Reads partitions of one cluster, committed records only. Used by one thread; leave its `with` block to close it."""

    def __init__(self, settings: ConsumerSettings) -> None:
        self._settings = settings
        config = settings.to_confluent_config()
        self._faults = ClusterFaults(config)
        self._consumer = make_client(Consumer, config | _READING, self._faults)

    def ranges(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, LogRange]:
        """What the logs hold now; transactions that are still open are not counted."""
        wanted = list(partitions)
        return log_ranges(self._consumer, self._settings, wanted, self._pause, self._faults) if wanted else {}

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Committed]:
        """The offsets of the group of the settings, where it has any."""
        wanted = list(partitions)
        return committed_positions(self._consumer, self._settings, wanted, self._pause, self._faults) if wanted else {}

    def at_time(self, partitions: Iterable[TopicPartition], timestamp_ms: int) -> dict[TopicPartition, int | None]:
        """The first offset whose record is not older than this; `None` where every record is."""
        asked = [ClientPartition(*partition, timestamp_ms) for partition in partitions]
        try:
            found = call_interruptibly(lambda: self._consumer.offsets_for_times(asked, timeout=_CALL), lambda: None)
        except KafkaException as error:
            raise self._error(kafka_error(error), "the offsets of that time are not known") from None
        for one in found:
            if one.error is not None:
                raise self._error(one.error, f"the offsets of that time in {one.topic}[{one.partition}] are not known")
        return {TopicPartition(p.topic, p.partition): p.offset if p.offset >= 0 else None for p in found}

    def commit(self, positions: Mapping[TopicPartition, tuple[int, str]]) -> None:
        """Commit offsets of the group, each with its metadata.

        Raises `SecondInstanceError` while consumers are subscribed with the group, `KafkaTransportError` for any other
        refusal; then nothing, or a part, is committed.
        """
        wanted = [ClientPartition(*p, offset, metadata) for p, (offset, metadata) in positions.items()]
        try:
            answers = call_interruptibly(
                lambda: self._consumer.commit(offsets=wanted, asynchronous=False) or [], lambda: None
            )
        except KafkaException as error:
            raise self._refused(kafka_error(error)) from None
        for answer in answers:
            if answer.error is not None:
                raise self._refused(answer.error)

    def read(
        self,
        start: Mapping[TopicPartition, int],
        until: Mapping[TopicPartition, int],
        *,
        most_each: int | None = None,
        keep_going: Callable[[], bool] = lambda: True,
    ) -> Iterator[KafkaRecord]:
        """The records from `start` up to, and without, `until`, at most so many of each partition.

        Order holds within a partition only. Offsets without a record (transaction markers, compaction) are passed over.
        """
        left = {p: until[p] for p, offset in start.items() if offset < until[p] and most_each != 0}
        taken = dict.fromkeys(left, 0)
        if not left:
            return
        self._consumer.assign([ClientPartition(*partition, start[partition]) for partition in left])
        try:
            heard = time.monotonic()
            while left and keep_going():
                for found in self._consumer.consume(_MOST, _SLICE):
                    partition, offset = self._place(found)
                    heard = time.monotonic()
                    if partition is None or partition not in left:
                        continue
                    is_record = found.error() is None
                    if is_record and offset < left[partition]:
                        taken[partition] += 1
                        yield CLIENT_RECORDS.record_left(found)
                        heard = time.monotonic()  # the time that the caller took is no silence of the broker
                    # The end of the log is reported without a record.
                    if offset + is_record >= left[partition] or taken[partition] == most_each or not is_record:
                        del left[partition]
                        self._consumer.incremental_unassign([ClientPartition(*partition)])
                if left and time.monotonic() - heard > _REACH:
                    raise self._faults.failure(f"{min(left)} was not read within {_REACH:.0f} s")
        finally:
            self._consumer.unassign()

    def follow(self, start: Mapping[TopicPartition, int], keep_going: Callable[[], bool]) -> Iterator[KafkaRecord]:
        """The records from `start` on, and each that comes, until `keep_going` says no."""
        self._consumer.assign([ClientPartition(*partition, offset) for partition, offset in start.items()])
        try:
            while keep_going():
                for found in self._consumer.consume(_MOST, _SLICE):
                    self._place(found)
                    if found.error() is None:
                        yield CLIENT_RECORDS.record_left(found)
                if self._faults.refuses:
                    raise self._faults.failure("the topic cannot be read")
        finally:
            self._consumer.unassign()

    def close(self) -> None:
        """Release the client. Idempotent."""
        self._consumer.close()

    def __enter__(self) -> LogReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _pause(self, seconds: float) -> None:
        """Let the client work while an error may pass. Without an assignment there is nothing to receive."""
        self._consumer.poll(seconds)

    def _place(self, found: Message) -> tuple[TopicPartition | None, int]:
        """Where a record or an end was read; raises for an error that does not pass."""
        error = found.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF and not is_transient(error):
            raise self._error(error, f"{found.topic() or 'the topic'} cannot be read")
        topic, partition, offset = found.topic(), found.partition(), found.offset()
        if topic is None or partition is None or offset is None or (error is not None and is_transient(error)):
            return None, -1
        return TopicPartition(topic, partition), offset

    def _error(self, error: KafkaError, what: str) -> KafkaTransportError:
        if is_denied(error):
            return denied(error, what)
        if is_transient(error):
            return BrokerUnavailableError(f"{what}: {self._faults.explain() or error.str()}")
        return KafkaTransportError(f"{what}: {error.str()}")

    def _refused(self, error: KafkaError) -> KafkaTransportError:
        what = f"the offsets of the group {self._settings.group_id!r} cannot be changed"
        if error.code() in HAS_MEMBERS:
            return SecondInstanceError(
                f"{what} while consumers are subscribed with it: stop them first ({error.str()})"
            )
        return self._error(error, what)
