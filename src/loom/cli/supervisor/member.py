"""One process of a supervised flow over all its runs: started, restarted within a policy, given up. Created by `supervise`."""

from __future__ import annotations

import selectors
import sys
import time
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from loom.cli.exit_codes import Exit
from loom.cli.supervisor.channel import RESTARTS
from loom.cli.supervisor.child import Child
from loom.cli.supervisor.recorder import AtWork
from loom.cli.supervisor.restart_policy import End, RestartPolicy
from loom.cli.supervisor.suspicion import Finding, Suspicion
from loom.core.counted import counted
from loom.core.logger import get_logger
from loom.streaming.runtime.layout import PROCESS_ID, PROCESSES
from loom.streaming.runtime.settings import SupervisionSettings

__all__ = ["Member"]

_log = get_logger(__name__)

#: how many positions a message names
_NAMED = 20


class Member:
    """The process of this index out of `processes`; the only one, run as it is, where that is `None`."""

    def __init__(
        self,
        command: Sequence[str],
        settings: SupervisionSettings,
        selector: selectors.BaseSelector,
        index: int = 0,
        processes: int | None = None,
    ) -> None:
        self._command = command
        self._settings = settings
        self._selector = selector
        self._several = processes is not None
        self._environment = {} if processes is None else {PROCESS_ID: str(index), PROCESSES: str(processes)}
        self._prefix = None if processes is None else f"[{index}] "
        self._fields = {} if processes is None else {"process": index}
        self._policy, self._suspicion = RestartPolicy(settings.restarts), Suspicion()
        self._child: Child | None = None
        self._began = 0.0
        self._starts = 0
        #: when the next run begins, in monotonic seconds; `None` while one runs, and when there is none any more
        self.starts_at: float | None = 0.0
        #: how the last run ended
        self.end: End | None = None

    @property
    def is_over(self) -> bool:
        """Whether it is neither running nor waiting for its next run."""
        return self._child is None and self.starts_at is None

    def step(self, *, stopping: bool) -> None:
        """Take note of an end, and start the next run when its time has come; none once the flow is `stopping`."""
        if self._child is not None and self._child.ended:
            self._ended(self._child, stopping=stopping)
        if self.starts_at is not None and stopping:
            self.starts_at = None
        if self.starts_at is not None and time.monotonic() >= self.starts_at:
            self.starts_at, self._began = None, time.monotonic()
            self._child = Child(
                self._command,
                {**self._environment, RESTARTS: str(self._starts)},
                self._suspicion.isolation(),
                self._policy.moved,
                self._selector,
                self._prefix,
            )
            self._starts += 1

    def stop(self, number: int) -> None:
        """Pass a signal on to the run."""
        if self._child is not None:
            self._child.stop(number)

    def ask_to_stop(self, number: int) -> None:
        """Stop the run in order, unless that was asked for already."""
        if self._child is not None and not self._child.asked:
            self._child.stop(number)

    def _ended(self, child: Child, *, stopping: bool) -> None:
        self._child, end = None, child.finish()
        if self._several and end.code == Exit.DONE and not stopping:
            # Its partitions have no other reader: a stop of this process alone is followed by another run.
            end = replace(end, final=False, counts=False)
        self.end = end
        if stopping:
            return
        if child.again:
            # It ended in order, so the next run is normal: all workers and full batches.
            self._suspicion = Suspicion()
            self.starts_at = time.monotonic()
        elif not end.final:
            self._plan_restart(end, child)

    def _plan_restart(self, end: End, child: Child) -> None:
        policy, at_work = self._policy, child.state.at_work
        found = self._suspicion.ended(end, child.state)
        if found.record is not None and not self._goes_on(found):
            return
        pause = policy.pause_after(end, time.monotonic() - self._began, evidence=found.evidence)
        if pause is None:
            self._say(_spent(policy, self._settings.restarts, at_work))
            return
        _log.warning(
            "flow_restarting",
            **self._fields,
            end=end.text,
            pause_s=pause,
            restarts_left=policy.left,
            **_place_fields(end, policy, at_work),
        )
        self.starts_at = time.monotonic() + pause

    def _goes_on(self, found: Finding) -> bool:
        """Name the record that kills the process. Returns whether there is anything left to try."""
        record, ends = found.record, found.ends
        if record is None or found.refused:
            then = "it also does when it goes to the error route"
            _log.error("poison_record", record=str(record), ends=ends, then=then)
            return True
        if self._settings.on_poison == "fail":
            self._say(
                f"the record {record} kills the process whenever it is processed ({ends}), even alone: "
                "the flow stays down. Fix the step, or set streaming.supervision.on_poison: dead_letter, which sends such a "
                "record to the error route"
            )
            return False
        _log.error("poison_record", record=str(record), ends=ends, then="it goes to the error route")
        self._suspicion.refuse(record, ends)
        return True

    def _say(self, text: str) -> None:
        print(f"{self._prefix or ''}loom: {text}", file=sys.stderr, flush=True)


def _place_fields(end: End, policy: RestartPolicy, at_work: AtWork | None) -> dict[str, str]:
    """The fields of the log event that say where a run was."""
    fields = {}
    offsets = _named(policy.common()) if end.counts else ""
    if offsets:
        fields["offsets"] = offsets
    if at_work is not None and (end.crashed or end.killed):
        fields["processing"] = str(at_work)
        fields["alone"] = "yes" if at_work.alone else "no"
    return fields


def _spent(policy: RestartPolicy, restarts: int, at_work: AtWork | None) -> str:
    ends, common = policy.ends(), policy.common()
    where = (
        f"All of them were at {_named(common)}: check the records from there on"
        if common
        else ("None of them began to read")
    )
    if at_work is not None:
        where += f". The last one was working on {at_work}" + (", with nothing else in it" if at_work.alone else "")
    return (
        f"the flow ended {counted(len(ends), 'time')} without advancing ({', '.join(ends)}), and "
        f"streaming.supervision.restarts is {restarts}: it stays down. {where}"
    )


def _named(positions: Mapping[str, int]) -> str:
    named = [f"{partition}@{offset}" for partition, offset in sorted(positions.items())]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + more
