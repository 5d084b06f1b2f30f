"""Run a blocking client call on a helper thread and poll for its result, so that a stop or deadline can interrupt the wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

__all__ = ["SLICE_S", "call_interruptibly", "result_interruptibly"]

#: seconds of one slice
SLICE_S = 0.5

A = TypeVar("A")


def call_interruptibly(call: Callable[[], A], waiting: Callable[[], None]) -> A:
    """What `call` returns or raises; `waiting` is called between the slices, and what it raises ends the wait.

    The call has a thread of its own. A call that is abandoned continues there, and ends with the process at the latest.
    """
    outcome: Future[A] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            outcome.set_exception(error)

    threading.Thread(target=run, name="loom-call", daemon=True).start()
    return result_interruptibly(outcome, waiting)


def result_interruptibly(outcome: Future[A], waiting: Callable[[], None]) -> A:
    """The result of a future; `waiting` as for `call_interruptibly`."""
    while not wait((outcome,), SLICE_S).done:
        waiting()
    return outcome.result()
