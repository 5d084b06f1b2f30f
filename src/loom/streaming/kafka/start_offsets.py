"""Where to start reading partitions: at the offset of the group, else a fallback, else the reset policy as a real offset.

Used by a consumer before it reads, and by the exactly-once start, which fetches offsets after its fencing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from loom.core.logger import get_logger
from loom.core.model import LoomFrozenStruct
from loom.streaming.kafka.client_config import is_denied, is_transient, kafka_error
from loom.streaming.kafka.cluster_faults import ClusterFaults, denied
from loom.streaming.kafka.errors import KafkaTransportError
from loom.streaming.kafka.offset_metadata import Committed, partition_counts
from loom.streaming.kafka.offset_reset import LogRange, reset_expired_offset, reset_offset
from loom.streaming.kafka.patience import Patience, likely_reason
from loom.streaming.kafka.settings import ConsumerSettings
from loom.streaming.record import TopicPartition

__all__ = [
    "StartPositions",
    "committed_positions",
    "log_ranges",
    "resolve_start",
    "settled_positions",
    "settled_ranges",
    "start_in",
]

_log = get_logger(__name__)

#: seconds of one call, during which no stop is noticed. What it started continues after it, such as connecting.
_CALL = 1.5
#: the same for one partition, while others may have an answer
_CALL_FOR_ONE = 0.5
#: the ends of a log, in a request for offsets by time
_BEGINNING, _END = -2, -1
#: what one broker answers about a topic that another has just created
_NOT_YET = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})

#: a request about many partitions at once, with a limit in seconds; an error of one partition is in its answer
Ask = Callable[[list[ClientPartition], float], list[ClientPartition]]
#: lets the client work while an error may pass; the time is in seconds
Pause = Callable[[float], Any]


class StartPositions(LoomFrozenStruct):
    """Where to start, and what the group had committed."""

    offsets: Mapping[TopicPartition, int]
    #: the partitions without an offset of the group
    unknown: tuple[TopicPartition, ...]
    #: what the group had, of these partitions and of their siblings
    committed: Mapping[TopicPartition, Committed]


def resolve_start(
    consumer: Consumer,
    settings: ConsumerSettings,
    partitions: Iterable[TopicPartition],
    fallback: Mapping[TopicPartition, int],
    pause: Pause,
    faults: ClusterFaults,
    *,
    siblings: Iterable[TopicPartition] = (),
    fallback_first: bool = False,
) -> StartPositions:
    """Where to begin with these partitions.

    The group's position comes first, then `fallback` (a recovery snapshot's); the other way around with `fallback_first`.
    Of a partition that has neither, the partition count beside the positions of its topic tells what it is; `siblings` are
    further partitions whose positions may name it. A number that is not below the count is a new partition: it begins where
    its log begins. One below it has lost its position: `on_out_of_range` decides. Without a count the group is new in this
    topic: `auto_offset_reset`, as a real offset.

    Raises `OffsetOutOfRangeError` for a position that the log does not hold, or that has expired, unless
    `on_out_of_range` says where to go.
    """
    wanted = sorted(partitions)
    committed = committed_positions(consumer, settings, sorted({*wanted, *siblings}), pause, faults)
    logs = log_ranges(consumer, settings, wanted, pause, faults)
    return start_in(settings, logs, committed, fallback, fallback_first=fallback_first)


def start_in(
    settings: ConsumerSettings,
    logs: Mapping[TopicPartition, LogRange],
    committed: Mapping[TopicPartition, Committed],
    fallback: Mapping[TopicPartition, int] = MappingProxyType({}),
    *,
    fallback_first: bool = False,
) -> StartPositions:
    """As `resolve_start`, of these logs, with the group's positions of their partitions and the siblings of these."""
    counts = partition_counts(committed)
    offsets, unknown = {}, []
    for partition, log in logs.items():
        if partition not in committed:
            unknown.append(partition)
        if partition in fallback and (fallback_first or partition not in committed):
            offset = fallback[partition]
        elif partition in committed:
            offset = committed[partition].offset
        else:
            offset = _first_offset(settings, partition, log, counts.get(partition.topic))
        offsets[partition] = offset if log.holds(offset) else reset_offset(settings, partition, offset, log)
    return StartPositions(offsets, tuple(unknown), committed)


def _first_offset(settings: ConsumerSettings, partition: TopicPartition, log: LogRange, count: int | None) -> int:
    """Where to start in a partition without any offset."""
    if count is None:
        return log.low if settings.auto_offset_reset == "earliest" else log.high
    if partition.partition < count:
        return reset_expired_offset(settings, partition, log)
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
    faults: ClusterFaults,
) -> dict[TopicPartition, Committed]:
    """The offsets of the group in these partitions."""
    asked = [ClientPartition(*partition) for partition in partitions]
    found = _ask_all(
        consumer, asked, lambda left, limit: consumer.committed(left, timeout=limit), settings, pause, faults
    )
    return {p: Committed(had.offset, had.metadata or "") for p, had in found.items() if had.offset >= 0}


def settled_positions(
    consumer: Consumer, settings: ConsumerSettings, partitions: list[TopicPartition]
) -> tuple[dict[TopicPartition, Committed], set[TopicPartition]]:
    """The offsets of the group in these partitions, asked once, and the partitions for which there is no answer yet.

    A partition whose last owner was killed inside a transaction has no answer until the broker has ended that. One such
    partition holds up the answer for all that are asked for with it.
    """
    asked = [ClientPartition(*partition) for partition in partitions]
    found, silent = _asked_once(asked, lambda left, limit: consumer.committed(left, timeout=limit), settings)
    return {p: Committed(had.offset, had.metadata or "") for p, had in found.items() if had.offset >= 0}, silent


def settled_ranges(
    consumer: Consumer, settings: ConsumerSettings, partitions: list[TopicPartition]
) -> dict[TopicPartition, LogRange]:
    """What the logs of these partitions hold now, asked once; without those whose leader does not answer."""

    def offsets_at(end: int, of: Iterable[TopicPartition]) -> dict[TopicPartition, ClientPartition]:
        asked = [ClientPartition(*partition, end) for partition in of]
        found, _ = _asked_once(asked, lambda left, limit: consumer.offsets_for_times(left, timeout=limit), settings)
        return found

    low = offsets_at(_BEGINNING, partitions)
    high = offsets_at(_END, low)
    return {partition: LogRange(low[partition].offset, end.offset) for partition, end in high.items()}


def _asked_once(
    asked: list[ClientPartition], ask: Ask, settings: ConsumerSettings
) -> tuple[dict[TopicPartition, ClientPartition], set[TopicPartition]]:
    """The answers, and the partitions without one: of those each is asked for alone, since one of them may hold up all."""
    found, silent = _answers(asked, ask, _CALL, settings)
    if len(asked) > 1:
        for one in [one for one in asked if TopicPartition(one.topic, one.partition) in silent]:
            answer, _ = _answers([one], ask, _CALL_FOR_ONE, settings)
            found.update(answer)
    return found, silent.keys() - found.keys()


def _answers(
    asked: list[ClientPartition], ask: Ask, limit_s: float, settings: ConsumerSettings
) -> tuple[dict[TopicPartition, ClientPartition], dict[TopicPartition, KafkaError]]:
    """The answers to one request, and why the other partitions have none. Raises for what does not pass."""
    if not asked:
        return {}, {}
    try:
        answers = ask(asked, limit_s)
    except KafkaException as error:
        problem = kafka_error(error)
        found, silent = {}, {TopicPartition(p.topic, p.partition): problem for p in asked}
    else:
        found = {TopicPartition(p.topic, p.partition): p for p in answers if p.error is None}
        silent = {TopicPartition(p.topic, p.partition): p.error for p in answers if p.error is not None}
    for problem in silent.values():
        _check_temporary(problem, _what(settings))
    return found, silent


def _what(settings: ConsumerSettings) -> str:
    return f"the start offsets of group {settings.group_id!r}"


def log_ranges(
    consumer: Consumer,
    settings: ConsumerSettings,
    partitions: Iterable[TopicPartition],
    pause: Pause,
    faults: ClusterFaults,
) -> dict[TopicPartition, LogRange]:
    """What the logs of these partitions hold now. One request to each broker for all that it leads, not one per partition."""
    wanted = list(partitions)

    def offsets_at(end: int) -> Mapping[TopicPartition, ClientPartition]:
        asked = [ClientPartition(*partition, end) for partition in wanted]
        return _ask_all(
            consumer,
            asked,
            lambda left, limit: consumer.offsets_for_times(left, timeout=limit),
            settings,
            pause,
            faults,
        )

    low, high = offsets_at(_BEGINNING), offsets_at(_END)
    return {partition: LogRange(low[partition].offset, high[partition].offset) for partition in wanted}


def _ask_all(
    consumer: Consumer,
    asked: list[ClientPartition],
    ask: Ask,
    settings: ConsumerSettings,
    pause: Pause,
    faults: ClusterFaults,
) -> dict[TopicPartition, ClientPartition]:
    """Ask until every partition has an answer; `start_timeout_ms` starts over with each call that brings one."""
    what = _what(settings)

    def patience() -> Patience:
        return Patience(
            what, settings.start_timeout_ms / 1000, lambda: faults.explain() or likely_reason(consumer), time.monotonic
        )

    waits = patience()
    answers: dict[TopicPartition, ClientPartition] = {}
    left = asked
    while left:
        found, silent = _answers(left, ask, _CALL, settings)
        answers.update(found)
        left = [p for p in left if TopicPartition(p.topic, p.partition) not in answers]
        if found:
            waits = patience()
        if silent:
            problem = next(iter(silent.values()))
            pause(0.1)
            if faults.refuses:
                raise faults.failure(f"{what} are not available", problem)
            waits.spend(problem.str())
    return answers


def _check_temporary(problem: KafkaError, what: str) -> None:
    """Raise for an error that does not pass."""
    if is_denied(problem):
        raise denied(problem, f"{what} are not available")
    if not is_transient(problem) and problem.code() not in _NOT_YET:
        raise KafkaTransportError(f"{what} are not available: {problem.str()}")
