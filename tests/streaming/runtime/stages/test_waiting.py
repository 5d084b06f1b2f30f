"""Records that wait: they hold back positions, take away credit, are woken by ticks and told of the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Message, Process, RecordStep, StreamFlow, compile_flow
from loom.streaming.kafka import KafkaRecord, TopicPartition
from loom.streaming.runtime.assembly import Transport
from loom.streaming.runtime.build_options import BuildOptions
from loom.streaming.runtime.engine import load_engine
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.override_view import override_view
from loom.streaming.runtime.producers import NoProducers
from loom.streaming.runtime.settings import BytewaxRuntimeConfig
from loom.streaming.runtime.stages.buffering import BufferingNodes
from loom.streaming.runtime.stages.stage_io import EndMark
from tests.support.engines import chosen_engine
from tests.support.running import config_for
from tests.support.scripted import Pause, open_items
from tests.support.waiting import LONG_S


class Number(LoomFrozenStruct):
    n: int


class Keeper:
    """Keeps every record it is given for a time, or until it is full and the oldest has to go."""

    def __init__(self, *, for_s: float = 0.0, room: int | None = None, stubborn: bool = False) -> None:
        self._for_s, self._room, self._stubborn = for_s, room, stubborn
        self.records: list[tuple[TopicPartition, int, float]] = []
        self.let_go: set[tuple[TopicPartition, int]] = set()
        self.most = 0
        self.ticks = 0
        self.marks: list[EndMark] = []
        self.discarded: set[tuple[TopicPartition, int]] = set()

    def keep(self, place: TopicPartition, offset: int) -> None:
        self.records.append((place, offset, time.monotonic()))
        self.most = max(self.most, len(self.records))

    # what a waiting node has to offer

    def kept(self) -> int:
        return len(self.records)

    def oldest(self) -> list[tuple[TopicPartition, int]]:
        found: dict[TopicPartition, int] = {}
        for place, offset in [*((place, offset) for place, offset, _ in self.records), *self.discarded]:
            found[place] = min(offset, found.get(place, offset))
        return list(found.items())

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        raise AssertionError("no log is gone here")

    def discard(self, partitions: Collection[TopicPartition]) -> None:
        raise AssertionError("no partition is handed over here")

    def credit(self) -> int | None:
        return None if self._room is None else self._room - len(self.records)

    def due(self) -> float | None:
        return min(since for _, _, since in self.records) + self._for_s if self.records else None

    def tick(self, now: float) -> None:
        self.ticks += 1
        gone = [record for record in self.records if record[2] + self._for_s <= now]
        self.let_go |= {(place, offset) for place, offset, _ in gone}
        self.records = [record for record in self.records if record not in gone]

    def end(self, mark: EndMark) -> None:
        self.marks.append(mark)
        if self._stubborn:
            return  # lets go in its own time
        target = self.let_go if mark is EndMark.INPUT else self.discarded
        target |= {(place, offset) for place, offset, _ in self.records}
        self.records = []


class Tracker:
    """Knows what has been let go whenever a position is confirmed."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self.last: dict[TopicPartition, int] = {}
        self.calls = 0
        self.wrong: list[Any] = []

    def confirm(self, positions: Mapping[TopicPartition, int]) -> None:
        self.calls += 1
        self.last.update(positions)
        for place, position in positions.items():
            missing = [offset for offset in range(position) if (place, offset) not in self._keeper.let_go]
            if missing:
                self.wrong.append((place, position, missing))


def run(keeper: Keeper, items: list[Any], *, batch_size: int = 100, stop_when: Any = None) -> tuple[Tracker, list[int]]:
    """A flow whose step gives each record to the keeper, which is part of the stage; tells what was confirmed."""
    sizes: list[int] = []

    class Keep(RecordStep[Number, Number | None]):
        def execute(self, message: Message[Number]) -> None:
            meta = message.meta
            assert meta.topic is not None
            assert meta.partition is not None
            assert meta.offset is not None
            keeper.keep(TopicPartition(meta.topic, meta.partition), meta.offset)

    flow = StreamFlow("keeping", FromTopic("numbers", Number), Process(Keep), IntoTopic("out"))
    plan = compile_flow(flow, config=config_for(consumer={"batch_size": batch_size}))
    tracker = Tracker(keeper)

    def source(state: Any, make_stage: Any) -> Any:
        def make() -> Any:
            stage = make_stage()
            stage.room.add(keeper, "keeper")
            run_batch = stage.run

            def measured(batch: Any) -> Any:
                sizes.append(len(batch.origins))
                return run_batch(batch)

            stage.run = measured
            return stage

        return open_items(items, batch_size, tracker)(state, make)

    engine = load_engine(chosen_engine())
    built = engine.lower(plan, BuildOptions(transport=Transport(override_view(plan.source), source, NoProducers)))
    over = threading.Event()

    def stop() -> None:
        while not over.wait(0.002) and not stop_when():
            pass
        built.shutdown()

    stopper = threading.Thread(target=stop if stop_when else over.wait, daemon=True)
    stopper.start()
    try:
        built.state.epochs.interval_s = 0.01
        engine.run(built.dataflow, BytewaxRuntimeConfig(), Layout())
    finally:
        over.set()
        stopper.join(LONG_S)
        built.shutdown()
    return tracker, sizes


def items_of(count: int, partitions: int = 2, pause_ms: int = 0) -> list[Any]:
    items: list[Any] = []
    for n in range(count):
        items.append(KafkaRecord("numbers", None, b'{"n":%d}' % n, {}, n % partitions, n // partitions))
        if pause_ms:
            items.append(Pause(timedelta(milliseconds=pause_ms)))
    return items


P0, P1 = TopicPartition("numbers", 0), TopicPartition("numbers", 1)


def test_a_confirmed_position_never_passes_a_record_that_is_kept() -> None:
    keeper = Keeper(for_s=0.03)
    tracker, _ = run(keeper, items_of(40, pause_ms=4))
    assert tracker.wrong == []
    assert tracker.last == {P0: 20, P1: 20}
    # Positions were confirmed on the way, while other records waited.
    assert tracker.calls > 3


def test_ticks_arrive_though_no_record_does() -> None:
    keeper = Keeper(for_s=0.01)
    items = [*items_of(4), Pause(timedelta(hours=1))]
    tracker, _ = run(keeper, items, stop_when=lambda: len(keeper.let_go) == 4)
    assert keeper.discarded == set()
    assert tracker.last == {P0: 2, P1: 2}


def test_a_full_node_takes_the_sources_batches_down_to_nothing() -> None:
    keeper = Keeper(for_s=0.005, room=3)
    tracker, sizes = run(keeper, items_of(20))
    assert max(sizes) == 3
    assert keeper.most == 3
    assert len(keeper.let_go) == 20
    assert tracker.last == {P0: 10, P1: 10}


def test_at_the_end_of_input_what_waits_is_let_go_and_confirmed() -> None:
    keeper = Keeper(for_s=1000)
    tracker, _ = run(keeper, items_of(6))
    assert keeper.marks == [EndMark.INPUT]
    assert tracker.last == {P0: 3, P1: 3}
    assert tracker.wrong == []


def test_at_a_stop_what_waits_is_discarded_and_stays_unconfirmed() -> None:
    keeper = Keeper(for_s=1000)
    forever = [*items_of(6), Pause(timedelta(hours=1))]
    tracker, _ = run(keeper, forever, stop_when=lambda: keeper.kept() == 6)
    assert keeper.marks == [EndMark.STOP]
    assert len(keeper.discarded) == 6
    assert tracker.last == {P0: 0, P1: 0}


@pytest.mark.parametrize("at_a_stop", [False, True], ids=["end-of-input", "stop"])
def test_the_run_ends_only_when_nothing_is_kept(at_a_stop: bool) -> None:
    keeper = Keeper(for_s=0.15, stubborn=True)
    items = [*items_of(6), *([Pause(timedelta(hours=1))] if at_a_stop else [])]
    tracker, _ = run(keeper, items, stop_when=(lambda: keeper.kept() == 6) if at_a_stop else None)
    assert keeper.marks == [EndMark.STOP if at_a_stop else EndMark.INPUT]
    assert (keeper.kept(), len(keeper.let_go)) == (0, 6)
    assert tracker.last == {P0: 3, P1: 3}
    assert tracker.wrong == []


# ---- the room by itself


class Shelf:
    """A waiting node in its barest form."""

    def __init__(self) -> None:
        self.offsets: set[tuple[TopicPartition, int]] = set()

    def kept(self) -> int:
        return len(self.offsets)

    def oldest(self) -> list[tuple[TopicPartition, int]]:
        places = {place for place, _ in self.offsets}
        return [(place, min(offset for at, offset in self.offsets if at == place)) for place in places]

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        raise AssertionError("no log is gone here")

    def credit(self) -> int | None:
        return None

    def due(self) -> float | None:
        return None

    def tick(self, now: float) -> None: ...

    def end(self, mark: EndMark) -> None: ...


@given(
    batches=st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), max_size=6),  # partition, which shelf
            st.floats(0, 1),  # how many of those that wait are let go
        ),
        max_size=12,
    ),
    order=st.randoms(use_true_random=False),
)
def test_safe_positions_are_the_oldest_kept_or_what_was_read_and_never_go_back(batches: Any, order: Any) -> None:
    shelves = [Shelf(), Shelf()]
    room = BufferingNodes(shelves)
    read: dict[TopicPartition, int] = {}
    before: dict[TopicPartition, int] = {}
    for arriving, share in batches:
        moved: dict[TopicPartition, int] = {}
        for partition, shelf in arriving:
            place = TopicPartition("numbers", partition)
            offset = read.get(place, 0)
            shelves[shelf].offsets.add((place, offset))
            read[place] = moved[place] = offset + 1
        for shelf_ in shelves:
            waiting = sorted(shelf_.offsets)
            shelf_.offsets -= set(order.sample(waiting, round(len(waiting) * share)))
        safe = {**before, **room.safe(moved)}
        kept = shelves[0].offsets | shelves[1].offsets
        for place, position in read.items():
            oldest = min((offset for at, offset in kept if at == place), default=position)
            assert safe[place] == oldest
            assert safe[place] >= before.get(place, 0)
        before = dict(safe)


def test_a_position_that_has_not_moved_is_said_once() -> None:
    shelf = Shelf()
    room = BufferingNodes([shelf])
    shelf.offsets = {(P0, 3), (P1, 7)}
    assert room.safe({P0: 5, P1: 9}) == {P0: 3, P1: 7}
    shelf.offsets = {(P1, 7)}
    # Else the next transaction would name both, and fail if the one is another member's by then.
    assert room.safe({}) == {P0: 5}
    assert room.safe({P1: 10}) == {P1: 7}
    assert room.safe({P0: 5}) == {P0: 5}
    shelf.offsets = set()
    assert room.safe({}) == {P1: 10}


def test_without_waiting_nodes_what_was_read_is_safe() -> None:
    assert BufferingNodes().safe({P0: 5}) == {P0: 5}


def test_nodes_are_told_of_the_end_upstream_first() -> None:
    told: list[str] = []

    class Telling(Shelf):
        def __init__(self, name: str) -> None:
            super().__init__()
            self._name = name

        def end(self, mark: EndMark) -> None:
            told.append(f"{self._name} {mark.value}")

    room = BufferingNodes([Telling("first")])
    room.add(Telling("second"), "second")
    room.end(EndMark.STOP)
    assert told == ["first stop", "second stop"]
