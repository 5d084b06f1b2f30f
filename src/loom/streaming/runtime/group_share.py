"""What this process has of its group: deals the partitions of the member out to the workers, and finds where they begin.

Three threads meet here: the member's, which says what it has; one of its own, which looks positions up, since those of a
killed predecessor may take a while to settle; and the workers', each of which has a slot with messages for it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeAlias

from loom.core.logger import get_logger
from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.model import CompiledSource
from loom.streaming.kafka.consumer import ConsumerClient
from loom.streaming.kafka.errors import SecondInstanceError
from loom.streaming.kafka.member_commits import CommitRequest
from loom.streaming.kafka.membership import GroupMember, Tenure
from loom.streaming.kafka.offset_metadata import RunMetadata
from loom.streaming.kafka.patience import Patience, reason_at
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.member_transactions import MemberTransactions
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.standing import Standing
from loom.streaming.runtime.stop import StartGivenUp

__all__ = ["Granted", "GroupShare", "Revoked", "Slot", "Withdrawn"]

_log = get_logger(__name__)

#: seconds between two requests for positions that are not settled yet, and between two log lines about them
_AGAIN, _SAY = 0.2, 10.0
#: seconds after which the group has answered a heartbeat
_CONFIRM = 1.5
#: The part of a revocation's time in which calls in progress are awaited. The rest is for committing what they have made.
_AWAIT_CALLS = 3 / 4


class Granted(LoomFrozenStruct):
    """Begin with these partitions, at these offsets; each has the number of its tenure."""

    starts: Mapping[TopicPartition, int]
    tenures: Mapping[TopicPartition, int]


class Revoked(LoomFrozenStruct):
    """Bring what was read in these tenures to an end, commit it, and give them up.

    Calls in progress are awaited until a monotonic time, in seconds.
    """

    tenures: Mapping[TopicPartition, int]
    await_calls_until: float


class Withdrawn(LoomFrozenStruct):
    """These have been taken away."""

    tenures: Mapping[TopicPartition, int]


Message: TypeAlias = Granted | Revoked | Withdrawn


class Slot:
    """One worker's place. Messages are put in by other threads; the rest is changed under the share's lock."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.messages: deque[Message] = deque()
        #: what was dealt to this worker and not given up yet: the last tenure of each partition
        self.partitions: dict[TopicPartition, int] = {}
        #: the worker as the watchdog sees it, once there is one
        self.standing: Standing | None = None
        #: the worker has ended, so it is dealt nothing more
        self.left = False


class GroupShare:
    """The partitions of this process, dealt to the slots of `workers` workers. Opened by the first of them, closed by the last.

    `topics` returns the partition numbers of the source's topics.
    """

    def __init__(
        self,
        source: CompiledSource,
        state: RunState,
        topics: Callable[[], Mapping[str, tuple[int, ...]]],
        metadata: RunMetadata,
        workers: int,
        exactly_once: MemberTransactions | None = None,
    ) -> None:
        self._settings = source.settings
        self._state = state
        self._topics = topics
        self._metadata = metadata
        self._lock = threading.Lock()
        self._slots = [Slot(index) for index in range(workers)]
        #: the slot and the tenure of each partition that this process has
        self._dealt: dict[TopicPartition, tuple[Slot, int]] = {}
        #: Those of them that no worker has been told to read yet, each with the number of the request to look it up. What an
        #: earlier request finds is of no use: what the worker has committed since would be read again.
        self._requested: dict[TopicPartition, int] = {}
        self._last_request = 0
        self._wanted: queue.SimpleQueue[Mapping[TopicPartition, int] | None] = queue.SimpleQueue()
        self._fault: BaseException | None = None
        self._opened = self._closed = False
        self._client = ConsumerClient(self._settings, _unimportant, metadata, state.clusters)
        self._client.waiting = self._waiting
        self._client.begin({})
        self._member = GroupMember(self._settings, source.topics, self, metadata.text, state.clusters)
        self._exactly_once = exactly_once
        if exactly_once is not None:
            exactly_once.captured = lambda: self._member.metadata
            exactly_once.confirmed = self._confirm
        self._positions = threading.Thread(target=self._look_up, name="loom-positions", daemon=True)

    @property
    def closed(self) -> bool:
        """Whether every worker has ended."""
        return self._closed

    @property
    def member(self) -> GroupMember:
        """The member of the group."""
        return self._member

    def open(self, index: int, standing: Standing) -> Slot:
        """A worker begins. The first one joins the group."""
        slot = self._slots[index]
        slot.standing = standing
        with self._lock:
            first, self._opened = not self._opened, True
        if first:
            self._state.opened(self, "group member", self._close)
            try:
                self._commit_first_positions()
            except StartGivenUp:
                return slot
            self._positions.start()
            self._member.start()
        return slot

    def leave(self, slot: Slot, *, ended: bool) -> None:
        """A worker is gone, in order or not; the last one leaves the group."""
        with self._lock:
            slot.left = True
            slot.partitions.clear()
            slot.standing = None
            last = all(other.left or other.standing is None for other in self._slots)
        if last or not ended:
            self._for_good = not ended or self._state.leaves_group
            self._state.closed(self)

    def check(self) -> None:
        """Raise what the member, or a look-up, has failed with."""
        if self._fault is not None:
            raise self._fault

    def commit(self, offsets: Mapping[TopicPartition, int], tenures: Mapping[TopicPartition, int]) -> CommitRequest:
        """Request a commit as a member of the group."""
        return self._member.commit(offsets, tenures)

    def has(self, partition: TopicPartition, tenure: int) -> bool:
        """Whether a tenure is the current one."""
        dealt = self._dealt.get(partition)
        return dealt is not None and dealt[1] == tenure

    def tenures(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The current tenures of these partitions; 0 for one that this process does not have."""
        return {p: dealt[1] if (dealt := self._dealt.get(p)) is not None else 0 for p in partitions}

    def gave_up(self, slot: Slot, tenures: Mapping[TopicPartition, int]) -> None:
        """Nothing of these tenures is in progress in this worker any more. It may have been dealt a later one."""
        with self._lock:
            for partition, tenure in tenures.items():
                if slot.partitions.get(partition) == tenure:
                    del slot.partitions[partition]

    def grant_again(self, slot: Slot) -> None:
        """A worker begins again: look up where, for everything that is still its own."""
        with self._lock:
            for message in slot.messages:
                if not isinstance(message, Granted):
                    for partition, tenure in message.tenures.items():
                        if slot.partitions.get(partition) == tenure:
                            del slot.partitions[partition]
            slot.messages.clear()
            slot.partitions = {p: n for p, n in slot.partitions.items() if self._dealt.get(p) == (slot, n)}
            self._request(slot.partitions)

    def _request(self, partitions: Iterable[TopicPartition]) -> None:
        """Have these looked up from now on. Called under the lock."""
        self._last_request += 1
        if wanted := dict.fromkeys(partitions, self._last_request):
            self._requested.update(wanted)
            self._wanted.put(wanted)

    def _confirm(self) -> None:
        """Give the group time to say whether this process is still its member, and raise where it is not."""
        self._state.stop.wait(_CONFIRM)
        self.check()

    # What the member says, on its thread.

    def assigned(self, tenures: Collection[Tenure]) -> None:
        with self._lock:
            for tenure in tenures:
                slot = self._slot_for(tenure.partition)
                slot.partitions[tenure.partition] = tenure.number
                self._dealt[tenure.partition] = slot, tenure.number
            self._request(tenure.partition for tenure in tenures)
        self._state.rebalances += 1

    def revoking(self, partitions: Collection[TopicPartition], bound_s: float) -> None:
        until = time.monotonic() + bound_s * _AWAIT_CALLS
        self._tell(set(partitions), lambda tenures: Revoked(tenures, until))

    def has_given_up(self, partitions: Collection[TopicPartition]) -> bool:
        with self._lock:
            wanted = set(partitions)
            return not any(slot.partitions.keys() & wanted for slot in self._slots)

    def withdraw(self, partitions: Collection[TopicPartition]) -> None:
        self._state.offsets.revoke(partitions)
        self._tell(set(partitions), Withdrawn)
        with self._lock:
            for partition in partitions:
                self._dealt.pop(partition, None)
                self._requested.pop(partition, None)

    def stuck_for(self) -> float:
        called = [s.standing.called_at for s in self._slots if s.standing is not None and s.standing.called_at]
        return time.monotonic() - min(called) if called else 0.0

    def failed(self, fault: BaseException) -> None:
        self._fault = self._fault or fault

    def _slot_for(self, partition: TopicPartition) -> Slot:
        """The worker that still has something of it in progress, else the one with the fewest."""
        for slot in self._slots:
            if partition in slot.partitions and not slot.left:
                return slot
        alive = [slot for slot in self._slots if not slot.left] or self._slots
        return min(alive, key=lambda slot: len(slot.partitions))

    def _tell(
        self, partitions: set[TopicPartition], message: Callable[[Mapping[TopicPartition, int]], Revoked | Withdrawn]
    ) -> None:
        with self._lock:
            for slot in self._slots:
                mine = slot.partitions.keys() & partitions
                told = {p: slot.partitions[p] for p in mine if p not in self._requested}
                for partition in mine & self._requested.keys():
                    # It is still being looked up, so that nothing of it is in progress.
                    del slot.partitions[partition], self._requested[partition]
                    self._dealt.pop(partition, None)
                if told:
                    slot.messages.append(message(told))

    # Positions.

    def _commit_first_positions(self) -> None:
        """Keep where a new group begins in every partition before any is read: "latest" is a moment, not an offset.

        A plain commit: a broker refuses it once the group has members, and then one of them has done this.
        """
        partitions = self._all()
        patience = Patience(
            f"the offsets of the group {self._settings.group_id!r}",
            self._settings.start_timeout_ms / 1000,
            lambda: reason_at(self._settings.to_confluent_config()),
        )
        committed, silent = self._client.settled(partitions, ())
        while len(silent) == len(partitions):
            patience.spend("no answer yet")
            self._client.serve(_AGAIN)
            committed, silent = self._client.settled(partitions, ())
        self._metadata.replaces(committed.values())
        self._metadata.found(committed)
        unknown = [p for p in partitions if p not in committed]
        if silent or not unknown:
            return
        found = self._client.start_from(unknown, committed)
        try:
            self._client.group.commit_now(found.offsets)
            if self._metadata.covered(found.offsets):
                self._client.group.commit_now(found.offsets)
        except SecondInstanceError:
            _log.info("first_offsets_skipped", why="the group has members, which have committed them")

    def _look_up(self) -> None:
        pending: dict[TopicPartition, int] = {}
        began = said_at = 0.0
        try:
            while not self._closed:
                if not self._take_wanted(pending):
                    return
                now = time.monotonic()
                if not began:
                    began = said_at = now
                self._grant_settled(pending)
                if not pending:
                    began = 0.0
                elif time.monotonic() - said_at > _SAY:
                    said_at = time.monotonic()
                    _log.warning(
                        "offsets_pending",
                        partitions=len(pending),
                        first=str(min(pending)),
                        seconds=round(said_at - began),
                        why="their last owner ended inside a transaction, or their leader or the group's coordinator does not "
                        "answer; other partitions are read meanwhile",
                    )
        except StartGivenUp:
            return
        except BaseException as fault:  # noqa: BLE001 - surfaced by the workers
            self.failed(fault)

    def _take_wanted(self, pending: dict[TopicPartition, int]) -> bool:
        """Add what was assigned; waits for something where nothing is pending. `False`: the share is closed."""
        try:
            found = self._wanted.get(timeout=_AGAIN if pending else None)
            while True:
                if found is None:
                    return False
                pending.update(found)
                found = self._wanted.get_nowait()
        except queue.Empty:
            pass
        for partition in [p for p, request in pending.items() if self._requested.get(p) != request]:
            del pending[partition]
        return True

    def _grant_settled(self, pending: dict[TopicPartition, int]) -> None:
        if not pending:
            return
        committed, silent = self._client.settled(list(pending), self._all())
        unsure = {partition.topic for partition in silent}
        # What a partition without a position is, its siblings' positions tell.
        ready = sorted(p for p in pending if p not in silent and (p in committed or p.topic not in unsure))
        if not ready:
            return
        if self._exactly_once is not None and self._exactly_once.fence_named(
            {partition: committed[partition] for partition in ready if partition in committed}
        ):
            return
        found = self._client.start_where_led(ready, committed)
        self._metadata.replaces(found.committed.values())
        self._metadata.found(found.committed)
        self._metadata.covered(found.offsets)
        by_slot: dict[int, dict[TopicPartition, int]] = {}
        with self._lock:
            for partition, offset in found.offsets.items():
                if self._requested.get(partition) == pending.pop(partition):
                    del self._requested[partition]
                    by_slot.setdefault(self._dealt[partition][0].index, {})[partition] = offset
            for index, starts in by_slot.items():
                tenures = {partition: self._dealt[partition][1] for partition in starts}
                self._slots[index].messages.append(Granted(starts, tenures))

    def _all(self) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for topic, numbers in self._topics().items() for number in numbers]

    def _waiting(self, waiting_for: str) -> None:
        if self._closed:
            raise StartGivenUp(waiting_for)
        if not self._positions.is_alive():
            self._state.stop.check_start(waiting_for)

    _for_good = False

    def _close(self) -> None:
        """Leave the group. Whatever is in progress by now is not committed."""
        self._closed = True
        self._wanted.put(None)
        self._member.close(for_good=self._for_good, within_s=self._state.left_s())
        if self._positions.is_alive():
            self._positions.join(_AGAIN * 10)
        self._client.close()


def _unimportant(topic: str, why: str) -> None:
    _log.info("topic_check_skipped", topic=topic, why=why)
