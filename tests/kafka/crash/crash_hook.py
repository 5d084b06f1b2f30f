"""In the process of a flow under test: strikes at a named point, and notes when points are reached.

The harness names `crash_hook:hook` in `LOOM_FAULT_POINTS`, a trace file in `LOOM_CRASH_TRACE`, and what to do in
`LOOM_CRASH_STRIKE`: `point:hit:signal`, a signal to this very process at that many-th time.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
from collections import Counter

#: the point of a record in a step; the flow's own, since production code has no points per record
IN_STEP = "in-step"
#: noted each time and not only the first: the end of an epoch tells that results come out again
_EVERY_TIME = frozenset({"durable"})

#: seconds for which one record stays in a step unless the point to strike at is reached, and which record of the process that is
_dawdles_s = float(os.environ.get("LOOM_CRASH_DAWDLE") or 0)
_DAWDLE, _DAWDLES_AT = "dawdles", 200
#: once the process was stopped where it strikes and has woken, that thread waits until the group has given it partitions again
_rejoins = bool(os.environ.get("LOOM_CRASH_REJOIN"))
_ASSIGNED, _REJOINS_WITHIN = "assigned", 60.0
_struck, _assigned = threading.Event(), threading.Event()
_lock, _reached = threading.Lock(), threading.Event()
_hits: Counter[str] = Counter()
_where, _hit, _how = (os.environ.get("LOOM_CRASH_STRIKE") or ":0:0").split(":")
# What hangs is asked where.
faulthandler.register(signal.SIGUSR1, all_threads=True)
_trace_file = os.environ.get("LOOM_CRASH_TRACE")
_trace = os.open(_trace_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) if _trace_file else None


def hook(point: str) -> None:
    """The run has come to a point."""
    name = str(point)
    with _lock:
        _hits[name] += 1
        hits = _hits[name]
    if name == _where:
        _reached.set()
    if name == _where and hits == int(_hit) and _may_strike():
        _note(f"struck at {name}")
        _struck.set()
        os.kill(os.getpid(), signal.Signals(int(_how)))
        if _rejoins:
            _note("rejoined" if _assigned.wait(_REJOINS_WITHIN) else "was not given partitions again")
    if name == _ASSIGNED and _struck.is_set():
        _assigned.set()
    if hits == 1 or name in _EVERY_TIME:
        _note(name)


def _may_strike() -> bool:
    """Of several processes, which are started again with the same environment, one strikes, once in a start of the flow."""
    once = os.environ.get("LOOM_CRASH_ONCE")
    if once is None:
        return True
    try:
        os.close(os.open(once, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def in_step() -> None:
    """A record is inside a step."""
    if _dawdles_s:
        _hits[_DAWDLE] += 1
        if _hits[_DAWDLE] == _DAWDLES_AT:
            _note(_DAWDLE)
            _reached.wait(_dawdles_s)
    if _where == IN_STEP:
        hook(IN_STEP)


def _note(what: str) -> None:
    if _trace is not None:
        os.write(_trace, f"{time.monotonic():.4f} {os.getpid()} {what}\n".encode())
