"""What a running flow tells about itself: life cycle events, and the observers they are handed to.

Used by the runner and the engine adapter; names load on first use, so importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom.core.lazy import lazy_exports

if TYPE_CHECKING:
    from loom.core.observability.event import EventKind, LifecycleEvent, LifecycleStatus, Scope
    from loom.core.observability.otel_observer import OtelObserver
    from loom.core.observability.prometheus_observer import PrometheusObserver
    from loom.core.observability.protocol import LifecycleObserver
    from loom.core.observability.runtime import ObservabilityRuntime
    from loom.core.observability.settings import ObservabilityConfig
    from loom.core.observability.structlog_observer import StructlogObserver

__all__ = [
    "EventKind",
    "LifecycleEvent",
    "LifecycleObserver",
    "LifecycleStatus",
    "ObservabilityConfig",
    "ObservabilityRuntime",
    "OtelObserver",
    "PrometheusObserver",
    "Scope",
    "StructlogObserver",
]

__getattr__, __dir__ = lazy_exports(__name__)
