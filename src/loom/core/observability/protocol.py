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

    It is called on a thread of its own, with one event at a time, in their order. An exception of it is logged once and
    otherwise ignored; if it is so slow that 10,000 events wait for it, later ones are dropped. An attribute `scopes`, a
    collection of `Scope`s, limits what it is told; without one it is told everything, for which each record is timed. If it
    also has a `start_scrape_server()`, that is called when a run begins.

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
