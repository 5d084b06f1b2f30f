"""The events that observers are handed.

Emitted through `ObservabilityRuntime`, per run, epoch or batch, never per record.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from loom.core.model import LoomFrozenStruct

__all__ = ["EventKind", "LifecycleEvent", "LifecycleStatus", "Scope"]


class Scope(enum.StrEnum):
    """What an event is about, from the whole run inwards.

    >>> Scope("flow")
    <Scope.FLOW: 'flow'>
    """

    #: One call of the runner, start to exit.
    POLL_CYCLE = "poll_cycle"
    #: The engine at work on one flow.
    FLOW = "flow"
    #: One node of the flow, handling one batch.
    NODE = "node"
    #: The filling of one batch by a collecting node.
    BATCH_COLLECT = "batch_collect"
    #: A connection to a broker or a store.
    TRANSPORT = "transport"
    #: One batch read by a source.
    READ = "read"
    #: One batch made durable by a sink.
    WRITE = "write"


class EventKind(enum.StrEnum):
    """Whether something began, ended, or ended with an error.

    >>> list(EventKind)
    [<EventKind.START: 'start'>, <EventKind.END: 'end'>, <EventKind.ERROR: 'error'>]
    """

    START = "start"
    END = "end"
    ERROR = "error"


class LifecycleStatus(enum.StrEnum):
    """How something ended.

    >>> list(LifecycleStatus)
    [<LifecycleStatus.SUCCESS: 'success'>, <LifecycleStatus.FAILURE: 'failure'>]
    """

    SUCCESS = "success"
    FAILURE = "failure"


class LifecycleEvent(LoomFrozenStruct):
    """Something began or ended.

    >>> LifecycleEvent(Scope.FLOW, "orders", EventKind.START).kind
    <EventKind.START: 'start'>

    Args:
        scope: what it is about.
        name: which one: a flow, a step id, a topic.
        kind: began, ended, or ended with an error.
        trace_id: the trace it belongs to, if any.
        correlation_id: the business transaction it belongs to, if any.
        id: the same for the beginning and the end of one thing.
        duration_ms: how long it took, in milliseconds; `None` at its beginning.
        status: how it ended; `None` at its beginning.
        error: the exception as text, if it ended with an error.
        meta: anything else worth knowing; values should be scalars.
    """

    scope: Scope
    name: str
    kind: EventKind
    trace_id: str | None = None
    correlation_id: str | None = None
    id: str | None = None
    duration_ms: float | None = None
    status: LifecycleStatus | None = None
    error: str | None = None
    meta: Mapping[str, Any] = {}
