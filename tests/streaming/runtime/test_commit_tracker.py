"""A tracker of the caller's in place of the group: it is handed what has become safe, and only then."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.testing import TestingSource

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    ExpandStep,
    FromTopic,
    IntoTopic,
    Message,
    MessageMeta,
    Process,
    StreamFlow,
    compile_flow,
    step,
)
from loom.streaming.bytewax import CommitTracker, build_dataflow_with_shutdown
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord, TopicPartition
from tests.support.running import (
    NOBODY,
    all_done,
    causes,
    config_for,
    content,
    in_memory,
    numbers,
    positions,
    produce,
    records,
)

PAUSE = TestingSource.PAUSE(timedelta(milliseconds=60))  # three epochs of these runs


class Number(LoomFrozenStruct):
    n: int


@step
def checked(number: Number) -> Number | None:
    if number.n == 0:
        raise RuleViolation("zero")
    return number if number.n > 0 else None


def flow(*nodes: Any) -> StreamFlow[Any, Any]:
    return StreamFlow("tracking", FromTopic("numbers", Number), Process(*(nodes or (checked,))), IntoTopic("out"))


class Tracker:
    """Keeps all it is handed."""

    def __init__(self) -> None:
        self.calls: list[dict[TopicPartition, int]] = []

    def confirm(self, positions: Mapping[TopicPartition, int]) -> None:
        self.calls.append(dict(positions))

    @property
    def last(self) -> dict[TopicPartition, int]:
        return {partition: offset for call in self.calls for partition, offset in call.items()}


def at(*offsets: tuple[int, int], n: int = 1) -> list[KafkaRecord]:
    return [KafkaRecord("numbers", None, b'{"n":%d}' % n, {}, partition, offset) for partition, offset in offsets]


def numbers_in(partition: int) -> TopicPartition:
    return TopicPartition("numbers", partition)


def test_it_is_handed_the_next_position_to_read_of_each_partition() -> None:
    tracker = Tracker()
    in_memory(flow(), at((0, 7), (2, 40), (0, 8), (1, 3)), commit_tracker=tracker)
    assert tracker.last == {numbers_in(0): 9, numbers_in(1): 4, numbers_in(2): 41}


def test_gaps_between_offsets_are_no_matter() -> None:
    tracker = Tracker()
    in_memory(flow(), at((0, 7), (0, 10), (0, 900)), commit_tracker=tracker)
    assert tracker.last == {numbers_in(0): 901}


@pytest.mark.parametrize(
    "value", [b'{"n":-1}', b'{"n":0}', b"{", None], ids=["dropped", "failed", "broken", "tombstone"]
)
def test_a_record_that_is_not_written_moves_the_position_all_the_same(value: bytes | None) -> None:
    tracker = Tracker()
    ran = in_memory(flow(), records(value, value), commit_tracker=tracker)
    assert tracker.last == {numbers_in(0): 2}
    assert ran.counts.accounted == 2


def test_an_expansion_to_nothing_moves_the_position() -> None:
    class Nothing(ExpandStep[Number, Number]):
        def execute(self, message: Message[Number]) -> list[Number]:
            return []

    tracker = Tracker()
    in_memory(flow(Nothing), numbers(1, 2), commit_tracker=tracker)
    assert tracker.last == {numbers_in(0): 2}


def test_a_dropped_unrouted_error_moves_the_position() -> None:
    dropping = StreamFlow("tracking", FromTopic("numbers", Number), Process(checked), IntoTopic("out"), unrouted="drop")
    tracker = Tracker()
    in_memory(dropping, numbers(0, 0), catch=(), commit_tracker=tracker)
    assert tracker.last == {numbers_in(0): 2}


def test_messages_count_where_they_say_where_they_stand() -> None:
    tracker = Tracker()
    placed = Message(Number(1), MessageMeta("m", topic="numbers", partition=3, offset=11))
    in_memory(flow(), [placed, Message(Number(1), MessageMeta("nowhere"))], commit_tracker=tracker)
    assert tracker.calls == [{numbers_in(3): 12}]


def test_it_is_not_called_when_nothing_has_moved() -> None:
    tracker = Tracker()
    in_memory(flow(), [Message(Number(1), MessageMeta("nowhere"))], commit_tracker=tracker)
    in_memory(flow(), [], commit_tracker=tracker)
    assert tracker.calls == []


class Store:
    """A sink and a tracker with one log, so that their order shows."""

    def __init__(self) -> None:
        self.log: list[tuple[str, Any]] = []

    def build_partition(self, *arguments: Any, **more: Any) -> Store:
        return self

    def write_batch(self, items: list[Message[Any]]) -> None:
        self.log.append(("written", [item.meta.offset for item in items]))

    def flush(self) -> None:
        self.log.append(("flushed", None))

    def close(self) -> None:
        pass

    def confirm(self, positions: Mapping[TopicPartition, int]) -> None:
        self.log.append(("confirmed", positions[numbers_in(0)]))


def test_a_position_is_confirmed_only_when_everything_before_it_is_durable() -> None:
    store = Store()
    items = []
    for offset in range(6):
        items += [*at((0, offset)), PAUSE]
    in_memory(flow(), items, sink=store, commit_tracker=store)
    durable, under_way, confirmed = set(), set(), []
    for what, value in store.log:
        if what == "written":
            under_way |= set(value)
        elif what == "flushed":
            durable |= under_way
        else:
            confirmed.append(value)
            assert set(range(value)) <= durable
    assert confirmed[-1] == 6
    assert confirmed == sorted(confirmed)
    # The pauses are longer than an epoch, so positions are confirmed on the way, not only at the end.
    assert len(confirmed) > 2


def test_no_position_is_confirmed_before_the_flush_of_its_epoch() -> None:
    class Breaking(Store):
        def flush(self) -> None:
            raise OSError("disk full")

    store = Breaking()
    with pytest.raises(BaseException) as ended:
        in_memory(flow(), at((0, 0)), sink=store, commit_tracker=store)
    assert any("disk full" in str(error) for error in causes(ended.value))
    assert [what for what, _ in store.log] == ["written"]


class Refusing:
    def confirm(self, positions: Mapping[TopicPartition, int]) -> None:
        raise PermissionError("not yours")


@pytest.mark.parametrize("items", [at((0, 0)), [*at((0, 0)), PAUSE, *at((0, 1))]], ids=["at-the-end", "on-the-way"])
def test_raising_ends_the_run(items: list[Any]) -> None:
    with pytest.raises(BaseException) as ended:
        in_memory(flow(), items, commit_tracker=Refusing())
    assert any(isinstance(error, PermissionError) for error in causes(ended.value))


class Parts(FixedPartitionedSource[Any, int]):
    def list_parts(self) -> list[str]:
        return ["0", "1", "2"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> Part:
        return Part(int(for_part))


class Part(StatefulSourcePartition[Any, int]):
    def __init__(self, number: int) -> None:
        self._items = at(*((number, offset) for offset in range(number * 10, number * 10 + 3)))

    def next_batch(self) -> list[Any]:
        if not self._items:
            raise StopIteration
        return [self._items.pop(0)]

    def snapshot(self) -> int:
        return 0


def test_several_parts_are_confirmed_each_for_itself() -> None:
    tracker = Tracker()
    in_memory(flow(), Parts(), commit_tracker=tracker)
    assert tracker.last == {numbers_in(0): 3, numbers_in(1): 13, numbers_in(2): 23}


def test_a_trackers_protocol_is_checked_by_its_method() -> None:
    assert isinstance(Tracker(), CommitTracker)
    assert not isinstance(object(), CommitTracker)


def test_with_a_tracker_the_group_is_left_alone(broker: EmbeddedBroker) -> None:
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    produce(broker.bootstrap, "numbers", *at((0, 0), (0, 1), (3, 0)))
    tracker = Tracker()
    plan = compile_flow(flow(), config=config_for(broker.bootstrap, consumer={"delivery": "at_least_once"}))
    built = build_dataflow_with_shutdown(plan, commit_tracker=tracker)
    _run_until_done(built, 3)
    assert {partition: offset for partition, offset in tracker.last.items() if offset} == {
        numbers_in(0): 2,
        numbers_in(3): 1,
    }
    assert positions(broker.bootstrap, "numbers") == {}
    assert len(content(broker.bootstrap, "out")["out"]) == 3


def _run_until_done(built: Any, inputs: int) -> None:
    import threading

    from bytewax.run import cli_main

    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.002) and not all_done(inputs)(built.state.metrics.read()):
            pass
        built.shutdown()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        cli_main(built.dataflow, epoch_interval=timedelta(milliseconds=20))
    finally:
        over.set()
        watcher.join()


def test_a_tracker_cannot_be_combined_with_exactly_once() -> None:
    """The delivery is refused as such for now; what matters is that no such dataflow can be built."""

    def build() -> None:
        plan = compile_flow(flow(), config=config_for(NOBODY, consumer={"delivery": "exactly_once"}))
        build_dataflow_with_shutdown(plan, commit_tracker=Tracker())

    with pytest.raises(Exception, match="exactly_once"):
        build()
