"""Records of one consumer client for the source loop of its worker, and what is due with their offsets. Hot path: `read`.

Created by the source, one per worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from loom.streaming.compiler.model import CompiledSource
from loom.streaming.failpoints import Failpoint, failpoint
from loom.streaming.kafka.consumer import ConsumerClient
from loom.streaming.runtime.keep_alive import KeepAlive
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.stages.buffering import BufferingNodes
from loom.streaming.runtime.stages.stage_io import Positions
from loom.streaming.runtime.standing import Standing

__all__ = ["Claim", "KafkaPoller"]

#: Returns what may be processed of some records, with the offsets behind it.
Claim: TypeAlias = Callable[[Sequence[Any], Positions], tuple[Sequence[Any], Positions]]

#: The longest wait for a first record, in seconds. Waiting inside the poll is what makes an idle worker cheap (measured:
#: 0.9 % of a core instead of 2.5 % and more), and a stop is seen this late at most.
_LONGEST_WAIT = 0.020
#: The same while another worker of this process has had records lately: an idle worker that hosts the sink holds the
#: busy one up for as long as it waits.
_POLITE_WAIT = 0.001
_LATELY = 1.0


class KafkaPoller:
    """Large batches without blocking while there is work. Hot path."""

    def __init__(
        self,
        records: ConsumerClient,
        room: BufferingNodes,
        state: RunState,
        source: CompiledSource,
        standing: Standing,
        keep_alive_s: float,
        claim: Claim | None = None,
    ) -> None:
        """`claim` commits the offsets of a batch as a member of the group, before it is processed."""
        self._claim = claim
        self._is_member = source.settings.shares_group
        self._records = records
        self._standing = standing
        self._room = room
        self._busy = state.last_busy
        self._wait = min(source.settings.poll_timeout_ms / 1000, _LONGEST_WAIT)
        self._commits_before_work = source.mode.commits_before_work
        self._commits_by_client = source.mode.commits_by_client
        self._keep_alive = KeepAlive(keep_alive_s)
        self._idle = False
        self._state = state
        self._lag_told = 0

    def read(self, most: int) -> tuple[Sequence[Any], Positions, bool]:
        patience = self._patience() if self._idle else 0.0
        if patience and self._room.elsewhere:
            # The end of a call is awaited, not the next record: the client's wait cannot be ended by it.
            self._room.wait(_POLITE_WAIT)
            patience = 0.0
        self._standing.waits = self._idle
        records = self._records.read(most, patience)
        self._standing.waits = False
        self._idle = not records
        if records:
            failpoint(Failpoint.POLLED)
            self._busy[id(self)] = time.monotonic()
        positions = self._records.moved()
        if records:
            records = self._records.without_redelivered(records)
        if still := self._keep_alive.still(positions, self._records.positions):
            positions = {**positions, **still}
        if positions and self._claim is not None:
            records, positions = self._claim(records, positions)
            failpoint(Failpoint.CLAIMED)
            self._standing.look()
        elif positions and self._commits_before_work:
            # Before anything is done with them: what is passed on now is never read again.
            self._records.group.commit_now(positions)
            self._standing.offsets.committed(positions)
            failpoint(Failpoint.CLAIMED)
            self._standing.look()
        elif positions and self._commits_by_client and not self._is_member:
            self._records.group.store(positions)
            if still:
                # The client commits by itself what has moved, and nothing else.
                self._records.group.commit_now(still)
        self._standing.went_on(positions)
        if self._lag_told != self._state.lag_asked:
            self._lag_told = self._state.lag_asked
            self._state.lag[id(self._records)] = self._records.lag()
        return records, positions, False

    def _patience(self) -> float:
        """How long to wait for a first record: not long if something else would be held up."""
        wait = self._wait
        if self._room.kept():
            # Until the first of what waits is due; what does not say when is looked after at once.
            due = self._room.due()
            wait = _POLITE_WAIT if due is None else max(due - time.monotonic(), _POLITE_WAIT)
        if len(self._busy) > 1:
            lately = time.monotonic() - _LATELY
            if any(at > lately for reader, at in self._busy.items() if reader != id(self)):
                wait = _POLITE_WAIT
        return min(wait, self._wait)
