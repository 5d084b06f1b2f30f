"""What an observer is.

Implemented by the observers of this package and by users; called by `ObservabilityRuntime` alone.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from loom.core.observability.event import LifecycleEvent

__all__ = ["LifecycleObserver"]


@runtime_checkable
class LifecycleObserver(Protocol):
    """Is told what happens.

    An observer is called on the thread where it happens, and from several threads at once; it should be quick. What
    it raises is logged once and otherwise ignored. One that also has a `start_scrape_server()` is asked to start it
    when a run begins.
    """

    def on_event(self, event: LifecycleEvent) -> None:
        """Take note of an event."""
