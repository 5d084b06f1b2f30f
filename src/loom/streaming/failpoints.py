"""Named moments of a run at which a test may interfere; in production each is a call that does nothing.

Asked for per batch or per epoch, never per record. A hook is installed by `install`, or in another process by the environment:
`LOOM_FAULT_POINTS=module:function` names a callable that is handed each point as it is reached, on the thread that reaches it.
Unless one of the two is done, nothing is imported and nothing called.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

from loom.core.logger import get_logger

__all__ = ["VARIABLE", "Failpoint", "Hook", "failpoint", "install"]

#: the environment variable that names a hook
VARIABLE = "LOOM_FAULT_POINTS"


class Failpoint(StrEnum):
    """Where a run can be, in the order of its life."""

    STARTING = "starting"  #: nothing has been asked of a broker yet
    FENCED = "fenced"  #: exactly-once: predecessors are shut out, no position has been read
    CLAIMING = "claiming"  #: process 0 of several is about to take offsets over for all of them
    POSITIONED = "positioned"  #: a worker knows where it starts, and has not committed what the group did not know
    POLLED = "polled"  #: a batch has been read, and nothing done with it
    CLAIMED = "claimed"  #: at-most-once: a batch's offsets are committed, and nothing done with it
    BEFORE_PRODUCE = "before-produce"  #: a batch's results are about to be passed to a producer
    IN_TRANSACTION = "in-transaction"  #: exactly-once: the transaction is open
    PRODUCED = "produced"  #: a batch's results are in the producer's queue
    MARKED = "marked"  #: a source is about to pass on the mark that ends an epoch
    BEFORE_FLUSH = "before-flush"  #: the sink part ends an epoch
    FLUSHED = "flushed"  #: exactly-once: everything is at the broker, and nothing committed
    POSITIONS_SENT = "positions-sent"  #: exactly-once: the offsets are in the transaction, which is not committed
    DURABLE = "durable"  #: the epoch's results are durable (its transaction committed); the mark is not answered
    CONFIRMING = "confirming"  #: an epoch has been answered; what is committable is about to be committed
    ASSIGNED = "assigned"  #: in a group: partitions were given to this member, which knows its new generation
    METADATA_CAPTURED = "metadata-captured"  #: exactly-once in a group: offsets are about to be sent as a member
    REVOKING = "revoking"  #: in a group: partitions are to be given up, and the workers have just been told
    REVOKING_AT_BOUND = "revoking-at-bound"  #: in a group: partitions are revoked, and their epoch did not end in time
    STOPPING = "stopping"  #: a stop was requested; the end mark goes out
    FINISHING = "finishing"  #: the last offsets are about to be committed
    CLOSING = "closing"  #: the engine has returned; what it left open is about to be closed


Hook: TypeAlias = Callable[[Failpoint], None]

_hook: Hook | None = None


def failpoint(point: Failpoint) -> None:
    """Say that a run has come to a point. What a hook raises ends the run."""
    if _hook is not None:
        _hook(point)


def install(hook: Hook | None) -> Hook | None:
    """Call `hook` at every point from now on (`None`: no hook), in this process. Returns the previous hook."""
    global _hook
    before, _hook = _hook, hook
    return before


def _named(name: str) -> Hook:
    module, _, function = name.partition(":")
    try:
        hook: Hook = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as problem:
        raise ImportError(f"{VARIABLE}={name!r} names no callable (write module:function): {problem}") from problem
    get_logger(__name__).warning("failpoints_enabled", hook=name)
    return hook


if found := os.environ.get(VARIABLE):
    install(_named(found))
