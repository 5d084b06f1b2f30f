"""The source client of one worker of a process that is a member of its group: its partitions come and go.

The messages of its slot are taken between two batches. The order of giving partitions up: the client reads them no more,
calls in progress are awaited for a while, the stage drops what it still keeps of them, the epoch ends behind that, its offsets
are committed, and only then are the rows gone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import wait
from typing import Any, NamedTuple

from loom.streaming.compiler.model import CompiledSource
from loom.streaming.failpoints import Failpoint, failpoint
from loom.streaming.kafka.client_records import CLIENT_RECORDS
from loom.streaming.kafka.member_commits import CommitRequest
from loom.streaming.kafka.offset_metadata import RunMetadata
from loom.streaming.kafka.topic_monitor import TopicChange
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.commit import CommittedElsewhere, CommitTracker
from loom.streaming.runtime.group_share import Granted, GroupShare, Revoked, Withdrawn
from loom.streaming.runtime.kafka_poller import Claim
from loom.streaming.runtime.offsets import WorkerOffsets
from loom.streaming.runtime.pace import Pace
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.source_loop import Committer, SourceLoop
from loom.streaming.runtime.source_worker import SourceWorker
from loom.streaming.runtime.stages.stage import Stage
from loom.streaming.runtime.stages.stage_io import Positions, SourceBatch
from loom.streaming.runtime.topic_changes import TopicChanges

__all__ = ["MemberCommitter", "MemberWorker"]

#: seconds of one wait for an answer of the member: while a flow ends, and between two batches
_ANSWER, _MOMENT = 0.02, 0.005
#: seconds between two epochs that end early because of what was taken up
_EARLY = 0.1


class MemberCommitter:
    """Commits as a member of the group: at most one request in flight, the next one takes what has accumulated.

    A request that met a rebalance has committed nothing; what is still this worker's is in the next one. `as_read`: what was
    read is committed, whatever has become of it.
    """

    def __init__(
        self,
        offsets: WorkerOffsets,
        share: GroupShare,
        keep_alive_s: float,
        took: Callable[[float], None] | None = None,
        *,
        as_read: bool,
    ) -> None:
        self._offsets = offsets
        self._share = share
        self._keep_alive_s = keep_alive_s
        self._as_read = as_read
        self._request: CommitRequest | None = None
        #: told how long a commit took, in seconds, where metrics are on
        self._took = took
        self._sent_at = 0.0

    def confirm(self) -> None:
        """Request what is new, unless a request is in flight."""
        self._take_answer()
        if self._request is None:
            self._send()

    def finish(self) -> bool:
        """Commit the last offsets; `False` until that is answered."""
        self._take_answer()
        if self._request is None and not self._send():
            return True
        if self._request is not None:
            wait((self._request.answer,), _ANSWER)
        return False

    def brought_to_end(self, partitions: Iterable[TopicPartition]) -> bool:
        """Commit what is committable of these; `False` until that is answered."""
        self._take_answer()
        wanted = set(partitions)
        if not wanted.intersection(self._uncommitted()):
            return True
        if self._request is None:
            self._send()
        if self._request is not None:
            wait((self._request.answer,), _MOMENT)
            self._take_answer()
        return not wanted.intersection(self._uncommitted())

    def _uncommitted(self) -> dict[TopicPartition, int]:
        return self._offsets.uncommitted(self._keep_alive_s, as_read=self._as_read)

    def _send(self) -> bool:
        positions = self._uncommitted()
        if positions:
            self._sent_at = time.monotonic()
            self._request = self._share.commit(positions, self._offsets.tenures(positions))
        return bool(positions)

    def _take_answer(self) -> None:
        if self._request is not None and self._request.answer.done():
            request, self._request = self._request, None
            committed = request.answer.result()
            self._offsets.committed(committed)
            if committed and self._took is not None:
                self._took(time.monotonic() - self._sent_at)


class _Awaiting(NamedTuple):
    """A partition with calls in progress that is to be given up."""

    tenure: int
    #: the number of the batch behind which nothing of it is begun
    after: int
    #: a monotonic time in seconds; calls that are still in progress then are cancelled
    until: float


class _FirstRecords:
    """Ends an epoch early behind the first records of partitions that were taken up.

    Under exactly-once nobody sees the results of a partition that moved before the first epoch of its new owner has ended,
    and by then the last epoch of the old owner is some time ago.
    """

    def __init__(self, feed: SourceLoop) -> None:
        self._feed = feed
        #: what nothing was read of yet, and until when that matters: by then an epoch has ended by itself
        self._wanted: set[TopicPartition] = set()
        self._until = 0.0
        #: the next early end, where something was read since the last one
        self._due = False
        self._not_before = 0.0

    def expect(self, partitions: Iterable[TopicPartition], within_s: float) -> None:
        """These are read from now on."""
        self._wanted.update(partitions)
        self._until = time.monotonic() + within_s

    @property
    def expected(self) -> bool:
        """Whether `look` has anything to do."""
        return self._due or bool(self._wanted)

    def look(self, batches: Iterable[SourceBatch]) -> None:
        """These batches are passed on."""
        now = time.monotonic()
        for batch in batches:
            self._due = self._due or not self._wanted.isdisjoint(batch.positions)
            self._wanted.difference_update(batch.positions)
        if self._due and now >= self._not_before:
            self._feed.end_epoch()
            self._due, self._not_before = False, now + _EARLY
        if now >= self._until:
            self._wanted.clear()


class MemberWorker(SourceWorker):
    """One worker's client, feed and slot. Used like a `SourceWorker`; its partitions are dealt to it."""

    def __init__(
        self,
        share: GroupShare,
        index: int,
        source: CompiledSource,
        state: RunState,
        make_stage: Callable[[], Stage],
        metadata: RunMetadata,
        topics: Mapping[str, tuple[int, ...]],
        keep_alive_s: float,
        pace: Pace | None,
        changes: TopicChanges,
        inbox: deque[TopicChange],
    ) -> None:
        self._share = share
        self._committer: MemberCommitter | None = None
        #: what is to be given up when its calls in progress have ended
        self._awaiting: dict[TopicPartition, _Awaiting] = {}
        #: what is being given up: its tenure, and the number of the batch behind which nothing of it comes
        self._leaving: dict[TopicPartition, tuple[int, int]] = {}
        super().__init__(source, state, make_stage, None, metadata, topics, keep_alive_s, pace, changes, inbox)
        self._parts = 1
        self._records.begin({})
        self._slot = share.open(index, self.standing)

    def next_batch(self) -> list[SourceBatch]:
        """The worker's batch."""
        self._share.check()
        if self._attempt != self.state.attempt:
            self._take_up_again()
        first = self._take_messages()
        batches = [*first, *super().next_batch()]
        if self._first_records.expected:
            self._first_records.look(batches)
        return batches

    def close(self) -> None:
        """End the worker. Idempotent."""
        if not self.left_by_all:
            self.leave()

    def _build(self) -> None:
        super()._build()
        self._first_records = _FirstRecords(self.feed)

    def _make_committer(
        self, tracker: CommitTracker | None, keep_alive_s: float, took: Callable[[float], None] | None
    ) -> Committer:
        mode = self._mode
        if mode.commits_behind_mark or mode.commits_by_client:
            self._committer = MemberCommitter(
                self._offsets, self._share, keep_alive_s, took, as_read=mode.commits_by_client
            )
            return self._committer
        return CommittedElsewhere()

    def _leave_unfinished(self) -> None:
        leaving = {partition: tenure for partition, (tenure, _) in self._leaving.items()}
        leaving |= {partition: awaiting.tenure for partition, awaiting in self._awaiting.items()}
        self._leaving.clear()
        self._awaiting.clear()
        rows = self._offsets.rows
        lost = [
            row.partition for row in rows if row.start is not None and not self._share.has(row.partition, row.tenure)
        ]
        self._records.give_up(lost)
        self._offsets.give_up({*leaving, *lost})
        self._share.gave_up(self._slot, leaving)

    def _rejoin(self, partitions: Iterable[TopicPartition]) -> None:
        self._share.grant_again(self._slot)

    def _claim(self) -> Claim | None:
        return self._commit_before_work if self._mode.commits_before_work else None

    def _begin(self, partitions: Iterable[TopicPartition]) -> None:
        starts = [partition for partition in partitions if partition in self._records.positions]
        super()._begin(starts)
        self._offsets.hold(self._share.tenures(starts))

    def _take_messages(self) -> list[SourceBatch]:
        batches: list[SourceBatch] = []
        messages = self._slot.messages
        while messages:
            message = messages.popleft()
            if isinstance(message, Granted):
                batches += self._take_up(message)
            elif isinstance(message, Revoked):
                batches += self._revoke(message)
            else:
                batches += self._withdraw(message)
        if self._awaiting:
            batches += self._end_awaiting()
        if self._leaving:
            self._finish_leaving()
        return batches

    def _take_up(self, granted: Granted) -> list[SourceBatch]:
        if not self.feed.is_reading:
            return []
        mine = {p: offset for p, offset in granted.starts.items() if self._share.has(p, granted.tenures[p])}
        starts = {**mine, **self._where_older(mine)}
        # A tenure may follow another one at once.
        batches = self._drop(starts)
        self._records.learn(starts)
        self._records.begin(starts)
        if self._mode.transaction:
            self._first_records.expect(starts, self.state.epochs.interval_s)
        failpoint(Failpoint.POSITIONED)
        self._begin(starts)
        return batches

    def _revoke(self, revoked: Revoked) -> list[SourceBatch]:
        mine = [partition for partition in revoked.tenures if partition in self._records.positions]
        self._records.give_up(mine)
        calls = bool(mine) and self._room.makes_calls
        # What was committed before it was processed is this process's to finish, however long that takes.
        begins_no_more = [self.feed.leave(mine)] if calls and self._discards else []
        after = self.feed.sent if calls else 0
        for partition in mine:
            self._awaiting[partition] = _Awaiting(revoked.tenures[partition], after, revoked.await_calls_until)
        others = {partition: tenure for partition, tenure in revoked.tenures.items() if partition not in mine}
        self._share.gave_up(self._slot, others)
        return begins_no_more

    def _end_awaiting(self) -> list[SourceBatch]:
        """Give up what has no call in progress any more, or has had its time."""
        now, waiting = time.monotonic(), self._awaiting
        over = self.feed.taken >= max(awaiting.after for awaiting in waiting.values())
        over = over and not self._room.in_progress(waiting.keys())
        mine = {partition: awaiting for partition, awaiting in waiting.items() if over or now >= awaiting.until}
        batches = self._discard(mine)
        for partition, awaiting in mine.items():
            del waiting[partition]
            self._leaving[partition] = awaiting.tenure, self.feed.sent
        return batches

    def _withdraw(self, withdrawn: Withdrawn) -> list[SourceBatch]:
        batches = self._drop(withdrawn.tenures)
        self._share.gave_up(self._slot, withdrawn.tenures)
        return batches

    def _drop(self, partitions: Collection[TopicPartition]) -> list[SourceBatch]:
        """Give partitions up at once: nothing of them that is in progress counts any more."""
        mine = [p for p in partitions if p in self._records.positions or p in self._awaiting]
        self._records.give_up(mine)
        batches = self._discard(mine)
        for partition in partitions:
            self._awaiting.pop(partition, None)
            self._leaving.pop(partition, None)
        self._offsets.give_up(partitions)
        return batches

    @property
    def _discards(self) -> bool:
        """Whether what the stage keeps of a partition is left to its next owner."""
        return self.feed.has_stage and not self._mode.emits_kept_on_stop

    def _discard(self, partitions: Collection[TopicPartition]) -> list[SourceBatch]:
        return [self.feed.discard(partitions)] if partitions and self._discards else []

    def _finish_leaving(self) -> None:
        """Give up what is at its end: durable, and committed."""
        settled = self.feed.settled
        done = {p: tenure for p, (tenure, after) in self._leaving.items() if settled >= after or self.feed.ended}
        if done and (self._committer is None or self._committer.brought_to_end(done)):
            for partition in done:
                del self._leaving[partition]
            self._offsets.give_up(done)
            self._share.gave_up(self._slot, done)

    def _commit_before_work(self, records: Sequence[Any], positions: Positions) -> tuple[Sequence[Any], Positions]:
        """Commit the offsets of a batch; of a partition that is no longer ours nothing is processed."""
        tenures = self._offsets.tenures(positions)
        left = {partition: offset for partition, offset in positions.items() if partition in tenures}
        lost = set(positions).difference(left)
        while left:
            request = self._share.commit(left, tenures)
            while not wait((request.answer,), _ANSWER).done:
                self._share.check()
                self.state.stop.check_deadline("the broker's answer to a commit")
            committed = request.answer.result()
            self._offsets.committed(committed)
            left = {partition: offset for partition, offset in left.items() if partition not in committed}
            gone = {partition for partition in left if not self._share.has(partition, tenures[partition])}
            lost |= gone
            for partition in gone:
                del left[partition]
            if left:
                self._share.check()
                self.state.stop.check_deadline("the group to be balanced")
        if lost:
            place = CLIENT_RECORDS.place
            records = [r for r in records if TopicPartition(*place(r)[:2]) not in lost]  # type: ignore[arg-type]
            positions = {partition: offset for partition, offset in positions.items() if partition not in lost}
        return records, positions

    def _close(self) -> None:
        ended = self.feed.ended
        self._share.leave(self._slot, ended=ended)
        super()._close()
