"""What every line of a run says: its flow, its instance, and the trace of the record at work. Read by the logger.

Set by the runner, and by whoever follows one record. A line of a thread that was started elsewhere (the engine's workers, a
client's) belongs to the run of the process, as long as there is but one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from loom.core.tracing import current_ids

__all__ = ["current_log_context", "log_context", "run_log_context"]

_NOTHING: Mapping[str, Any] = {}
_current: ContextVar[Mapping[str, Any]] = ContextVar("loom_log_context", default=_NOTHING)
_lock = threading.Lock()
_runs: dict[int, Mapping[str, Any]] = {}


def current_log_context() -> Mapping[str, Any]:
    """What a line that is written now says beside its own fields."""
    current, ids = _current.get(), current_ids()
    if ids is not None:
        current = {**current, "trace_id": ids[0], "span_id": ids[1]}
    runs = list(_runs.values())
    if len(runs) == 1:
        return {**runs[0], **current} if current else runs[0]
    return current


@contextmanager
def log_context(**fields: Any) -> Iterator[None]:
    """Say these fields in every line that this thread (or task) writes during the block.

    >>> with log_context(trace_id="0af7651916cd43dd8448eb211c80319c"):
    ...     current_log_context()["trace_id"]
    '0af7651916cd43dd8448eb211c80319c'

    Args:
        fields: what to say.
    """
    token = _current.set({**_current.get(), **fields})
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def run_log_context(**fields: Any) -> Iterator[None]:
    """Say these fields in every line of a run: those of this thread, and of all others while no other run is in the process.

    Args:
        fields: what to say.
    """
    mine = object()
    with _lock:
        _runs[id(mine)] = fields
    try:
        with log_context(**fields):
            yield
    finally:
        with _lock:
            _runs.pop(id(mine), None)
