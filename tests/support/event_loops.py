"""Which event loop the async calls of a test run in: that of `--event-loop`, else the one that a user would get.

`pytest --event-loop trio` (`make test ARGS="--event-loop trio"`) runs all tests on one, those aside that are marked
`own_event_loop`. Programs that tests start are told by the environment, and obey in the fork server.
"""

from __future__ import annotations

import os
from functools import partialmethod
from typing import Any

from loom.core.async_bridge import AsyncBridge

__all__ = ["EVENT_LOOPS", "VARIABLE", "take_event_loop"]

EVENT_LOOPS = ("asyncio", "uvloop", "trio")
VARIABLE = "LOOM_TESTS_EVENT_LOOP"

_make = AsyncBridge.__init__


def take_event_loop(name: str | None = None) -> None:
    """Make an event loop the one of every bridge that is to have plain asyncio; without a name, that of the environment."""
    name = name or os.environ.get(VARIABLE, "asyncio")
    AsyncBridge.__init__ = _make if name == "asyncio" else partialmethod(_made_on, name)  # type: ignore[method-assign, assignment]


def _made_on(self: AsyncBridge, name: str, backend: Any = "asyncio", *, use_uvloop: bool = False) -> None:
    if backend != "asyncio" or use_uvloop:
        _make(self, backend, use_uvloop=use_uvloop)
    elif name == "uvloop":
        _make(self, use_uvloop=True)
    else:
        _make(self, "trio")
