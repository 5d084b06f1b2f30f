"""A member of a group on a real broker, without a flow: what it tells is noted, and it gives partitions up as it is told to."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from loom.streaming.kafka import ConsumerSettings, TopicPartition
from loom.streaming.kafka.membership import GroupMember, Tenure
from tests.support.one_way import OneWay

__all__ = ["SESSION", "Heard", "joined"]

#: milliseconds; the shortest that a broker allows
SESSION = 6_000


class Heard:
    """What a member tells, and workers that give partitions up when they are told to."""

    def __init__(self, *, gives_up: bool = True) -> None:
        self.has: dict[TopicPartition, int] = {}
        self.told: list[tuple[str, frozenset[TopicPartition]]] = []
        self.gives_up = gives_up
        self.stuck = 0.0
        self.fault: BaseException | None = None
        #: how many rebalances have come to their end
        self.rebalances = 0
        #: a rebalance has come to its end after something was taken away, so that it joins again
        self.joins_again = False

    def assigned(self, tenures: Collection[Tenure]) -> None:
        self.rebalances += 1
        self.has.update({tenure.partition: tenure.number for tenure in tenures})
        self.joins_again = bool(self.told) and self.told[-1][0] == "withdraw"

    def revoking(self, partitions: Collection[TopicPartition], bound_s: float) -> None:
        self.told.append(("revoking", frozenset(partitions)))

    def has_given_up(self, partitions: Collection[TopicPartition]) -> bool:
        return self.gives_up

    def withdraw(self, partitions: Collection[TopicPartition]) -> None:
        self.told.append(("withdraw", frozenset(partitions)))
        for partition in partitions:
            self.has.pop(partition, None)

    def stuck_for(self) -> float:
        return self.stuck

    def failed(self, fault: BaseException) -> None:
        self.fault = fault


@contextmanager
def joined(one_way: OneWay, partitions: Heard, *, source: str | None = None, **settings: Any) -> Iterator[GroupMember]:
    """A member, until the end of the block."""
    settings = {"session_timeout_ms": SESSION, **settings}
    consumer = ConsumerSettings(one_way.bootstrap, one_way.group, membership="group", **settings)
    member = GroupMember(consumer, [source or one_way.source], partitions, lambda topic: "beside")
    member.start()
    try:
        yield member
    finally:
        member.close()
