"""Hands events to observers, and shields the flow from them.

Made by the runner (or a test), and passed to whatever has something to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from loom.core.config.conversion import convert_section
from loom.core.logger import configure_logging, get_logger
from loom.core.observability.event import EventKind, LifecycleEvent, LifecycleStatus, Scope
from loom.core.observability.protocol import LifecycleObserver
from loom.core.observability.settings import ObservabilityConfig, refuse_later_observers
from loom.core.observability.structlog_observer import StructlogObserver
from loom.core.tracing import new_span_id

__all__ = ["ObservabilityRuntime"]

_log = get_logger("loom.core.observability")


class ObservabilityRuntime:
    """The observers of a run. An observer that raises is logged once per class and never affects the caller.

    >>> class Recorder:
    ...     def on_event(self, event):
    ...         print(event.scope, event.name, event.kind)
    >>> runtime = ObservabilityRuntime([Recorder()])
    >>> with runtime.span(Scope.FLOW, "orders"):
    ...     pass
    flow orders start
    flow orders end

    Args:
        observers: called in this order, on the thread that emits.
    """

    def __init__(self, observers: Iterable[LifecycleObserver] = ()) -> None:
        self._observers = tuple(observers)
        self._failed: set[type] = set()

    @classmethod
    def noop(cls) -> ObservabilityRuntime:
        """A runtime without observers."""
        return cls()

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | ObservabilityConfig | None) -> ObservabilityRuntime:
        """The observers that an `observability` section names.

        With `log` enabled, logging of the process is configured as the section says.

        Args:
            config: the section; `None` means no observers.

        Raises:
            ConfigError: for unknown keys or wrong types.
            NotSupportedYetError: if `otel` or `prometheus` is enabled.
        """
        if config is None:
            return cls()
        if not isinstance(config, ObservabilityConfig):
            config = convert_section(config, ObservabilityConfig, key="observability")
        refuse_later_observers(config)
        observers: list[LifecycleObserver] = []
        if config.log is not None and config.log.enabled:
            configure_logging(config.log.level, config.log.format)
            observers.append(StructlogObserver())
        return cls(observers)

    @property
    def enabled(self) -> bool:
        """Whether there are observers; if not, callers need not build the event."""
        return bool(self._observers)

    def emit(self, event: LifecycleEvent) -> None:
        """Pass an event to every observer.

        Args:
            event: what happened.
        """
        for observer in self._observers:
            self._shielded(observer, observer.on_event, event)

    @contextmanager
    def span(
        self,
        scope: Scope,
        name: str,
        *,
        trace_id: str | None = None,
        correlation_id: str | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Iterator[None]:
        """Emit the beginning of a block, and its end with its duration, or the error that left it.

        Args:
            scope: what the block is about.
            name: which one.
            trace_id: the trace it belongs to.
            correlation_id: the business transaction it belongs to.
            meta: anything else worth knowing.

        Raises:
            BaseException: whatever the block raises, unchanged.
        """
        if not self._observers:
            yield
            return
        span_id = new_span_id()
        meta = meta if meta is not None else {}
        self.emit(LifecycleEvent(scope, name, EventKind.START, trace_id, correlation_id, span_id, meta=meta))
        begun = perf_counter()

        def end(kind: EventKind, status: LifecycleStatus, error: str | None = None) -> LifecycleEvent:
            took = (perf_counter() - begun) * 1000
            return LifecycleEvent(scope, name, kind, trace_id, correlation_id, span_id, took, status, error, meta)

        try:
            yield
        except BaseException as error:
            self.emit(end(EventKind.ERROR, LifecycleStatus.FAILURE, repr(error)))
            raise
        self.emit(end(EventKind.END, LifecycleStatus.SUCCESS))

    def start_scrape_server(self) -> None:
        """Let every observer that serves metrics start doing so; without one, nothing happens."""
        for observer in self._observers:
            start = getattr(observer, "start_scrape_server", None)
            if start is not None:
                self._shielded(observer, start)

    def _shielded(self, observer: LifecycleObserver, call: Callable[..., object], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception:  # noqa: BLE001  an observer is foreign code, and nothing it does may end a flow
            kind = type(observer)
            if kind not in self._failed:
                self._failed.add(kind)
                _log.exception("observer_failed", observer=f"{kind.__module__}.{kind.__qualname__}")
