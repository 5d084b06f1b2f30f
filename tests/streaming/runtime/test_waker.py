"""What ends the rest of a worker."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import pytest

from loom.streaming.runtime.waker import Waker
from tests.support.waiting import LONG_S


def test_a_wait_ends_when_it_is_set_and_clears_it() -> None:
    waker = Waker()
    assert not waker.wait(0)
    waker.set()
    waker.set()
    assert waker.wait(LONG_S)
    assert not waker.wait(0)


def test_another_thread_ends_the_wait() -> None:
    waker = Waker()
    thread = threading.Thread(target=waker.set)
    thread.start()
    assert waker.wait(LONG_S)
    thread.join()


def test_a_signal_handler_ends_the_wait_of_the_thread_it_interrupts(request: pytest.FixtureRequest) -> None:
    waker = Waker()

    def handle(number: int, frame: FrameType | None) -> None:
        waker.set()

    before = signal.signal(signal.SIGALRM, handle)
    request.addfinalizer(lambda: signal.signal(signal.SIGALRM, before))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    assert waker.wait(LONG_S)
