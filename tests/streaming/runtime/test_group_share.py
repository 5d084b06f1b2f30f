"""What a process has of its group: positions are looked up on a thread of its own, while workers go on or begin again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from loom.core.observability import ObservabilityRuntime
from loom.streaming import Drain, FromTopic, Process, StreamFlow, compile_flow
from loom.streaming.kafka import EmbeddedBroker, TopicPartition
from loom.streaming.kafka.consumer import ConsumerClient
from loom.streaming.kafka.membership import GroupMember, Tenure
from loom.streaming.kafka.offset_metadata import RunMetadata
from loom.streaming.runtime.group_share import Granted, GroupShare, Slot
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.standing import Standing
from tests.support.one_way import Number
from tests.support.running import config_for
from tests.support.waiting import LONG_S, until

FIRST, SECOND = TopicPartition("first", 0), TopicPartition("second", 0)
TOPICS = {"first": (0,), "second": (0,)}


class HeldLookUp:
    """The first look-up of the share has its answer, and goes on only when it is let go."""

    def __init__(self) -> None:
        self.answered, self.go_on = threading.Event(), threading.Event()
        self.count = 0

    def patched(self, settled: Callable[..., Any]) -> Callable[..., Any]:
        def held(client: ConsumerClient, partitions: list[TopicPartition], siblings: Iterable[TopicPartition]) -> Any:
            found = settled(client, partitions, siblings)
            if siblings:
                self.count += 1
                if self.count == 1:
                    self.answered.set()
                    assert self.go_on.wait(LONG_S)
            return found

        return held


@pytest.fixture
def look_up(monkeypatch: pytest.MonkeyPatch) -> HeldLookUp:
    held = HeldLookUp()
    monkeypatch.setattr(ConsumerClient, "settled", held.patched(ConsumerClient.settled))
    # The tests say themselves what the process is given.
    monkeypatch.setattr(GroupMember, "start", lambda _: None)
    return held


@pytest.fixture
def opened(look_up: HeldLookUp) -> Iterator[tuple[GroupShare, Slot]]:
    with EmbeddedBroker() as broker:
        for topic in TOPICS:
            broker.create_topic(topic)
        config = config_for(broker.bootstrap, consumer={"topics": [*TOPICS], "membership": "group"})
        flow = StreamFlow("shared", FromTopic("numbers", Number), Process(Drain()))
        state = RunState(ObservabilityRuntime.noop())
        source = compile_flow(flow, config=config).source
        share = GroupShare(source, state, lambda: TOPICS, RunMetadata("shared", lambda: TOPICS, mode="group"), 1)
        slot = share.open(0, Standing(state.offsets.worker()))
        yield share, slot
        look_up.go_on.set()
        share.leave(slot, ended=True)


def granted(slot: Slot) -> list[TopicPartition]:
    return [partition for message in slot.messages if isinstance(message, Granted) for partition in message.starts]


def test_a_worker_that_begins_again_is_told_once_where(opened: tuple[GroupShare, Slot], look_up: HeldLookUp) -> None:
    """What was looked up before is not told it as well: it would go back behind what it has committed meanwhile."""
    share, slot = opened
    share.assigned([Tenure(FIRST, 1)])
    assert look_up.answered.wait(LONG_S)
    share.grant_again(slot)
    look_up.go_on.set()
    until(lambda: FIRST in granted(slot))
    # Looked up behind everything that was to be looked up by now.
    share.assigned([Tenure(SECOND, 2)])
    until(lambda: SECOND in granted(slot))
    assert granted(slot) == [FIRST, SECOND]
    assert look_up.count > 1


def test_a_partition_that_is_withdrawn_while_it_is_looked_up_is_not_granted(
    opened: tuple[GroupShare, Slot], look_up: HeldLookUp
) -> None:
    share, slot = opened
    share.assigned([Tenure(FIRST, 1)])
    assert look_up.answered.wait(LONG_S)
    share.withdraw([FIRST])
    look_up.go_on.set()
    share.assigned([Tenure(SECOND, 2)])
    until(lambda: SECOND in granted(slot))
    assert granted(slot) == [SECOND]
    assert share.has_given_up([FIRST])
