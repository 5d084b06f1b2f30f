"""Write numbered records to a broker and read back all it holds: both ends of a test, outside of what is tested."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.support.waiting import LONG_S

Headers = list[tuple[str, str | bytes | None]]
Isolation = Literal["read_uncommitted", "read_committed"]
Answer = TypeVar("Answer")

#: Seconds for one question to the broker; every wait below asks again until its own deadline.
_ANSWER_WITHIN = 10.0

#: Clients of tests outlive a broker that is down for a while and say so only by failing in the end. Quick reconnects
#: keep the time that an outage costs close to the outage.
_CLIENT = {"log_level": 0, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 500}

#: What a consumer reports, and outlives, while its broker is away or just back.
_PASSING = {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError.UNKNOWN_TOPIC_OR_PART}


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """One record as it stands in a topic."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int


def decimal(number: int) -> bytes:
    """The default value of a numbered record."""
    return b"%d" % number


def create_topic(
    bootstrap: str,
    name: str,
    partitions: int = 1,
    config: Mapping[str, str] | None = None,
    *,
    replicas: int = 1,
    timeout: float = LONG_S,
) -> str:
    """Create a topic, wait until all its partitions have a leader, and return its name."""
    deadline = time.monotonic() + timeout
    admin = AdminClient(_client(bootstrap))
    topic = NewTopic(name, num_partitions=partitions, replication_factor=replicas, config=dict(config or {}))
    admin.create_topics([topic], request_timeout=timeout)[name].result(timeout)
    while not _has_leaders(admin, name, partitions):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the partitions of {name} have no leader after {timeout} s")
        time.sleep(0.02)
    return name


def delete_topic(bootstrap: str, name: str, *, timeout: float = LONG_S) -> None:
    """Delete a topic and what it holds."""
    admin = AdminClient(_client(bootstrap))
    admin.delete_topics([name], request_timeout=timeout)[name].result(timeout)


def produce_numbered(
    bootstrap: str,
    topic: str,
    count: int,
    *,
    start: int = 0,
    rate: float | None = None,
    partitions: int | None = None,
    value: Callable[[int], bytes | None] = decimal,
    key: Callable[[int], bytes | None] = decimal,
    headers: Callable[[int], Headers] | None = None,
    timeout: float = 600.0,
) -> None:
    """Write the records `start` … `start + count - 1`, in order, and return when the broker has acknowledged each.

    Record n goes to partition `n % partitions` (default: all that the topic has), so the numbers of a partition rise
    and `n % partitions` tells where a record stood. `rate` is in records per second; without it, as fast as the broker
    takes them. A broker that is away or restarts is waited for, up to `timeout` seconds for each record and for the
    end. Raises `RuntimeError` when any record could not be delivered.
    """
    failures: list[str] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failures.append(f"{message.topic()}/{message.partition()}: {error}")

    producer = Producer(
        _client(bootstrap)
        | {"enable.idempotence": True, "acks": "all", "linger.ms": 5, "message.timeout.ms": int(timeout * 1000)}
    )
    lanes = partitions or len(partitions_of(bootstrap, topic))
    began = time.monotonic()
    for done in range(count):
        number = start + done
        if rate is not None:
            _serve_until(producer, began + done / rate)
        produce = partial(
            producer.produce,
            topic,
            key=key(number),
            value=value(number),
            partition=number % lanes,
            headers=headers(number) if headers is not None else None,
            on_delivery=delivered,
        )
        _when_there_is_room(producer, produce, timeout)
    remaining = producer.flush(timeout)
    if failures or remaining:
        raise RuntimeError(f"{len(failures)} records failed, {remaining} without an answer: {failures[:3]}")


def read_all(
    bootstrap: str, topic: str, *, isolation: Isolation = "read_uncommitted", timeout: float = LONG_S
) -> list[ReadRecord]:
    """All records of a topic up to the end that each partition has at this call, in order within a partition.

    The end is the high watermark under either isolation: with `read_committed` a transaction that is still open there
    is waited for. `TimeoutError` names the partitions whose end was not reached.
    """
    return [_record(message) for message in _read(bootstrap, topic, isolation, timeout)]


def count_records(
    bootstrap: str, topic: str, *, isolation: Isolation = "read_uncommitted", timeout: float = LONG_S
) -> int:
    """How many records `read_all` would return; transaction markers and other gaps in the offsets are not counted."""
    return sum(1 for _ in _read(bootstrap, topic, isolation, timeout))


def partitions_of(bootstrap: str, topic: str, *, timeout: float = LONG_S) -> list[int]:
    """The numbers of a topic's partitions; asks until the broker answers."""
    admin = AdminClient(_client(bootstrap))

    def named() -> list[int]:
        found = admin.list_topics(topic, timeout=min(timeout, _ANSWER_WITHIN)).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        return sorted(found.partitions)

    return _ask(named, f"did not name the partitions of {topic}", time.monotonic() + timeout)


def end_offsets(bootstrap: str, topic: str, *, timeout: float = LONG_S) -> dict[int, int]:
    """The high watermark of each partition: the offset that the next record will get."""
    consumer = Consumer(_consumer(bootstrap, "read_uncommitted"))
    deadline = time.monotonic() + timeout
    try:
        return {
            partition: _watermarks(consumer, topic, partition, deadline)[1]
            for partition in partitions_of(bootstrap, topic, timeout=timeout)
        }
    finally:
        consumer.close()


def group_positions(bootstrap: str, group: str, topic: str, *, timeout: float = LONG_S) -> dict[int, int]:
    """The position that a group has confirmed for each partition, without those where it has confirmed none."""
    partitions = [TopicPartition(topic, number) for number in partitions_of(bootstrap, topic, timeout=timeout)]
    consumer = Consumer(_consumer(bootstrap, "read_uncommitted") | {"group.id": group})

    def confirmed() -> dict[int, int]:
        found = consumer.committed(partitions, _ANSWER_WITHIN)
        for one in found:
            if one.error is not None:
                raise KafkaException(one.error)
        return {one.partition: one.offset for one in found if one.offset >= 0}

    try:
        return _ask(confirmed, f"did not tell the positions of {group}", time.monotonic() + timeout)
    finally:
        consumer.close()


def await_topics_listed(bootstrap: str, deadline: float, *, while_: Callable[[], bool] = lambda: True) -> None:
    """Return when the broker lists its topics; `TimeoutError` at the deadline, or as soon as `while_()` is false."""
    admin = AdminClient(_client(bootstrap))
    _ask(lambda: admin.list_topics(timeout=_ANSWER_WITHIN), "does not list its topics", deadline, while_)


def await_groups(bootstrap: str, deadline: float, *, while_: Callable[[], bool] = lambda: True) -> None:
    """Return when the broker answers for a group's position, which takes an internal topic and its coordinator."""
    name = "loom-tests-readiness"
    position = [TopicPartition(name, 0)]
    consumer = Consumer(_consumer(bootstrap, "read_uncommitted") | {"group.id": name})
    try:
        _ask(lambda: consumer.committed(position, _ANSWER_WITHIN), "has no coordinator for groups", deadline, while_)
    finally:
        consumer.close()


def await_transactions(bootstrap: str, deadline: float, *, while_: Callable[[], bool] = lambda: True) -> None:
    """Return when the broker begins transactions, which takes another internal topic, and hands out producer ids."""
    producer = Producer(_client(bootstrap) | {"transactional.id": "loom-tests-readiness"})
    _ask(lambda: producer.init_transactions(_ANSWER_WITHIN), "has no coordinator for transactions", deadline, while_)


def _client(bootstrap: str) -> dict[str, str | int | float | bool]:
    return {"bootstrap.servers": bootstrap, **_CLIENT}


def _consumer(bootstrap: str, isolation: Isolation) -> dict[str, str | int | float | bool]:
    return _client(bootstrap) | {
        "group.id": "loom-tests-reader",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "isolation.level": isolation,
        "fetch.wait.max.ms": 50,
    }


def _ask(
    question: Callable[[], Answer], what: str, deadline: float, while_: Callable[[], bool] = lambda: True
) -> Answer:
    """What the broker answers; asked again where it is not ready, or its coordinator is about to move."""
    problem: KafkaException | None = None
    while while_() and time.monotonic() < deadline:
        try:
            return question()
        except KafkaException as error:
            problem = error
            time.sleep(0.02)
    raise TimeoutError(f"the broker {what}: {problem}")


def _has_leaders(admin: AdminClient, topic: str, partitions: int) -> bool:
    try:
        found = admin.list_topics(topic, timeout=_ANSWER_WITHIN).topics[topic]
    except KafkaException:
        return False
    return len(found.partitions) == partitions and all(part.leader >= 0 for part in found.partitions.values())


def _serve_until(producer: Producer, due: float) -> None:
    """Hand out delivery reports until a moment of the monotonic clock."""
    while (left := due - time.monotonic()) > 0:
        producer.poll(min(left, 0.1))
    producer.poll(0)


def _when_there_is_room(producer: Producer, produce: Callable[[], None], timeout: float) -> None:
    """Hand one record to the client, whose queue fills up while the broker is away."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            produce()
        except BufferError:
            if time.monotonic() > deadline:
                raise
            producer.poll(0.1)
        else:
            return


def _watermarks(consumer: Consumer, topic: str, partition: int, deadline: float) -> tuple[int, int]:
    def told() -> tuple[int, int]:
        # The client returns nothing, against its annotation, where the broker does not answer in time.
        found = cast(
            "tuple[int, int] | None",
            consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_ANSWER_WITHIN),
        )
        if found is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return found

    return _ask(told, f"did not tell the ends of {topic}", deadline)


def _read(bootstrap: str, topic: str, isolation: Isolation, timeout: float) -> Iterator[Message]:
    deadline = time.monotonic() + timeout
    ends = end_offsets(bootstrap, topic, timeout=timeout)
    consumer = Consumer(_consumer(bootstrap, isolation))
    try:
        first = {partition: _watermarks(consumer, topic, partition, deadline)[0] for partition in ends}
        unread = {partition: end for partition, end in ends.items() if end > first[partition]}
        consumer.assign([TopicPartition(topic, partition, first[partition]) for partition in unread])
        while unread:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{topic} was not read to its end ({isolation}): {unread} (partition: end)")
            for message in consumer.consume(5_000, 0.2):
                partition, offset = _position(message)
                if message.error() is None and offset < ends[partition]:
                    yield message
                if _reached(message, ends):
                    unread.pop(partition, None)
    finally:
        consumer.close()


def _reached(message: Message, ends: Mapping[int, int]) -> bool:
    """Whether a message, or the end mark that the client sends where nothing follows, shows a partition to be read up.

    Only the end mark tells it where the last offsets hold transaction markers or were compacted away.
    """
    partition, offset = _position(message)
    error = message.error()
    if error is None:
        return offset >= ends[partition] - 1
    if error.code() == KafkaError._PARTITION_EOF:
        return offset >= ends[partition]
    if error.code() in _PASSING:
        return False
    raise KafkaException(error)


def _position(message: Message) -> tuple[int, int]:
    return cast("tuple[int, int]", (message.partition(), message.offset()))


def _record(message: Message) -> ReadRecord:
    partition, offset = _position(message)
    return ReadRecord(
        topic=cast("str", message.topic()),
        partition=partition,
        offset=offset,
        key=message.key(),
        value=message.value(),
        headers=tuple(cast("list[tuple[str, bytes | None]]", message.headers() or ())),
        timestamp_ms=message.timestamp()[1],
    )
