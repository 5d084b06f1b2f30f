"""What an observer is.

Implemented by the observers of this package and by users; called by `ObservabilityRuntime` alone.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from loom.core.observability.event import LifecycleEvent

__all__ = ["LifecycleObserver"]


@runtime_checkable
class LifecycleObserver(Protocol):
    """Receives life-cycle events. Any object with this method is one.

    It is called on the thread where something happens, and from several threads at once, so it should be quick. An exception
    of it is logged once and otherwise ignored. If it also has a `start_scrape_server()`, that is called when a run begins.

    >>> class Printer:
    ...     def on_event(self, event):
    ...         print(event.scope, event.name)
    >>> isinstance(Printer(), LifecycleObserver)
    True
    """

    def on_event(self, event: LifecycleEvent) -> None:
        """Take note of an event.

        Args:
            event: what happened.
        """
