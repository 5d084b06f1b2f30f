"""What happens to committable offsets: committed to the group, passed to a tracker, or left to the client's auto-commit.

Called by a source loop after an epoch, on the worker's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from loom.core.logger import get_logger
from loom.streaming.kafka.errors import AuthorizationFailedError, CommitError
from loom.streaming.kafka.group_offsets import GroupOffsets
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.offsets import WorkerOffsets
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
    """Commits to the consumer group: at most one commit in flight, the next one takes what has accumulated."""

    def __init__(
        self,
        offsets: WorkerOffsets,
        group: GroupOffsets,
        keep_alive_s: float,
        took: Callable[[float], None] | None = None,
    ) -> None:
        self._offsets = offsets
        self._group = group
        self._keep_alive_s = keep_alive_s
        #: told how long a commit took, in seconds, where metrics are on
        self._took = took
        self._sent_at = 0.0

    def confirm(self) -> None:
        """Send what is committable, unless a commit is in flight."""
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
        """Commit what is new, or was committed too long ago; `False` when there is nothing to commit."""
        positions = self._offsets.uncommitted(self._keep_alive_s)
        if not positions:
            return False
        if self._group.check():
            self._sent_at = time.monotonic()
            self._group.commit(positions)
        return True

    def _take_answers(self) -> None:
        if committed := self._group.commit_answers():
            self._offsets.committed(committed)
            if self._took is not None:
                self._took(time.monotonic() - self._sent_at)


class TrackerCommitter:
    """Hands offsets to a tracker of the caller's; what it raises ends the run."""

    def __init__(self, offsets: WorkerOffsets, tracker: CommitTracker) -> None:
        self._offsets = offsets
        self._tracker = tracker

    def confirm(self) -> None:
        """Hand over what is new."""
        if positions := self._offsets.uncommitted():
            self._tracker.confirm(positions)
            self._offsets.committed(positions)

    def finish(self) -> bool:
        """Hand over the last positions."""
        self.confirm()
        return True


class CommittedElsewhere:
    """The offsets are committed elsewhere: by the transaction of the sink, or before their records were processed.

    The source still waits for the last epoch, so that it sees how that ends.
    """

    def confirm(self) -> None:
        """Done already."""

    def finish(self) -> bool:
        """Done already."""
        return True


class AutoCommitter:
    """Leaves commits to the client's auto-commit, which guarantees nothing; only the last one is requested."""

    def __init__(self, group: GroupOffsets) -> None:
        self._group = group
        self._give_up_at: float | None = None

    def confirm(self) -> None:
        """The client commits in its own time."""
        self._take_answers()

    def finish(self) -> bool:
        """Let the client commit what was read; `False` until the broker has answered."""
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
            # Nothing was guaranteed, so the run continues.
            _log.warning("commit_failed", reason=str(error))


class WatchedCommitter:
    """Commits as another committer does, and notes the result."""

    def __init__(self, inner: Committer, standing: Standing) -> None:
        self._inner = inner
        self._standing = standing

    def confirm(self) -> None:
        """Commit after an epoch."""
        self._inner.confirm()
        self._standing.look()

    def finish(self) -> bool:
        """Commit the last offsets; `False` while that is in flight."""
        done = self._inner.finish()
        self._standing.look()
        return done
