"""The queue between workers and sink part: bounded, in order for each worker, and nobody is left waiting."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.streaming.runtime.loop.handover import Handover
from tests.support.waiting import LONG_S


def never(waiting_for: str) -> None:
    """A stop that has all the time it wants."""


def results(*numbers: int) -> list[Any]:
    return list(numbers)


@given(st.lists(st.lists(st.integers(), max_size=8), min_size=1, max_size=4), st.integers(1, 4))
def test_each_worker_is_taken_in_its_order_and_to_its_end(given_by: list[list[int]], room: int) -> None:
    handover = Handover(len(given_by), room, never)

    def work(worker: int) -> None:
        for number in given_by[worker]:
            assert handover.put([(worker, number)])  # type: ignore[list-item]
        handover.leave()

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(len(given_by))]
    for thread in threads:
        thread.start()
    taken: list[Any] = []
    most = 0
    while (some := handover.take()) is not None:
        most = max(most, len(some))
        taken += some
    for thread in threads:
        thread.join(LONG_S)
    assert [[number for worker, number in taken if worker == n] for n in range(len(given_by))] == given_by
    assert most <= room


def test_who_waits_for_room_is_let_go_when_nobody_takes_any_more() -> None:
    handover = Handover(1, 1, never)
    assert handover.put(results(1))
    said: list[bool] = []
    waiting = threading.Thread(target=lambda: said.append(handover.put(results(2))))
    waiting.start()
    handover.close()
    waiting.join(LONG_S)
    assert said == [False]
    assert handover.take() == [1]


@pytest.mark.parametrize("full", [True, False], ids=["room", "results"])
def test_a_stop_that_has_had_its_time_ends_a_wait(full: bool) -> None:
    waited_for: list[str] = []

    def late(waiting_for: str) -> None:
        waited_for.append(waiting_for)
        raise TimeoutError(waiting_for)

    handover = Handover(1, 1, late)
    if full:
        handover.put(results(1))
    waits = (lambda: handover.put(results(2))) if full else handover.take
    with pytest.raises(TimeoutError):
        waits()
    assert waited_for == ["room for the results of a batch" if full else "a worker that is still at work"]
