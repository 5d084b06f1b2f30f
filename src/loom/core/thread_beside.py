"""Work on a thread of its own while a block runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["thread_beside"]


@contextmanager
def thread_beside(
    name: str, work: Callable[[], None], over: threading.Event, leave_s: float | None = None
) -> Iterator[None]:
    """Run `work` beside the block, on a daemon thread.

    >>> over, seen = threading.Event(), []
    >>> with thread_beside("example", lambda: seen.append(over.wait(10)), over):
    ...     pass
    >>> seen
    [True]

    Args:
        name: the name of the thread.
        work: what it does; it has to end soon once `over` is set.
        over: set when the block is left.
        leave_s: the most seconds for which the end of the block waits for the thread; `None`: until it has ended.
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(leave_s)
