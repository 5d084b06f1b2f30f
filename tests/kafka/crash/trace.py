"""When the processes of a flow came to which point: what `crash_hook` has noted."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Moment(NamedTuple):
    """A point reached, in seconds of the machine's monotonic clock."""

    at: float
    process: int
    what: str


class Trace:
    """The notes of all processes that were given this file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def moments(self) -> list[Moment]:
        """Everything so far."""
        if not self.path.exists():
            return []
        moments = []
        for line in self.path.read_text(encoding="ascii").splitlines():
            at, process, what = line.split(" ", 2)
            moments.append(Moment(float(at), int(process), what))
        return moments

    def count(self, what: str) -> int:
        """How often something was reached, where each time is noted."""
        return sum(moment.what == what for moment in self.moments())

    def first(self, what: str, *, since: float = 0.0, process: int | None = None) -> float | None:
        """When something was reached for the first time."""
        found = [
            moment.at
            for moment in self.moments()
            if moment.what.startswith(what) and moment.at >= since and process in (None, moment.process)
        ]
        return min(found, default=None)

    def wait(
        self, what: str, *, within: float, alive: Callable[[], bool], since: float = 0.0, process: int | None = None
    ) -> bool:
        """Whether something is reached in time; `False` too when the process ends without."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            lives = alive()
            if self.first(what, since=since, process=process) is not None:
                return True
            if not lives:
                return False
            time.sleep(0.02)
        return False
