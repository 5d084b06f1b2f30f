"""The monitor of a source's topics: each change is reported once, and only when it is certain."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping

import pytest

from loom.streaming.kafka import EmbeddedBroker
from loom.streaming.kafka import topic_monitor as watch_module
from loom.streaming.kafka.topic_monitor import Change, TopicChange, TopicMonitor, TopicState, look_at_states
from tests.support.waiting import LONG_S

Answer = Mapping[str, TopicState] | Exception


class Watched:
    """A watch whose looks are answered one by one by the test."""

    def __init__(self, interval_s: float = 0.0, **partitions: int) -> None:
        self.answers: queue.Queue[Answer | None] = queue.Queue()
        self.asked: queue.Queue[None] = queue.Queue()
        self.changes: list[TopicChange] = []
        self.watch = TopicMonitor(
            {topic: TopicState(None, count) for topic, count in (partitions or {"a": 2}).items()},
            interval_s=interval_s,
            look=self._look,
            changed=self.changes.append,
        )
        self.watch.start()
        self.asked.get(timeout=LONG_S)

    def _look(self) -> Mapping[str, TopicState]:
        self.asked.put(None)
        answer = self.answers.get(timeout=LONG_S)
        if answer is None:
            raise RuntimeError("closed")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def see(self, answer: Answer) -> list[Change]:
        """Answer a look; returns the changes it has made, when the next look has come."""
        told = len(self.changes)
        self.answers.put(answer)
        self.asked.get(timeout=LONG_S)
        return [change.what for change in self.changes[told:]]

    def close(self) -> None:
        self.watch.close()
        self.answers.put(None)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_SURE", 0.0)


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.close()


def state(identity: str | None = "x", partitions: int = 2) -> dict[str, TopicState]:
    return {"a": TopicState(identity, partitions)}


def test_what_stays_as_it_is_is_no_change(watched: Watched) -> None:
    assert [watched.see(state()) for _ in range(3)] == [[], [], []]


def test_a_deleted_topic_is_told_once_and_not_before_a_second_look(watched: Watched) -> None:
    watched.see(state())
    assert [watched.see({}) for _ in range(4)] == [[], [Change.DELETED], [], []]


def test_metadata_that_lacks_a_topic_for_a_moment_is_no_deletion(watched: Watched) -> None:
    assert [watched.see(found) for found in (state(), {}, state(), {}, state())] == [[]] * 5


@pytest.mark.parametrize("between", [0, 1, 3])
def test_a_topic_recreated_is_told_by_its_id_whether_or_not_its_absence_was_seen(
    watched: Watched, between: int
) -> None:
    watched.see(state("x"))
    for _ in range(between):
        watched.see({})
    assert watched.see(state("y")) == [Change.RECREATED]
    assert watched.see(state("y")) == []


def test_a_topic_recreated_is_told_though_a_look_between_did_not_learn_its_id(watched: Watched) -> None:
    assert [watched.see(found) for found in (state("x"), state(None), state("y"))] == [[], [], [Change.RECREATED]]


def test_a_topic_that_was_told_to_be_deleted_and_is_there_again_was_recreated_whatever_its_id(watched: Watched) -> None:
    seen = [watched.see(found) for found in (state("x"), {}, {}, state(None), state("y"))]
    assert seen == [[], [], [Change.DELETED], [Change.RECREATED], []]


def test_a_broker_that_tells_no_ids_makes_no_topic_anew(watched: Watched) -> None:
    assert [watched.see(found) for found in (state(None), state("x"), state(None), state("x"))] == [[]] * 4


def test_added_partitions_are_told_once_also_those_that_came_before_the_first_look(watched: Watched) -> None:
    assert watched.see(state(partitions=3)) == [Change.PARTITIONS_ADDED]
    assert watched.see(state(partitions=3)) == []
    assert "3 partitions instead of 2" in watched.changes[0].text


def test_a_look_that_fails_says_nothing(watched: Watched) -> None:
    assert [watched.see(found) for found in (state(), OSError("away"), OSError("away"), state())] == [[]] * 4


def test_it_does_not_wait_for_its_turn_when_told_to_look_now() -> None:
    watched = Watched(interval_s=3600.0)
    watched.answers.put(state())
    watched.watch.look_now()
    watched.asked.get(timeout=LONG_S)
    watched.close()


def test_topics_whose_ids_are_known_are_looked_at_in_their_turn() -> None:
    looks = threading.Event()

    def look() -> Mapping[str, TopicState]:
        looks.set()
        return state("y")

    changes: queue.Queue[TopicChange] = queue.Queue()
    watch = TopicMonitor({"a": TopicState("x", 2)}, interval_s=3600.0, look=look, changed=changes.put)
    watch.start()
    assert not looks.is_set()
    watch.look_now()
    assert changes.get(timeout=LONG_S).what is Change.RECREATED
    watch.close()


def test_behind_its_end_it_says_nothing(watched: Watched) -> None:
    watched.see(state())
    watched.watch.close()
    watched.answers.put(state("y"))
    watched.watch._thread.join(LONG_S)
    assert not watched.watch._thread.is_alive()
    assert watched.changes == []


def test_topics_are_looked_at_without_making_any(broker: EmbeddedBroker) -> None:
    broker.create_topic("a")
    look = look_at_states({"bootstrap.servers": broker.bootstrap}, ["a", "b"])
    assert look() == {"a": TopicState(None, 4)}
    assert look() == {"a": TopicState(None, 4)}
