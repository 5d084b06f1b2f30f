"""What becomes of frozen positions: committed to the group, handed to a tracker, or left to the client's auto-commit.

Called by a feed when an epoch's barrier is behind it, on the worker's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol, runtime_checkable

from loom.core.logger import get_logger
from loom.streaming.kafka.errors import AuthorizationFailedError, CommitError
from loom.streaming.kafka.group_offsets import GroupOffsets
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.source_loop import Committer
from loom.streaming.runtime.standing import Standing

__all__ = [
    "AutoCommitter",
    "CommitTracker",
    "CommittedElsewhere",
    "GroupCommitter",
    "TrackerCommitter",
    "WatchedCommitter",
]

_log = get_logger(__name__)

#: seconds of one wait for the broker's answer while a flow ends
_ANSWER_SLICE = 0.02
#: seconds that the last commit may take where nothing is promised
_BEST_EFFORT = 2.0


@runtime_checkable
class CommitTracker(Protocol):
    """Receives the offsets that have become committable, instead of the consumer group.

    >>> class Offsets(dict):
    ...     def confirm(self, positions):
    ...         self.update(positions)
    >>> isinstance(Offsets(), CommitTracker)
    True
    """

    def confirm(self, positions: Mapping[TopicPartition, int]) -> None:
        """Take offsets. Called on the thread of a worker.

        Args:
            positions: the next offset to read of each partition whose earlier records are all durable.

        Raises:
            Exception: ends the run.
        """


class GroupCommitter:
    """Commits to the consumer group: at most one commit on its way, the next one takes what has come together."""

    def __init__(
        self,
        partitions: Collection[TopicPartition],
        frozen: Mapping[TopicPartition, int],
        group: GroupOffsets,
        keep_alive_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._partitions = partitions
        self._frozen = frozen
        self._group = group
        self._keep_alive_s = keep_alive_s
        self._clock = clock
        self._confirmed: dict[TopicPartition, int] = {}
        self._confirmed_at: dict[TopicPartition, float] = {}

    def confirm(self) -> None:
        """Send what is frozen, unless an earlier commit is still on its way."""
        self._take_answers()
        if not self._group.commit_outstanding:
            self._send()

    def finish(self) -> bool:
        """Confirm the last positions; `False` until the broker has said so."""
        self._take_answers()
        if self._group.commit_outstanding:
            self._group.serve(_ANSWER_SLICE)
            return False
        return not self._send()

    def _send(self) -> bool:
        """Commit what is new, or was confirmed too long ago; `False` when there is nothing to commit."""
        long_ago = self._clock() - self._keep_alive_s
        for partition in [partition for partition, at in self._confirmed_at.items() if at < long_ago]:
            # A group without members loses its positions after the broker's retention, each by its own last commit.
            del self._confirmed_at[partition], self._confirmed[partition]
        positions = _newer(self._partitions, self._frozen, self._confirmed)
        if not positions:
            return False
        if self._group.check():
            self._group.commit(positions)
        return True

    def _take_answers(self) -> None:
        confirmed = self._group.commit_answers()
        if confirmed:
            self._confirmed.update(confirmed)
            self._confirmed_at.update(dict.fromkeys(confirmed, self._clock()))


class TrackerCommitter:
    """Hands positions to a tracker of the caller's; what it raises ends the run."""

    def __init__(
        self,
        partitions: Collection[TopicPartition],
        frozen: Mapping[TopicPartition, int],
        tracker: CommitTracker,
    ) -> None:
        self._partitions = partitions
        self._frozen = frozen
        self._tracker = tracker
        self._confirmed: dict[TopicPartition, int] = {}

    def confirm(self) -> None:
        """Hand over what is new."""
        positions = _newer(self._partitions, self._frozen, self._confirmed)
        if positions:
            self._tracker.confirm(positions)
            self._confirmed.update(positions)

    def finish(self) -> bool:
        """Hand over the last positions."""
        self.confirm()
        return True


class CommittedElsewhere:
    """The positions are confirmed elsewhere: by the sink's transaction, or before their records were handed on.

    The source still waits for the last epoch, so that it sees how that ends.
    """

    def confirm(self) -> None:
        """Done already."""

    def finish(self) -> bool:
        """Done already, and the barrier is behind it."""
        return True


class AutoCommitter:
    """Leaves confirming to the client's auto-commit, which promises nothing; only the last one is asked for."""

    def __init__(self, group: GroupOffsets) -> None:
        self._group = group
        self._give_up_at: float | None = None

    def confirm(self) -> None:
        """The client commits in its own time."""
        self._take_answers()

    def finish(self) -> bool:
        """Let the client commit what it has handed out; `False` until the broker has answered."""
        if self._give_up_at is None:
            self._give_up_at = time.monotonic() + _BEST_EFFORT
            self._group.commit_stored()
        elif self._group.commit_outstanding:
            self._group.serve(_ANSWER_SLICE)
        self._take_answers()
        if self._group.commit_outstanding and time.monotonic() > self._give_up_at:
            _log.warning("last_commit_unanswered", note="records whose offsets it would have committed are read again")
            return True
        return not self._group.commit_outstanding

    def _take_answers(self) -> None:
        try:
            self._group.commit_answers()
        except (AuthorizationFailedError, CommitError) as error:
            # Nothing was promised, so the run goes on.
            _log.warning("commit_failed", reason=str(error))


class WatchedCommitter:
    """Confirms as another one does, and notes what came of it."""

    def __init__(self, inner: Committer, standing: Standing) -> None:
        self._inner = inner
        self._standing = standing

    def confirm(self) -> None:
        """The barrier is behind an epoch."""
        self._inner.confirm()
        self._standing.look()

    def finish(self) -> bool:
        """Confirm the last positions; `False` while that is still on its way."""
        done = self._inner.finish()
        self._standing.look()
        return done


def _newer(
    partitions: Collection[TopicPartition],
    frozen: Mapping[TopicPartition, int],
    confirmed: Mapping[TopicPartition, int],
) -> dict[TopicPartition, int]:
    """The frozen positions that are not confirmed yet."""
    return {
        partition: frozen[partition]
        for partition in partitions
        if partition in frozen and frozen[partition] != confirmed.get(partition)
    }
