"""How a loop says that records come to a node: to the timer of its stage, or, for a record that is followed, into the trail.

A followed record is on its own between many that are not, so its loop calls nothing of ours for it.
"""

from __future__ import annotations

from time import time_ns

from loom.streaming.compiler.model import StepId
from loom.streaming.runtime.stages.codegen import CodeWriter, Lap
from loom.streaming.runtime.stages.node_timer import NodeTimer

__all__ = ["noted_lap", "timed_lap"]


def timed_lap(timer: NodeTimer) -> Lap:
    """For a loop over a batch that is timed.

    Args:
        timer: told of each node.
    """

    def write(code: CodeWriter, step_id: StepId) -> None:
        code.line(f"{code.shared_name('lap', timer.lap)}({timer.number(step_id)})")

    return write


def noted_lap(timer: NodeTimer) -> Lap:
    """For a loop over a single record that is followed.

    Args:
        timer: that of the stage; others tell it of nodes that are not in the loop.
    """

    def write(code: CodeWriter, step_id: StepId) -> None:
        note, now = code.shared_name("note", timer.trail.append), code.shared_name("now", time_ns)
        code.line(f"{note}({code.name('step', str(step_id))})", f"{note}({now}())")

    return write
