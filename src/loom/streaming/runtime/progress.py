"""How a run gets on, in the log: a line each interval, one with the totals at the end, and why the run is over.

Opened by the runner around the engine. The thread sleeps between two lines; workers tell the lag when they are asked, so
that nothing touches their clients from outside.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from loom.core.logger import get_logger
from loom.streaming.metrics import FlowCounts
from loom.streaming.runtime.run_state import RunState

__all__ = ["reporting"]

_log = get_logger(__name__)

#: seconds that workers have to tell the lag; an idle one looks up every 20 ms
_ANSWER = 0.5
#: seconds that the end of a run waits for a line that is being written
_LEAVE = 1.0


@contextmanager
def reporting(flow: str, state: RunState, interval_ms: int) -> Iterator[None]:
    """Report on the run that the block is; an interval of 0 leaves only the end to be reported."""
    over = threading.Event()
    thread = None
    if interval_ms:
        arguments = (flow, state, interval_ms / 1000, over)
        thread = threading.Thread(target=_report, args=arguments, name="loom-progress", daemon=True)
        thread.start()
    began = time.monotonic()
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        over.set()
        if thread is not None:
            thread.join(_LEAVE)
        state.error_log.finish()
        totals = {"seconds": round(time.monotonic() - began, 1), **_counted(state.metrics.read())}
        if state.lag:
            totals["lag"] = sum(state.lag.values())
        _log.info("flow_totals", flow=flow, **totals)
        if failure is None:
            _log.info("flow_stopped", flow=flow, reason=state.stop.reason or "the input is over")
        else:
            reason = state.stop.reason if state.stop.stalled is failure else "the run failed"
            _log.error("flow_stopped", flow=flow, reason=reason, error=f"{type(failure).__name__}: {_text(failure)}")


def _report(flow: str, state: RunState, interval_s: float, over: threading.Event) -> None:
    answer = min(_ANSWER, interval_s / 2)
    read_before, at_before = 0, time.monotonic()
    while not over.wait(interval_s - answer):
        state.lag.clear()
        state.lag_asked += 1
        if over.wait(answer):
            return
        counts, now = state.metrics.read(), time.monotonic()
        rate = round((counts.read - read_before) / (now - at_before))
        read_before, at_before = counts.read, now
        _log.info("flow_progress", flow=flow, **_counted(counts), records_per_s=rate, **_lag(state))


def _counted(counts: FlowCounts) -> dict[str, Any]:
    """By input record: `read` is the sum of the others, except for records in progress."""
    found: dict[str, Any] = {"read": counts.read, "written": counts.written}
    if counts.dropped:
        found["dropped"] = counts.dropped
    found["errors"] = {kind.value: count for kind, count in counts.failed.items()}
    if counts.retries:
        found["retries"] = sum(counts.retries.values())
    if counts.refused:
        found["refused"] = counts.refused
    return found


def _lag(state: RunState) -> dict[str, int]:
    """Offsets after what was read, if every source client has answered."""
    told = list(state.lag.values())
    return {"lag": sum(told)} if told and len(told) >= len(state.standings) else {}


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an exception of the author whose text cannot be made
        return "?"
