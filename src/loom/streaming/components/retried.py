"""What a retry policy changes at a step: its error boundary, and a place where records wait for another call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.failures import Fail
from loom.streaming.runtime.stages.node_input import Ancestors
from loom.streaming.runtime.stages.retrying import RetryQueue

if TYPE_CHECKING:
    from loom.streaming.components.step import CompiledStep

__all__ = ["boundaries", "retry_queue"]


def retry_queue(build: StageBuilder, step: CompiledStep, above: Ancestors) -> RetryQueue | None:
    """Keeps the records that a step has failed on, where it has a retry policy."""
    if step.retry is None:
        return None
    return RetryQueue(build, step.retry, step.step_id, step.path, above, together=step.takes_batches)


def boundaries(
    build: StageBuilder, step: CompiledStep, above: Ancestors, queue: RetryQueue | None
) -> tuple[Fail, Fail]:
    """The error boundaries of what a step raises, and of what it returns and may not."""
    if queue is not None:
        return queue.failed, queue.refused
    fail = build.fail(step.step_id, step.path, above)
    return fail, fail
