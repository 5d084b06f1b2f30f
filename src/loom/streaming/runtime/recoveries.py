"""Taking a run up again in place: after a transaction that was aborted, or a producer that has failed for good, the process
goes on instead of ending.

All workers begin again with stages and steps that have seen nothing: under exactly-once at the committed offsets, which are
asked for, and under at-least-once at the durable ones, which are known. Every batch carries the number of the attempt it
belongs to; whatever still comes of an older one is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from loom.core.logger import get_logger
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.kafka.errors import ProducerFailedError
from loom.streaming.runtime.exactly_once import ExactlyOnce
from loom.streaming.runtime.producers import RecordWriter
from loom.streaming.runtime.stop import StopSignal

__all__ = ["NextTransaction", "OtherProducers", "Recoveries", "Recovery"]

_log = get_logger(__name__)

#: seconds until the first attempt, doubled with each further one without progress
_FIRST, _LONGEST = 0.05, 5.0


class Recovery(Protocol):
    """How a run can be taken up again."""

    def can_go_on(self, fault: BaseException) -> bool:
        """Whether it can after this fault."""

    def writers(self, left: RecordWriter) -> RecordWriter:
        """The writers of the next attempt, in the place of those that are left."""


class NextTransaction:
    """Under exactly-once: go on with the next transaction. `open_producers` makes what writes in it."""

    def __init__(self, exactly_once: ExactlyOnce, open_producers: Callable[[], RecordWriter]) -> None:
        self._exactly_once = exactly_once
        self._open_producers = open_producers

    def can_go_on(self, fault: BaseException) -> bool:
        """Whether no successor is known to have caused it."""
        return self._exactly_once.can_go_on(fault)

    def writers(self, left: RecordWriter) -> RecordWriter:
        """The same client where it has aborted in order, or a new one."""
        self._exactly_once.take_up_again()
        return self._open_producers()


class OtherProducers:
    """Under at-least-once: go on with other producers. `open_producers` makes them."""

    def __init__(self, open_producers: Callable[[], RecordWriter]) -> None:
        self._open_producers = open_producers

    def can_go_on(self, fault: BaseException) -> bool:
        """Whether only the client has failed."""
        return isinstance(fault, ProducerFailedError)

    def writers(self, left: RecordWriter) -> RecordWriter:
        """New producers; what the old ones had not written is read again."""
        left.close()
        return self._open_producers()


class Recoveries:
    """How often a run may be taken up again without progress, and with which steps.

    `renew` makes a plan whose steps have seen nothing.
    """

    def __init__(
        self,
        most: int,
        renew: Callable[[], CompiledPlan],
        recovery: Recovery,
        stop: StopSignal,
    ) -> None:
        self._most = most
        self._renew = renew
        self._recovery = recovery
        self.writers = recovery.writers
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
        if not self._recovery.can_go_on(fault):
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
