"""The batches of a scope with resources for each batch, and which of them may be committed when their resources are closed."""

from __future__ import annotations

from typing import Any

from loom.streaming.runtime.scopes.call_runner import CallBatch

__all__ = ["CallBatches"]


class CallBatches:
    """Batches that are not committed, in their order.

    A call begins when the one before of its key is done, perhaps in an earlier batch that still waits for others. What comes
    of the two leaves in their order, so a batch waits for those before it that have a key in common with it.
    """

    def __init__(self) -> None:
        self._open: list[CallBatch] = []

    def add(self, batch: CallBatch) -> None:
        """A batch begins."""
        self._open.append(batch)

    def closed(self, batch: CallBatch) -> list[CallBatch]:
        """The resources of a batch are closed. Returns the batches to commit now, in their order."""
        batch.is_closed = True
        before = set[Any]()
        ready, left = [], []
        for each in self._open:
            keys = {key for call in each.calls for key in call.keys}
            if each.is_closed and before.isdisjoint(keys):
                ready.append(each)
            else:
                before |= keys
                left.append(each)
        self._open = left
        return ready
