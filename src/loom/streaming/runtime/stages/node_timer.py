"""How long each node takes for a batch, for observers and metrics. Nothing of it is built when nobody wants to know.

A stage that is timed has several loops over the same nodes: one that is bare, and one that tells this timer of each node it
comes to. Metrics take the second for one batch a second; an observer of `Scope.NODE` takes it for every batch. A third one, for
single records that are followed, writes its way into the trail by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns, time_ns
from typing import Any

from loom.streaming.message import MessageMeta
from loom.streaming.runtime.stages.node_input import Item, NodeInput, Receive

__all__ = ["NodeTimer", "TellNode", "timed_input"]

#: (step id, seconds, records, what ended the batch there, if something did)
TellNode = Callable[[str, float, int, BaseException | None], None]


class NodeTimer:
    """A stopwatch with a lap for each node. Used by the one thread of its stage.

    >>> told = []
    >>> timer = NodeTimer(lambda step, seconds, records, error: told.append((step, records)), every_s=0.0)
    >>> price = timer.number("orders.price")
    >>> timer.start()
    >>> timer.lap(price)
    >>> timer.stop(0.0)
    >>> told
    [('orders.price', 1)]

    Args:
        tell: called for each node that records came to, when a batch is done.
        every_s: how often a batch is timed, in seconds by the clock of the batches; 0 for each of them, `None` for none.
    """

    def __init__(self, tell: TellNode, every_s: float | None) -> None:
        self._tell = tell
        #: batches may be timed
        self.times_batches = every_s is not None
        self._every = every_s if every_s is not None else float("inf")
        self._due = float("-inf") if every_s is not None else float("inf")
        #: the nodes that followed records have come to, each followed by the time in nanoseconds since 1970; always the same list
        self.trail: list[Any] = []
        #: the same times alone, each record's with that of its end, where its way is known otherwise; always the same list
        self.times: list[int] = []
        #: a record is followed, and what happens now has to do with it alone
        self.follows = False
        #: the batch is being timed, whether a record of it is followed or not
        self._measures = False
        #: a batch is being timed, or a record followed: functions outside the loop ask before they tell
        self.on = False
        self._steps: list[str] = []
        self._nanoseconds: list[int] = []
        self._records: list[int] = []
        self._at = self._since = 0
        # The time before the first node belongs to none.
        self._elsewhere = self.number("")

    def number(self, step_id: str) -> int:
        """The number under which a node reports.

        Args:
            step_id: the node.
        """
        if step_id not in self._steps:
            self._steps.append(step_id)
            self._nanoseconds.append(0)
            self._records.append(0)
        return self._steps.index(step_id)

    def wants(self, now: float) -> bool:
        """Whether a batch of this monotonic time is to be timed.

        Args:
            now: seconds.
        """
        return now >= self._due

    def start(self) -> None:
        """A batch begins."""
        self.on = self._measures = True
        self._at, self._since = self._elsewhere, perf_counter_ns()

    def lap(self, number: int, records: int = 1) -> None:
        """Records come to a node; what was at work until now is done.

        Args:
            number: the node.
            records: how many.
        """
        now = perf_counter_ns()
        if self.follows:
            self.trail += (self._steps[number], time_ns())
        if not self._measures:
            return
        self._nanoseconds[self._at] += now - self._since
        self._since, self._at = now, number
        self._records[number] += records

    def stop(self, now: float, error: BaseException | None = None) -> None:
        """The batch is done, or an exception has left the node that was at work. Tells what was measured.

        Args:
            now: the time of the batch, in seconds.
            error: the exception.
        """
        at = self._at
        self.lap(self._elsewhere, 0)
        self.on = self._measures = False
        for number, records in enumerate(self._records):
            if records and number != self._elsewhere:
                self._due = now + self._every
                ended = error if number == at else None
                self._tell(self._steps[number], self._nanoseconds[number] / 1e9, records, ended)
            self._nanoseconds[number] = self._records[number] = 0


def timed_input(timer: NodeTimer, number: int, into: NodeInput) -> NodeInput:
    """A node that is not written into the loop, with a lap before it.

    Args:
        timer: told of what arrives.
        number: the node.
        into: the node's own entry.
    """

    def one(take: Receive) -> Receive:
        def taken(payload: object, origin: object, meta: MessageMeta | None) -> None:
            if timer.on:
                timer.lap(number)
            take(payload, origin, meta)

        return taken

    def batch(items: list[Item]) -> None:
        if timer.on:
            timer.lap(number, len(items))
        into.batch(items)

    return NodeInput(one(into.record), one(into.tombstone), batch)
