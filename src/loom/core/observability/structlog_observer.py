"""Life cycle events as log lines.

Added by `ObservabilityRuntime.from_config` when the configuration has `observability.log`.
"""

from __future__ import annotations

from loom.core.logger import Logger, get_logger
from loom.core.observability.event import EventKind, LifecycleEvent, Scope

__all__ = ["StructlogObserver"]

#: Few per run; everything else happens per batch and is for developers.
_RARE = frozenset({Scope.POLL_CYCLE, Scope.FLOW})


class StructlogObserver:
    """Writes events to the log: runs and flows at level info, errors at error, everything else at debug.

    >>> from loom.core.observability import EventKind, LifecycleEvent, Scope
    >>> StructlogObserver().on_event(LifecycleEvent(Scope.NODE, "orders.price", EventKind.START))

    Args:
        logger: where lines go; `None` means a logger called `loom.lifecycle`.
        detailed: whether lines of level debug are wanted; without them most events need not be built.
    """

    def __init__(self, logger: Logger | None = None, *, detailed: bool = True) -> None:
        self._log = logger if logger is not None else get_logger("loom.lifecycle")
        #: the scopes whose events the runtime hands over
        self.scopes = frozenset(Scope) if detailed else _RARE

    def on_event(self, event: LifecycleEvent) -> None:
        """Write one line.

        Args:
            event: what happened.
        """
        fields = {
            name: getattr(event, name)
            for name in ("trace_id", "correlation_id", "id", "duration_ms", "error")
            if getattr(event, name) is not None
        }
        if event.status is not None:
            fields["status"] = event.status.value
        if event.meta:
            fields["meta"] = dict(event.meta)
        if event.kind is EventKind.ERROR:
            write = self._log.error
        elif event.scope in _RARE:
            write = self._log.info
        else:
            write = self._log.debug
        write(f"{event.scope.value} {event.kind.value}", name=event.name, **fields)
