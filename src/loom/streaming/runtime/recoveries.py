"""Taking a run up again in place: after a transaction that was aborted, the process goes on instead of ending.

It gives up all partitions of all workers and takes them up again from the committed offsets, with stages and steps that have
seen nothing. Every batch carries the number of the attempt it belongs to; whatever still comes of an older one is dropped.
"""

from __future__ import annotations

from collections.abc import Callable

from loom.core.logger import get_logger
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.runtime.exactly_once import ExactlyOnce
from loom.streaming.runtime.producers import RecordWriter
from loom.streaming.runtime.stop import StopSignal

__all__ = ["Recoveries"]

_log = get_logger(__name__)

#: seconds until the first attempt, doubled with each further one without progress
_FIRST, _LONGEST = 0.05, 5.0


class Recoveries:
    """How often a run may be taken up again without progress, and with which steps.

    `renew` makes a plan whose steps have seen nothing.
    """

    def __init__(
        self,
        most: int,
        renew: Callable[[], CompiledPlan],
        exactly_once: ExactlyOnce,
        writers: Callable[[], RecordWriter],
        stop: StopSignal,
    ) -> None:
        self._most = most
        self._renew = renew
        self._exactly_once = exactly_once
        #: opens the writers of the next attempt
        self.writers = writers
        self._stop = stop
        #: in a row, without an epoch that was committed between them
        self._in_a_row = 0
        #: all of this run
        self.total = 0

    def progressed(self) -> None:
        """An epoch has been committed."""
        self._in_a_row = 0

    def may_go_on(self, fault: BaseException) -> bool:
        """Whether the run is to be taken up again after this fault; waits a little before a further attempt."""
        if not self._exactly_once.can_go_on(fault):
            return False
        if self._in_a_row >= self._most:
            _log.error("recoveries_spent", recoveries=self._in_a_row, note="none of them committed an epoch")
            return False
        pause = min(_FIRST * 2**self._in_a_row, _LONGEST) if self._in_a_row else 0.0
        self._in_a_row += 1
        self.total += 1
        _log.warning("run_taken_up_again", reason=str(fault), recoveries=self._in_a_row, of=self._most, pause_s=pause)
        if pause:
            self._stop.wait(pause)
        return True

    def renewed_plan(self) -> CompiledPlan:
        """The plan with steps that have seen nothing."""
        return self._renew()
