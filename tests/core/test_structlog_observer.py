"""Each event is one log line whose level tells how much it matters."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from loom.core.logger import configure_logging
from loom.core.observability import EventKind, LifecycleEvent, LifecycleStatus, Scope, StructlogObserver


@pytest.mark.parametrize(
    ("scope", "kind", "level"),
    [
        (Scope.FLOW, EventKind.START, "info"),
        (Scope.POLL_CYCLE, EventKind.END, "info"),
        (Scope.NODE, EventKind.START, "debug"),
        (Scope.WRITE, EventKind.END, "debug"),
        (Scope.NODE, EventKind.ERROR, "error"),
    ],
)
def test_the_level_follows_scope_and_kind(scope: Scope, kind: EventKind, level: str) -> None:
    configure_logging("debug")
    with capture_logs() as lines:
        StructlogObserver().on_event(LifecycleEvent(scope, "orders", kind))
    assert lines == [{"event": f"{scope} {kind}", "name": "orders", "logger": "loom.lifecycle", "log_level": level}]


def test_a_line_holds_what_the_event_knows() -> None:
    configure_logging("debug")
    event = LifecycleEvent(
        Scope.FLOW, "orders", EventKind.ERROR, "t", "c", "i", 1.5, LifecycleStatus.FAILURE, "ValueError()", {"n": 1}
    )
    with capture_logs() as lines:
        StructlogObserver().on_event(event)
    known = {"trace_id": "t", "correlation_id": "c", "id": "i", "duration_ms": 1.5, "error": "ValueError()"}
    assert known.items() <= lines[0].items()
    assert (lines[0]["status"], lines[0]["meta"]) == ("failure", {"n": 1})
