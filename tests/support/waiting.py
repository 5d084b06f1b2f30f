"""How tests wait: for an event, under a bound that only a failure meets.

A bound costs nothing where what is waited for comes, so it is far above what that takes on a machine that is busy with other
things. No test asserts that something took less than so many seconds: what takes too long does not come within `LONG_S`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds within which all that must come has come, on any machine.
LONG_S = 180.0


def until(done: Callable[[], object], otherwise: Callable[[], str] = lambda: "it did not come about") -> None:
    """Wait until something is true; `TimeoutError` with what `otherwise` tells then if that never comes."""
    deadline = time.monotonic() + LONG_S
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise())
        time.sleep(0.01)
