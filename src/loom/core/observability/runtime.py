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
from loom.core.observability.metrics import Measures, MetricsSource
from loom.core.observability.outbox import Outbox
from loom.core.observability.protocol import LifecycleObserver
from loom.core.observability.settings import ObservabilityConfig
from loom.core.observability.spans import Tracing
from loom.core.observability.structlog_observer import StructlogObserver
from loom.core.tracing import new_span_id

__all__ = ["ObservabilityRuntime", "Span"]

_log = get_logger("loom.core.observability")


class Span:
    """Something that has begun and has not ended yet. Made by `ObservabilityRuntime.begin`."""

    __slots__ = ("_begun", "_runtime", "_start")

    def __init__(self, runtime: ObservabilityRuntime, start: LifecycleEvent) -> None:
        self._runtime = runtime
        self._start = start
        self._begun = perf_counter()

    def end(
        self,
        error: BaseException | None = None,
        *,
        duration_ms: float | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Post the end, with the id of the beginning. Never waits for an observer.

        Args:
            error: what it failed with, if it did.
            duration_ms: how long it took, in milliseconds, if that is not the time since the beginning.
            meta: what is known at the end, in addition to what was known at the beginning.
        """
        start = self._start
        took = (perf_counter() - self._begun) * 1000 if duration_ms is None else duration_ms
        self._runtime.post(
            LifecycleEvent(
                start.scope,
                start.name,
                EventKind.END if error is None else EventKind.ERROR,
                start.trace_id,
                start.correlation_id,
                start.id,
                took,
                LifecycleStatus.SUCCESS if error is None else LifecycleStatus.FAILURE,
                None if error is None else repr(error),
                {**start.meta, **meta} if meta else start.meta,
            )
        )


class ObservabilityRuntime:
    """The observers of a run. No observer affects the flow or another observer, whether it raises, is slow or never returns.

    Each observer is called on a thread of its own, in the order of the events. An observer that raises is logged once per
    class. If it has an attribute `scopes`, a collection of `Scope`s, it is handed events of those only, and what nobody
    listens to is not even built.

    >>> class Recorder:
    ...     def on_event(self, event):
    ...         print(event.scope, event.name, event.kind)
    >>> runtime = ObservabilityRuntime([Recorder()])
    >>> with runtime.span(Scope.FLOW, "orders"):
    ...     pass
    flow orders start
    flow orders end

    Args:
        observers: told of every event.
    """

    def __init__(self, observers: Iterable[LifecycleObserver] = ()) -> None:
        self._observers = tuple(observers)
        self._failed: set[type] = set()
        self._outboxes: dict[Scope, list[Outbox]] = {scope: [] for scope in Scope}
        self._all: list[Outbox] = []
        for observer in self._observers:
            outbox = Outbox(observer, lambda observer=observer: self._note_failure(observer))  # type: ignore[misc]
            self._all.append(outbox)
            for scope in _scopes(observer):
                self._outboxes[scope].append(outbox)

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
            MissingExtraError: if the extra `prometheus` or `otel` is needed and not installed.
        """
        if config is None:
            return cls()
        if not isinstance(config, ObservabilityConfig):
            config = convert_section(config, ObservabilityConfig, key="observability")
        observers: list[LifecycleObserver] = []
        if config.log is not None and config.log.enabled:
            configure_logging(config.log.level, config.log.format)
            observers.append(StructlogObserver(detailed=config.log.level == "debug"))
        if config.prometheus is not None and config.prometheus.enabled:
            # Loads the package of an extra, as the next one does.
            from loom.core.observability.prometheus_observer import PrometheusObserver

            observers.append(PrometheusObserver(config.prometheus.config))
        if config.otel is not None and config.otel.enabled:
            from loom.core.observability.otel_observer import OtelObserver

            observers.append(OtelObserver(config.otel))
        return cls(observers)

    @property
    def enabled(self) -> bool:
        """Whether there are observers; if not, callers need not build the event."""
        return bool(self._observers)

    @property
    def dropped(self) -> int:
        """Events that were dropped, because 10,000 others still waited for an observer."""
        return sum(outbox.dropped for outbox in self._all)

    def listens(self, scope: Scope) -> bool:
        """Whether an observer is told of events of a scope; if not, callers need not build them.

        Args:
            scope: what the events would be about.
        """
        return bool(self._outboxes[scope])

    def emit(self, event: LifecycleEvent) -> None:
        """Pass an event to every observer, and wait a moment for those that are quick.

        An observer that takes longer than 0.2 s is not waited for again until it has caught up.

        Args:
            event: what happened.
        """
        outboxes = self._outboxes[event.scope]
        for outbox in outboxes:
            outbox.add(event)
        for outbox in outboxes:
            outbox.settle()

    def post(self, event: LifecycleEvent) -> None:
        """Pass an event to every observer without waiting for any; for what happens per batch.

        Args:
            event: what happened.
        """
        for outbox in self._outboxes[event.scope]:
            outbox.add(event)

    def settle(self, timeout_s: float = 1.0) -> None:
        """Wait until the observers have been handed everything, except those that are slow.

        Args:
            timeout_s: the longest wait for each, in seconds.
        """
        for outbox in self._all:
            outbox.settle(timeout_s)

    def begin(self, scope: Scope, name: str, *, meta: Mapping[str, Any] | None = None) -> Span | None:
        """Post the beginning of something whose end is told to the result; `None` where nobody listens to the scope.

        Args:
            scope: what begins.
            name: which one.
            meta: anything else worth knowing.
        """
        if not self._outboxes[scope]:
            return None
        start = LifecycleEvent(scope, name, EventKind.START, id=new_span_id(), meta=meta or {})
        self.post(start)
        return Span(self, start)

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
        if not self._outboxes[scope]:
            yield
            return
        start = LifecycleEvent(
            scope, name, EventKind.START, trace_id, correlation_id, new_span_id(), meta=meta if meta is not None else {}
        )
        self.emit(start)
        span = Span(self, start)
        try:
            yield
        except BaseException as error:
            span.end(error)
            raise
        else:
            span.end()
        finally:
            self.settle()

    @property
    def measures(self) -> Measures | None:
        """What has to be measured for an observer that serves metrics; `None` if there is none."""
        for observer in self._observers:
            found = getattr(observer, "measures", None)
            if isinstance(found, Measures):
                return found
        return None

    @property
    def tracing(self) -> Tracing | None:
        """Where the spans of records go; `None` if no observer traces."""
        for observer in self._observers:
            found: Tracing | None = getattr(observer, "tracing", None)
            if found is not None:
                return found
        return None

    def attach(self, source: MetricsSource) -> None:
        """Let every observer that serves metrics read those of a source, in place of an earlier one with its name.

        Args:
            source: what counts.
        """
        self._tell_all("attach", source)

    def start_scrape_server(self) -> None:
        """Let every observer that serves metrics start doing so; without one, nothing happens."""
        self._tell_all("start_scrape_server")

    def stop_scrape_server(self) -> None:
        """Let every observer that serves metrics stop doing so. Idempotent."""
        self._tell_all("stop_scrape_server")

    def close(self) -> None:
        """Let every observer send what it holds, for a moment. Those that send nothing are not told. They can be used again."""
        self.settle()
        self._tell_all("close")

    def _tell_all(self, method: str, *arguments: object) -> None:
        for observer in self._observers:
            call = getattr(observer, method, None)
            if call is not None:
                self._shielded(observer, call, *arguments)

    def _shielded(self, observer: LifecycleObserver, call: Callable[..., object], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception:  # noqa: BLE001  an observer is foreign code, and nothing it does may end a flow
            self._note_failure(observer)

    def _note_failure(self, observer: LifecycleObserver) -> None:
        """Log the exception at hand, the first of this class of observers."""
        kind = type(observer)
        if kind not in self._failed:
            self._failed.add(kind)
            _log.exception("observer_failed", observer=f"{kind.__module__}.{kind.__qualname__}")


def _scopes(observer: LifecycleObserver) -> Iterable[Scope]:
    """The scopes an observer wants to be told of; all without a word from it."""
    found = getattr(observer, "scopes", None)
    return tuple(Scope) if found is None else {Scope(scope) for scope in found}
