"""A client call that nothing interrupts, waited for in slices: whoever waits is asked between them whether to go on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

__all__ = ["in_slices", "result_in_slices"]

#: seconds of one slice
_SLICE = 0.5

A = TypeVar("A")


def in_slices(call: Callable[[], A], waiting: Callable[[], None]) -> A:
    """What `call` returns or raises; `waiting` is called between the slices, and what it raises ends the wait.

    The call has a thread of its own. One that is given up goes on there, and ends with the process at the latest.
    """
    outcome: Future[A] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            outcome.set_exception(error)

    threading.Thread(target=run, name="loom-call", daemon=True).start()
    return result_in_slices(outcome, waiting)


def result_in_slices(outcome: Future[A], waiting: Callable[[], None]) -> A:
    """What comes of a future that ends by itself; `waiting` as for `in_slices`."""
    while not wait((outcome,), _SLICE).done:
        waiting()
    return outcome.result()
