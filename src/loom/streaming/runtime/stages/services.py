"""What a stage is given by its run: who closes what it opens, and the bridge to the event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from loom.core.async_bridge import AsyncBridge

__all__ = ["Lifetime", "StageServices"]


class Lifetime(Protocol):
    """Closes what was opened during a run, however that ends."""

    #: what ends the run, once something does
    fault: BaseException | None

    def opened(self, thing: object, what: str, close: Callable[[], None]) -> None:
        """Note something that must be closed in the end."""

    def closed(self, thing: object) -> None:
        """Close it now; again is no harm."""

    def below(self, what: str, close: Callable[[], object]) -> None:
        """Note something to be closed when nothing else is open any more."""

    def left_s(self) -> float | None:
        """How many seconds a stop has left, or would have; `None` means no limit."""


class _OwnLifetime:
    """For a stage without a run."""

    def __init__(self) -> None:
        self.fault: BaseException | None = None
        self._open: dict[object, Callable[[], None]] = {}

    def opened(self, thing: object, what: str, close: Callable[[], None]) -> None:
        self._open[thing] = close

    def closed(self, thing: object) -> None:
        close = self._open.pop(thing, None)
        if close is not None:
            close()

    def below(self, what: str, close: Callable[[], object]) -> None:
        """Nothing says when this is; the thread of a bridge is a daemon."""

    def left_s(self) -> float | None:
        return None


class StageServices:
    """Shared by the stages of one run.

    Args:
        lifetime: closes what the stages open.
        bridge: where coroutines run; without one, one is made when it is first needed, and closed after everything else.
    """

    def __init__(self, lifetime: Lifetime | None = None, bridge: AsyncBridge | None = None) -> None:
        self.lifetime: Lifetime = lifetime or _OwnLifetime()
        self._bridge = bridge
        self._lock = threading.Lock()

    @property
    def bridge(self) -> AsyncBridge:
        """The bridge of the run."""
        with self._lock:
            if self._bridge is None:
                self._bridge = made = AsyncBridge()
                self.lifetime.below("async bridge", lambda: self._close(made))
            return self._bridge

    def _close(self, made: AsyncBridge) -> None:
        with self._lock:
            # A worker that starts now gets another one.
            self._bridge = None
        made.shutdown(self.lifetime.left_s())
