"""Code for the work on one record that is followed: what the loop does, by itself, with the time at each node. Hot path.

Where the way of a record is known from the code that it has come to, the times stay in variables until the end. Whatever may lead
elsewhere is told of before it begins: the times up to there go to the trail, which others add theirs to.

Nothing is kept in a tuple for each record: one as long as a result would lie between results when memory is used again, and the
loop for all other records waits for memory that is not where it looks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import time_ns

from loom.streaming.compiler.model import StepId
from loom.streaming.runtime.stages.codegen import CodeWriter, Lap, WorkOnRecord
from loom.streaming.runtime.stages.node_input import Receive
from loom.streaming.runtime.stages.node_timer import NodeTimer

__all__ = ["RecordWriter"]


class RecordWriter(CodeWriter):
    """The work on one record that is followed: as in the loop, but by itself, with headers that carry its trace.

    Args:
        timer: takes the times.
        messages: whether the record may be a message.
        at_once: whether they go to the trail at once.
    """

    done, fuses = "return", True

    def __init__(self, timer: NodeTimer, *, messages: bool, at_once: bool = False) -> None:
        super().__init__("", indent=1)
        self.meta = "meta" if messages else "None"
        self.lap: Lap = self._reach
        self.payload = self.variable()
        self._trail, self._times = timer.trail, timer.times
        self._now = self.name("now", time_ns)
        #: others have been called by now
        self._called = False
        #: the result, if there is one, carries these headers
        self._carries = False
        self._at_once = at_once
        #: the nodes that the code at this place has come to, each with the variable that holds its time
        self._way: list[tuple[StepId, str]] = []
        #: of them, how many are in the trail by now
        self._told = 0
        #: ways of which more than one goes on from a place, so that nothing is known there
        self.meets = False

    @property
    def traced(self) -> str:  # type: ignore[override]
        """The headers. Whoever asks for them gives them to the one result of the record."""
        # A message may bring metadata along, and then its own headers.
        self._carries = self.meta == "None"
        return "traced"

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Write an indented block; what follows it has come to no node of it."""
        before = self._way.copy(), self._told, self._called, self._carries
        with super().block(head):
            yield
            # By now, `ended` is that of what follows.
            falls_through = not self._lines[-1].strip().startswith("return")
        self.meets |= falls_through and before != (self._way, self._told, self._called, self._carries)
        self._way, self._told, self._called, self._carries = before

    def ending(self, *lines: str) -> list[str]:
        """Lines that hand the record to what may end the run, and end the work on it here."""
        return [*self._telling(), *lines, "return"]

    def others(self) -> None:
        """Others are called, which may tell the trail of nodes by themselves, or end the run."""
        self.line(*self._telling())
        self._told, self._called = len(self._way), True

    def call(self, take: Receive) -> None:
        """Hand the record to a function."""
        self.others()
        super().call(take)

    def end(self) -> None:
        """End the work on the record."""
        if self._called or not self._carries:
            self.line(*self.ending())
        else:
            times = [*(time for _, time in self._way), f"{self._now}()"]
            self.line(f"{self.shared_name('times', self._times)}.extend(({', '.join(times)}))")
            self.line(f"return {self.name('path', tuple(step_id for step_id, _ in self._way))}")
        self.ended = True

    def compiled(self) -> WorkOnRecord:
        """The function that takes the record and these headers, or `None` where the loop for many is to set none."""
        made: WorkOnRecord = self._compiled("def run(origin, traced):")
        return made

    def _reach(self, _code: CodeWriter, step_id: StepId) -> None:
        time = f"t{len(self._way)}"
        self.line(f"{time} = {self._now}()")
        self._way.append((step_id, time))
        if self._at_once:
            self.others()

    def _telling(self) -> list[str]:
        """A line that tells the trail of what it does not know yet."""
        untold = [f"{self.name('step', step_id)}, {time}" for step_id, time in self._way[self._told :]]
        return [f"{self.shared_name('trail', self._trail)}.extend(({', '.join(untold)}))"] if untold else []
