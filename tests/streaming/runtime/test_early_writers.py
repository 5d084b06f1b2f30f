"""Producers are opened while a run still looks for its positions, taken over once, and closed when nobody takes them."""

from __future__ import annotations

from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, step
from loom.streaming.kafka import BrokerUnavailableError, EmbeddedBroker
from loom.streaming.kafka.consumer import ConsumerClient
from loom.streaming.kafka.producer import TopicWriter
from loom.streaming.runtime.early_writers import EarlyWriters
from loom.streaming.runtime.preflight import Preflight
from loom.streaming.runtime.producers import NoProducers
from tests.support.running import config_for, content, produce, run_all


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


FLOW = StreamFlow("early", FromTopic("numbers", Number), Process(same), IntoTopic("out"))


class Writers(NoProducers):
    """Tells of its end."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    return broker.bootstrap


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is opened and closed, in order."""
    noted: list[str] = []

    def note(kind: type, method: str, name: str) -> None:
        real = getattr(kind, method)

        def noting(*arguments: Any, **more: Any) -> Any:
            noted.append(name)
            return real(*arguments, **more)

        monkeypatch.setattr(kind, method, noting)

    note(TopicWriter, "__init__", "producer")
    note(TopicWriter, "close", "producer closed")
    note(Preflight, "group", "group")
    note(ConsumerClient, "start", "positions")
    return noted


def test_what_was_opened_early_is_taken_once_and_what_comes_later_is_new() -> None:
    made: list[Writers] = []

    def make() -> Writers:
        made.append(Writers())
        return made[-1]

    early = EarlyWriters(make)
    early.open()
    early.open()
    assert len(made) == 1
    assert early() is made[0]
    early.close()
    assert made[0].closed == 0, "it is the taker's"
    assert early() is made[1]


def test_what_nobody_takes_is_closed_once() -> None:
    writers = Writers()
    early = EarlyWriters(lambda: writers)
    early.close()
    early.open()
    early.close()
    early.close()
    assert writers.closed == 1


def test_the_producer_is_open_before_the_group_and_its_positions_are_asked_for(
    bootstrap: str, calls: list[str]
) -> None:
    produce(bootstrap, "numbers", b'{"n":1}')
    run_all(FLOW, config_for(bootstrap, consumer={"delivery": "at_least_once"}), 1)
    assert calls.index("producer") < calls.index("group") < calls.index("positions")
    assert (calls.count("producer"), calls.count("producer closed")) == (1, 1)
    assert len(content(bootstrap, "out")["out"]) == 1


def test_a_start_that_fails_behind_it_closes_it(
    bootstrap: str, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: Preflight) -> None:
        raise BrokerUnavailableError("gone")

    monkeypatch.setattr(Preflight, "group", away)
    with pytest.raises(BrokerUnavailableError):
        StreamingRunner.from_dict(FLOW, config_for(bootstrap, consumer={"delivery": "at_least_once"})).run()
    assert calls == ["producer", "producer closed"]
