"""What a run tells whoever starts its process again; `loom run` with `streaming.supervision.restarts` does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from loom.streaming.kafka.record import TopicPartition

__all__ = ["Supervisor"]


class Supervisor(Protocol):
    """Is told how a run gets on. It also says when a stop is to be forced: a second signal to the run itself is none."""

    def moved(self, positions: Mapping[TopicPartition, int]) -> None:
        """Where the next run would begin with these partitions: at the start, and with each epoch that was confirmed.

        Called on the workers' threads; must not wait.
        """
