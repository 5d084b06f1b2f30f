"""Turns "alive but idle while lag grows" into an end of the run. Started by the runner when the config asks for it.

A thread reads what the workers note anyway. Only when an offset has not moved for the whole timeout does it ask the broker,
with a client of its own, whether there is a record after it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

from loom.core.logger import get_logger
from loom.core.thread_beside import thread_beside
from loom.streaming.kafka.errors import KafkaTransportError
from loom.streaming.kafka.lag import records_behind
from loom.streaming.kafka.settings import ConsumerSettings
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.run_errors import StalledError
from loom.streaming.runtime.run_state import RunState
from loom.streaming.runtime.standing import Standing

__all__ = ["Watchdog", "watching"]

_log = get_logger(__name__)

#: seconds that a stalled run has to stop in order, if the config does not say
_GRACE = 10.0
#: A stall is seen twice, a quarter of the timeout apart: after a broker has come back, a flow needs time to continue.
_LOOKS = 2
_APART = 0.25
#: how often the offsets are checked, as a share of the timeout and in seconds
_TICK_SHARE = 0.1
_LONGEST_TICK = 1.0
#: seconds that the end of a run waits for a check in progress
_LEAVE = 3.0
#: how many partitions and frames are named
_NAMED = 10
_FRAMES = 3
_RUNNER = os.path.join("loom", "streaming", "runtime", "runner.py")

#: the partitions with records after these offsets, each with its lag
Look: TypeAlias = Callable[[Mapping[TopicPartition, int]], dict[TopicPartition, int]]


@contextmanager
def watching(settings: ConsumerSettings, state: RunState, timeout_ms: int | None) -> Iterator[None]:
    """Watch the run that the block is; `None` watches nothing."""
    if timeout_ms is None:
        yield
        return
    over = threading.Event()

    def look(positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return records_behind(settings, positions, lambda: not over.is_set())

    dog = Watchdog(state, timeout_ms / 1000, look)
    with thread_beside("loom-watchdog", lambda: dog.watch(over), over, _LEAVE):
        yield


class _Still:
    """How long an offset has not moved."""

    __slots__ = ("behind", "looks", "position", "since")

    def __init__(self, position: int, since: float, *, behind: bool) -> None:
        self.position = position
        #: when the time that counts began
        self.since = since
        #: a record after it is known since then
        self.behind = behind
        #: how many looks have seen it there since its time was up
        self.looks = 0


class Watchdog:
    """Watches the positions of one run. Used by one thread."""

    def __init__(self, state: RunState, timeout_s: float, look: Look) -> None:
        self._state = state
        self._timeout = timeout_s
        self._look = look
        self._still: dict[TopicPartition, _Still] = {}
        self._away = False

    def watch(self, over: threading.Event) -> None:
        """Check until the run is over, a stop is requested, or it is stalled."""
        tick = min(self._timeout * _TICK_SHARE, _LONGEST_TICK)
        while not over.wait(tick) and not self._state.stop.requested:
            try:
                stalled = self.check(time.monotonic())
            except Exception as error:  # noqa: BLE001 - a fault of the watchdog is not a fault of the flow
                _log.exception("watchdog_failed", error=str(error))
                continue
            if stalled is not None and not over.is_set() and not self._state.stop.requested:
                _log.error("flow_stalled", reason=str(stalled))
                self._state.stop.request_stalled(stalled, _GRACE)
                return

    def check(self, now: float) -> StalledError | None:
        """What is wrong at this moment, in monotonic seconds."""
        standings = list(self._state.standings)
        here = {partition for standing in standings for partition in standing.offsets.restarts()}
        for gone in self._still.keys() - here:
            # Its topic was deleted.
            del self._still[gone]
        for standing in standings:
            self._note(standing, now)
        overdue = {
            partition: still.position
            for partition, still in self._still.items()
            if now - still.since >= self._timeout * (1 + _APART * still.looks)
        }
        if not overdue:
            return None
        try:
            lags = self._look(overdue)
        except KafkaTransportError as fault:
            self._broker_is_away(fault, now)
            return None
        if self._away:
            self._away = False
            _log.info("stall_check_resumed")
            self._restart_timeouts(now)
            return None
        return self._judge(standings, overdue, lags, now)

    def _note(self, standing: Standing, now: float) -> None:
        confirmed, read = standing.offsets.restarts(), standing.offsets.reads()
        before = self._still
        moved = any(p not in before or before[p].position != position for p, position in confirmed.items())
        for partition, position in confirmed.items():
            still, at_work = before.get(partition), read.get(partition, position) > position
            if still is None or still.position != position or (at_work and not still.behind):
                self._still[partition] = _Still(position, now, behind=at_work)
            elif moved and not at_work:
                # Its records wait for their turn after those of others.
                self._still[partition] = _Still(position, now, behind=False)
            if (until := standing.on_purpose_until(partition, position)) > self._still[partition].since:
                # For records that are kept until a time, or not read because of that, the timeout starts then.
                self._still[partition].since, self._still[partition].looks = until, 0

    def _broker_is_away(self, fault: KafkaTransportError, now: float) -> None:
        """Nobody can move on then."""
        if not self._away:
            self._away = True
            _log.warning("stall_check_paused", reason=str(fault))
        self._restart_timeouts(now)

    def _restart_timeouts(self, now: float) -> None:
        for still in self._still.values():
            still.since, still.looks = now, 0

    def _judge(
        self,
        standings: list[Standing],
        overdue: Mapping[TopicPartition, int],
        lags: Mapping[TopicPartition, int],
        now: float,
    ) -> StalledError | None:
        stalled = {}
        for partition in overdue:
            still = self._still[partition]
            if partition not in lags:
                self._still[partition] = _Still(still.position, now, behind=False)
            elif not still.behind:
                # Perhaps it came a moment ago, so its time begins now.
                self._still[partition] = _Still(still.position, now, behind=True)
            else:
                still.looks += 1
                if still.looks >= _LOOKS:
                    stalled[partition] = lags[partition]
        return self._told(standings, stalled) if stalled else None

    def _told(self, standings: list[Standing], stalled: Mapping[TopicPartition, int]) -> StalledError:
        named = [
            f"{partition} at {self._still[partition].position} (lag {lag})"
            for partition, lag in sorted(stalled.items())[:_NAMED]
        ]
        more = f", and {len(stalled) - _NAMED} more" if len(stalled) > _NAMED else ""
        guilty = {standing.thread for standing in standings if stalled.keys() & standing.offsets.restarts().keys()}
        at = [place for thread in guilty if (place := _place_of(thread))]
        where = f". The worker is at {'; '.join(at)}" if at else ""
        return StalledError(
            f"the flow is stalled: no offset has advanced for {self._timeout:g} s with records to read: {', '.join(named)}"
            f"{more}{where}. What is not committed is read again after a restart"
        )


def _place_of(thread: int) -> str:
    """The innermost frames of a worker, unless it is in the engine."""
    frame = sys._current_frames().get(thread)
    stack = [] if frame is None else traceback.extract_stack(frame)
    # What lies below the runner is the program that started it.
    below = max((index for index, one in enumerate(stack) if one.filename.endswith(_RUNNER)), default=-1)
    inner = stack[below + 1 :][-_FRAMES:]
    return ", called from ".join(f"{one.filename}:{one.lineno} in {one.name}" for one in reversed(inner))
