"""One consumer client for all partitions of one worker: large batches in, positions out. Hot path: `read`.

Partitions are pinned with `assign()`, so that a restarted flow reads at once and the group serves as offset store. The
client never resets an offset by itself; an offset that the log does not hold is an error here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as ClientPartition
from msgspec.structs import replace

from loom.core.logger import get_logger
from loom.streaming.kafka.client_config import CLIENT_LOG, is_denied, is_transient, make_client
from loom.streaming.kafka.cluster_faults import ClusterFaults, denied
from loom.streaming.kafka.errors import KafkaTransportError, TopicMissingError
from loom.streaming.kafka.group_offsets import TOPIC_GONE, GroupOffsets
from loom.streaming.kafka.offset_metadata import Committed, RunMetadata
from loom.streaming.kafka.offset_reset import LogRange, reset_offset
from loom.streaming.kafka.outage import Clusters
from loom.streaming.kafka.redelivery import without_redelivered
from loom.streaming.kafka.settings import ConsumerSettings
from loom.streaming.kafka.start_offsets import (
    StartPositions,
    log_ranges,
    resolve_start,
    settled_positions,
    settled_ranges,
    start_in,
)
from loom.streaming.record import TopicPartition

__all__ = ["ConsumerClient"]

_log = get_logger(__name__)

_OUT_OF_RANGE = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION})
#: With more partitions than this, only those are asked for their position that a batch is of: an answer costs 0.5 to 3 µs, and
#: to see which partition a record is of 0.04 µs (measured with librdkafka 2.16).
_MANY = 32
#: seconds that a broker may take to say where a topic is; without its answer the client asks again by itself
_LEARN = 0.5
#: seconds that closing may take, and when a commit is unanswered anyway
_CLOSE = 3.0
_NO_ANSWER = 0.5


_error_of, _partition_of = Message.error, Message.partition


def _raise_missing(topic: str, why: str) -> None:
    raise TopicMissingError(f"{topic} is gone: {why}")


class ConsumerClient:
    """Reads the partitions given to `start`. Ended by `close`; used by one thread.

    `gone` is called with a topic that the broker no longer knows, or for which the group has lost its offset; by default the
    former is a `TopicMissingError`. `metadata` is written beside the positions that `group` commits.
    """

    def __init__(
        self,
        settings: ConsumerSettings,
        gone: Callable[[str, str], None] = _raise_missing,
        metadata: RunMetadata | None = None,
        clusters: Clusters | None = None,
    ) -> None:
        self._settings = settings
        self._gone = gone
        #: called between the slices of a wait; what it raises ends the wait
        self.waiting: Callable[[str], None] | None = None
        # The client reports the end of a partition, because the last offsets before it may hold no record
        # (transaction markers, compaction), and the position has to pass them.
        own = {
            "on_commit": self._on_commit,
            "enable.partition.eof": True,
            # The client would store offsets without our metadata.
            "enable.auto.offset.store": False,
        }
        config = settings.to_confluent_config()
        self._faults = clusters.of(config) if clusters is not None else ClusterFaults(config)
        self._consumer = make_client(Consumer, config | own, self._faults)
        #: the group's positions in these partitions
        self.group: GroupOffsets = GroupOffsets(
            self._consumer,
            settings,
            serve=self.serve,
            waiting=self._ask_whether_to_wait,
            gone=gone,
            metadata=metadata,
            faults=self._faults,
        )
        #: what is read, each as the client wants it
        self._client_partitions: dict[TopicPartition, ClientPartition] = {}
        self._positions: dict[TopicPartition, int] = {}
        #: something was read since the positions were last fetched, and of partitions with which numbers, of any topic
        self._stirred = False
        self._stirred_in: set[int | None] = set()
        #: where reading continued because an offset was not in the log, until `moved` returns it
        self._jumped: dict[TopicPartition, int] = {}
        #: how many records were read since then; and, where the positions have not moved by as many, what they were before
        self._read = 0
        self._before: dict[TopicPartition, int] | None = None
        #: partitions whose log was shorter than our offset: reading has continued in what may be another log
        self._in_another_log: set[TopicPartition] = set()
        #: our offsets in topics that were deleted
        self._left: dict[TopicPartition, int] = {}

    def resolve(
        self,
        partitions: Iterable[TopicPartition],
        fallback: Mapping[TopicPartition, int],
        siblings: Iterable[TopicPartition] = (),
        *,
        fallback_first: bool = False,
    ) -> StartPositions:
        """Where to begin with these partitions; see `resolve_start`."""
        return resolve_start(
            self._consumer,
            self._settings,
            partitions,
            fallback,
            self.serve,
            self._faults,
            siblings=siblings,
            fallback_first=fallback_first,
        )

    def start(
        self,
        partitions: Iterable[TopicPartition],
        fallback: Mapping[TopicPartition, int],
        siblings: Iterable[TopicPartition] = (),
        *,
        fallback_first: bool = False,
    ) -> StartPositions:
        """Resolve where to begin with these partitions and begin there; may be called again with others."""
        found = self.resolve(partitions, fallback, siblings, fallback_first=fallback_first)
        self.begin(found.offsets)
        self.group.found(found)
        return found

    def begin(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read these partitions too, from these offsets on. Without any, the client reads nothing and can be asked."""
        if not offsets and not self._client_partitions:
            # A client that was never given a partition does not return from `consume`.
            self._consumer.assign([])
        self._consumer.incremental_assign([ClientPartition(*p, offset) for p, offset in offsets.items()])
        self._client_partitions |= _of_client(offsets)
        self._positions.update(offsets)

    def begin_again(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read partitions that are read already from these offsets on."""
        self._consumer.incremental_unassign(list(_of_client(offsets).values()))
        self.begin(offsets)

    def learn(self, partitions: Iterable[TopicPartition]) -> None:
        """Learn where these partitions are, before `begin`, where nothing else has asked this client about their topics.

        By itself a client asks for a topic that is new to it once a second: the first records of a member that had no
        partition came 0.3 to 0.9 s late (measured with librdkafka 2.16).
        """
        self._learn({p.topic for p in partitions}.difference(p.topic for p in self._positions))

    def _learn(self, topics: Iterable[str]) -> None:
        for topic in sorted(topics):
            try:
                self._consumer.list_topics(topic, timeout=_LEARN)
            except KafkaException as error:
                CLIENT_LOG.info("where %s is: %s", topic, error)

    def give_up(self, partitions: Collection[TopicPartition]) -> None:
        """Read these partitions no more, and forget where they were."""
        ours = [partition for partition in partitions if partition in self._positions]
        if not ours:
            return
        for partition in ours:
            del self._positions[partition]
            self._jumped.pop(partition, None)
            self.group.leave(partition)
        self._consumer.incremental_unassign([ClientPartition(*partition) for partition in ours])
        self._client_partitions = _of_client(self._positions)

    def settled(
        self, partitions: list[TopicPartition], siblings: Iterable[TopicPartition]
    ) -> tuple[dict[TopicPartition, Committed], set[TopicPartition]]:
        """The group's positions, asked once; see `settled_positions`."""
        return settled_positions(self._consumer, self._settings, sorted({*partitions, *siblings}))

    def start_from(
        self, partitions: list[TopicPartition], committed: Mapping[TopicPartition, Committed]
    ) -> StartPositions:
        """Where to begin with these partitions, where the group's positions are known."""
        logs = log_ranges(self._consumer, self._settings, partitions, self.serve, self._faults)
        return start_in(self._settings, logs, committed)

    def start_where_led(
        self, partitions: list[TopicPartition], committed: Mapping[TopicPartition, Committed]
    ) -> StartPositions:
        """As `start_from`, asked once, without the partitions whose leader does not answer."""
        logs = settled_ranges(self._consumer, self._settings, partitions)
        # The client keeps what it knows of a topic, without the partitions that were added since and the leaders that moved.
        self._learn({partition.topic for partition in partitions if partition not in logs})
        return start_in(self._settings, logs, committed)

    def follow(self, found: StartPositions) -> StartPositions:
        """Begin where the group is by now, in partitions that another instance has moved since `start` found them."""
        committed = self.group.committed(found.offsets)
        moved = {p: had.offset for p, had in committed.items() if had != found.committed.get(p)}
        if moved:
            self.begin_again(moved)
            _log.info("start_offsets_moved", partitions=len(moved), first=str(min(moved)))
        now = replace(found, offsets={**found.offsets, **moved}, committed={**found.committed, **committed})
        self.group.found(now)
        return now

    @property
    def positions(self) -> Mapping[TopicPartition, int]:
        """The next offset to read of each partition, when last fetched."""
        return self._positions

    def group_metadata(self) -> Any:
        """What ties positions to the group in a transaction; the client's own object."""
        return self._consumer.consumer_group_metadata()

    def read(self, most: int, wait_s: float) -> Sequence[Message]:
        """At most `most` records; waits up to `wait_s` seconds for the first, and for no second."""
        first = self._consumer.poll(wait_s) if wait_s > 0 else None
        if first is None:
            messages = self._consumer.consume(most, 0)
        else:
            messages = [first, *self._consumer.consume(most - 1, 0)] if most > 1 else [first]
        if any(map(_error_of, messages)):
            messages = [message for message in messages if self._is_record(message)]
        if messages:
            self._stirred = True
            self._read += len(messages)
            if len(self._client_partitions) > _MANY:
                self._stirred_in.update(map(_partition_of, messages))
        return messages

    def moved(self) -> Mapping[TopicPartition, int]:
        """The positions that have changed since the last call: the next offset to read of each partition."""
        if not self._stirred:
            return {}
        self._stirred = False
        moved, self._jumped = self._jumped, {}
        positions, ours = self._positions, self._client_partitions
        if len(ours) > _MANY:
            stirred_in = self._stirred_in
            ours = {partition: asked for partition, asked in ours.items() if partition.partition in stirred_in}
        self._stirred_in.clear()
        # What was read of a partition whose log is another one by now is in no order.
        before = dict.fromkeys(moved, 0)
        surplus, self._read = self._read, 0
        # Asked after each batch. The client answers in the order of the question.
        for partition, found in zip(ours, self._consumer.position(list(ours.values())), strict=True):
            offset, had = found.offset, positions.get(partition)
            if offset >= 0 and had != offset:
                if had is not None:
                    before.setdefault(partition, had)
                    surplus -= offset - had
                positions[partition] = moved[partition] = offset
        self._before = before if surplus else None
        return moved

    def without_redelivered(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Of the records read before the last `moved`, those that the client had not delivered before."""
        before = self._before
        return messages if before is None else without_redelivered(messages, {**self._positions, **before})

    def lag(self) -> int:
        """Offsets between what was read and the ends of the logs, as far as the client knows them. Makes no request."""
        behind = 0
        for partition, position in self._positions.items():
            try:
                _, end = self._consumer.get_watermark_offsets(ClientPartition(*partition), cached=True)
            except KafkaException:
                continue
            behind += max(end - position, 0)
        return behind

    def leave(self, topic: str) -> None:
        """The topic is gone: read it no more, and answer for its positions no more."""
        gone = {partition: offset for partition, offset in self._positions.items() if partition.topic == topic}
        self._left |= gone
        self.give_up(gone)

    def restart_topic(self, topic: str) -> None:
        """The topic was recreated, so our offsets belong to another log: `on_out_of_range` says where to continue.

        Raises `OffsetOutOfRangeError` under `fail`.
        """
        self.leave(topic)
        again = [partition for partition in self._left if partition.topic == topic]
        logs = self._logs([partition for partition in again if partition not in self._in_another_log])
        for partition in again:
            position = self._left.pop(partition)
            if partition in self._in_another_log:
                self._in_another_log.discard(partition)
                self._assign(partition, position)
            else:
                self._assign(
                    partition, reset_offset(self._settings, partition, position, logs[partition], recreated=True)
                )
        self._client_partitions = _of_client(self._positions)

    def serve(self, wait_s: float) -> None:
        """Let the client work while nothing is to be read: all partitions are paused during the call."""
        self._ask_whether_to_wait()
        self._consumer.pause(list(self._client_partitions.values()))
        try:
            message = self._consumer.poll(wait_s)
            if message is not None and message.error() is not None:
                self._is_record(message)
        finally:
            self._consumer.resume(list(self._client_partitions.values()))

    def hold(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop reading these partitions."""
        held = set(partitions)
        self._consumer.pause(list(_of_client(held).values()))
        self._client_partitions = _of_client(each for each in self._client_partitions if each not in held)

    def close(self) -> None:
        """Close the client. Confirms nothing of ours; never raises.

        The client's own close() waits for every commit in flight, 45 s each while the broker is unreachable (measured), and
        so does deleting it. Such a client is abandoned, and ends with the process.
        """
        closing = threading.Thread(target=self._close, name="loom-closing", daemon=True)
        closing.start()
        closing.join(_NO_ANSWER if self.group.commit_outstanding else _CLOSE)
        if closing.is_alive():
            _log.warning("consumer_abandoned", reason="the broker does not answer while the client is closed")

    def _ask_whether_to_wait(self) -> None:
        if self.waiting is not None:
            self.waiting("an answer of the broker")

    def _close(self) -> None:
        try:
            self._consumer.close()
        except Exception as error:  # noqa: BLE001 - an error of close() must not hide what the run ended with
            _log.warning("close_failed", what="consumer", reason=str(error))

    def _on_commit(self, error: KafkaError | None, partitions: list[ClientPartition]) -> None:
        self.group.answered(error, partitions)

    def _is_record(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        topic, number, offset = message.topic(), message.partition(), message.offset()
        if is_transient(error):
            # The client retries; that its brokers are unreachable is logged elsewhere.
            CLIENT_LOG.warning("reading %s[%s]: %s", topic, number, error.str())
        elif is_denied(error):
            what = f"{topic} cannot be read" if topic else f"the group {self._settings.group_id!r} cannot be used"
            raise denied(error, what)
        elif topic is None or number is None or offset is None:
            raise KafkaTransportError(f"reading failed: {error.str()}")
        elif error.code() == KafkaError._PARTITION_EOF:
            if self._positions.get(TopicPartition(topic, number)) != offset:
                self._stirred = True
                self._stirred_in.add(number)
        elif error.code() in _OUT_OF_RANGE:
            self._reset(TopicPartition(topic, number), offset)
        elif error.code() in TOPIC_GONE:
            self._gone(topic, error.str())
        else:
            raise KafkaTransportError(f"reading {topic}[{number}] failed: {error.str()}")
        return False

    def _logs(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, LogRange]:
        return log_ranges(self._consumer, self._settings, partitions, self.serve, self._faults)

    def _reset(self, partition: TopicPartition, position: int) -> None:
        """Continue where the settings say, because the log does not hold our offset. The client would wait there."""
        log = self._logs([partition])[partition]
        offset = reset_offset(self._settings, partition, position, log)
        if position > log.high:
            self._in_another_log.add(partition)
        self._consumer.incremental_unassign([ClientPartition(*partition)])
        self._assign(partition, offset)

    def _assign(self, partition: TopicPartition, offset: int) -> None:
        self._consumer.incremental_assign([ClientPartition(*partition, offset)])
        self._positions[partition] = self._jumped[partition] = offset
        self._stirred = True
        self._stirred_in.add(partition.partition)


def _of_client(partitions: Iterable[TopicPartition]) -> dict[TopicPartition, ClientPartition]:
    return {partition: ClientPartition(*partition) for partition in partitions}
