"""A client call that nothing interrupts, waited for in slices: whoever waits is asked between them whether to go on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_slices"]

#: seconds of one slice
_SLICE = 0.5

A = TypeVar("A")


def in_slices(call: Callable[[], A], waiting: Callable[[], None]) -> A:
    """What `call` returns or raises; `waiting` is called between the slices, and what it raises ends the wait.

    The call has a thread of its own. One that is given up goes on there, and ends with the process at the latest.
    """
    outcome: queue.SimpleQueue[tuple[A | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((call(), None))
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            outcome.put((None, error))

    threading.Thread(target=run, name="loom-call", daemon=True).start()
    while True:
        try:
            result, error = outcome.get(timeout=_SLICE)
        except queue.Empty:
            waiting()
        else:
            if error is not None:
                raise error
            return result  # type: ignore[return-value]  # None only where the call returned it
