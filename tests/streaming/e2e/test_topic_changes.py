"""What a change of the source's topics does to a run; the in-process broker changes none, so the look at them is played."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from loom.cli.exit_codes import Exit, exit_for
from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, step
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord, OffsetOutOfRangeError, TopicsChangedError
from loom.streaming.kafka.topic_monitor import Change, TopicChange, TopicState
from loom.streaming.runtime import topic_changes
from tests.support.running import all_done, config_for, content, positions, produce, run_until

pytestmark = pytest.mark.both_engines


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


FLOW = StreamFlow("watching", FromTopic("numbers", Number), Process(same), IntoTopic("out"))


class Played:
    """What the look at the topics sees; the broker's own four partitions until the test says otherwise."""

    def __init__(self) -> None:
        self.seen: Mapping[str, TopicState] = {"numbers": TopicState("x", 4)}

    def __call__(self, *_: Any) -> Any:
        return lambda: self.seen


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    made = Played()
    monkeypatch.setattr(topic_changes, "look_at_states", made)
    monkeypatch.setattr("loom.streaming.kafka.topic_monitor._SURE", 0.01)
    return made


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    produce(
        broker.bootstrap, "numbers", *(KafkaRecord("numbers", None, b'{"n":%d}' % n, partition=n % 4) for n in range(8))
    )
    return broker.bootstrap


def runner(bootstrap: str, workers: int = 1, **consumer: Any) -> StreamingRunner:
    consumer = {"delivery": "at_least_once", "topic_check_interval_ms": 10, **consumer}
    config = config_for(bootstrap, consumer=consumer, runtime={"workers_per_process": workers})
    return StreamingRunner.from_dict(FLOW, config)


def changing(played: Played, *, to: Mapping[str, TopicState], after: int = 8) -> Any:
    """Never done; changes what is seen when so many records are durable."""

    def done(counts: Any) -> bool:
        if all_done(after)(counts):
            played.seen = to
        return False

    return done


GONE: dict[str, TopicState] = {}
ANEW = {"numbers": TopicState("y", 4)}
MORE = {"numbers": TopicState("x", 6)}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once", None])
def test_where_the_config_says_so_the_run_ends_in_order_and_asks_to_be_started_again(
    bootstrap: str, played: Played, delivery: str | None, workers: int
) -> None:
    runs = runner(bootstrap, workers, delivery=delivery, on_topic_change="stop")
    with pytest.raises(TopicsChangedError, match=r"6 partitions instead of 4.*restart the flow") as ended:
        run_until(runs, changing(played, to=MORE))
    assert exit_for(ended.value) is Exit.RESTART
    assert positions(bootstrap, "numbers") == dict.fromkeys(range(4), 2)
    assert len(content(bootstrap, "out")["out"]) == 8


@pytest.mark.parametrize(("to", "told"), [(GONE, "was deleted"), (MORE, "6 partitions instead of 4")])
def test_otherwise_it_is_said_once_and_the_run_goes_on(
    bootstrap: str, played: Played, capsys: pytest.CaptureFixture[str], to: Mapping[str, TopicState], told: str
) -> None:
    said = ""

    def done(counts: Any) -> bool:
        nonlocal said
        changing(played, to=to)(counts)
        said += capsys.readouterr().err
        return told in said

    run_until(runner(bootstrap), done)
    said += capsys.readouterr().err
    assert sum(said.count(change.value) for change in Change) == 1
    assert positions(bootstrap, "numbers") == dict.fromkeys(range(4), 2)


def test_a_topic_that_was_recreated_is_a_position_out_of_range(bootstrap: str, played: Played) -> None:
    with pytest.raises(OffsetOutOfRangeError, match="the topic was recreated"):
        run_until(runner(bootstrap), changing(played, to=ANEW))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_topic_recreated_and_a_stop_in_one_epoch_confirm_no_position_of_the_old_log(
    bootstrap: str, played: Played, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    consumer = {"delivery": "at_least_once", "topic_check_interval_ms": 10, "on_out_of_range": "earliest"}
    # One epoch: what is read in it is durable at the stop, and confirmed behind that.
    runtime = {"workers_per_process": workers, "epoch_interval_ms": 3_000}
    runs = StreamingRunner.from_dict(FLOW, config_for(bootstrap, consumer=consumer, runtime=runtime))
    take = topic_changes.TopicChanges.take

    def take_and_stop(changes: topic_changes.TopicChanges, change: TopicChange) -> None:
        take(changes, change)
        runs.shutdown()

    monkeypatch.setattr(topic_changes.TopicChanges, "take", take_and_stop)

    def done(counts: Any) -> bool:
        if counts.accounted >= 8:
            played.seen = ANEW
        return False

    run_until(runs, done)
    assert len(content(bootstrap, "out")["out"]) == 8
    assert positions(bootstrap, "numbers") == dict.fromkeys(range(4), 0)


def test_a_topic_that_was_recreated_is_read_from_where_the_config_says(bootstrap: str, played: Played) -> None:
    """This broker still has the old records, so that they come twice: once from each of the two topics."""
    runs = runner(bootstrap, on_out_of_range="earliest")

    def done(counts: Any) -> bool:
        changing(played, to=ANEW)(counts)
        return all_done(16)(counts)

    run_until(runs, done)
    assert len(content(bootstrap, "out")["out"]) == 16
