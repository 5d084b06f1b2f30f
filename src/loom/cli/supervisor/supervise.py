"""`loom run` as a supervisor: runs itself in a child process and restarts it when it fails.

The child is a fresh interpreter with the same command line (never a fork: client and engine have threads), marked by an
environment variable. Signal handlers do nothing here; every event wakes up one loop.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any, Self

from loom.cli.supervisor.channel import MARK, SupervisorEnd
from loom.cli.supervisor.recorder import AtWork, Recording, RunState
from loom.cli.supervisor.restart_policy import End, RestartPolicy, end_of
from loom.cli.supervisor.suspicion import Finding, Suspicion
from loom.core.logger import get_logger
from loom.streaming.runtime.settings import SupervisionSettings
from loom.streaming.runtime.supervised import Isolation

__all__ = ["same_command", "supervise"]

_log = get_logger(__name__)

_STOPS = (signal.SIGTERM, signal.SIGINT)
#: how many positions a message names
_NAMED = 20


def same_command() -> list[str]:
    """This process's command line, interpreter options included."""
    return [sys.executable, *sys.orig_argv[1:]]


def supervise(command: Sequence[str], settings: SupervisionSettings) -> int:
    """Run a command until it is not to be restarted any more, and return its exit code, or 128 plus its signal.

    SIGTERM and SIGINT are forwarded, and no run is started any more; a second one kills the run. When no restart is left and
    no offset has advanced, prints the offsets of the runs. A record that kills the process is named.
    """
    policy, suspicion = RestartPolicy(settings.restarts), Suspicion()
    with _Signals() as signals:
        while True:
            began = time.monotonic()
            run = _Run(command, policy, signals, suspicion.isolation())
            end = run.follow()
            if signals.stopping:
                return end.code
            if run.again:
                # It ended in order, so the next run is normal: all workers and full batches.
                suspicion = Suspicion()
                continue
            if end.final:
                return end.code
            found = suspicion.ended(end, run.state)
            if found.record is not None and not _goes_on(found, settings, suspicion):
                return end.code
            pause = policy.pause_after(end, time.monotonic() - began, evidence=found.evidence)
            if pause is None:
                print(f"loom: {_spent(policy, settings.restarts, run.state.at_work)}", file=sys.stderr, flush=True)
                return end.code
            _log.warning(
                "flow_restarting",
                end=end.text,
                pause_s=pause,
                restarts_left=policy.left,
                **_place_fields(end, policy, run.state.at_work),
            )
            if signals.asked_within(pause):
                return end.code


def _goes_on(found: Finding, settings: SupervisionSettings, suspicion: Suspicion) -> bool:
    """Name the record that kills the process. Returns whether there is anything left to try."""
    record, ends = found.record, found.ends
    if record is None or found.refused:
        _log.error("poison_record", record=str(record), ends=ends, then="it also does when it goes to the error route")
        return True
    if settings.on_poison == "fail":
        print(
            f"loom: the record {record} kills the process whenever it is processed ({ends}), even alone: "
            "the flow stays down. Fix the step, or set streaming.supervision.on_poison: dead_letter, which sends such a "
            "record to the error route",
            file=sys.stderr,
            flush=True,
        )
        return False
    _log.error("poison_record", record=str(record), ends=ends, then="it goes to the error route")
    suspicion.refuse(record, ends)
    return True


class _Signals:
    """Signals as bytes in a socket, so that the main thread can wait for them together with everything else."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._before: dict[int, Any] = {}
        #: a stop was requested
        self.stopping = False

    def __enter__(self) -> Self:
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in (*_STOPS, signal.SIGCHLD):
            self._before[number] = signal.signal(number, _noted_elsewhere)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        signal.set_wakeup_fd(-1)
        self._read.close()
        self._write.close()

    def fileno(self) -> int:
        """For a selector."""
        return self._read.fileno()

    def asked(self) -> list[int]:
        """The requests to stop since the last call."""
        try:
            numbers = [number for number in self._read.recv(4096) if number in _STOPS]
        except BlockingIOError:
            return []
        self.stopping = self.stopping or bool(numbers)
        return numbers

    def asked_within(self, seconds: float) -> bool:
        """Wait, at most until a stop is requested. Returns whether one is."""
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            while not self.stopping and (left := until - time.monotonic()) > 0:
                if selector.select(left):
                    self.asked()
        return self.stopping


class _Run:
    """One child process, from its start to its end."""

    def __init__(
        self, command: Sequence[str], policy: RestartPolicy, signals: _Signals, isolation: Isolation | None
    ) -> None:
        self._policy = policy
        self._signals = signals
        self._broker = False
        self._announced: int | None = None
        #: it ended in order, to be followed by another run
        self.again = False
        #: where it was when it ended
        self.state = RunState()
        self._recording = Recording(isolation)
        self._asked = False
        self._killed_for: int | None = None
        ours, theirs = socket.socketpair()
        with theirs:
            passed = [theirs.fileno(), self._recording.descriptor]
            mark = ",".join(map(str, passed))
            self._process = subprocess.Popen(command, env={**os.environ, MARK: mark}, pass_fds=passed)
        self._channel = SupervisorEnd(ours)

    def follow(self) -> End:
        """Wait for the end; meanwhile take reports and forward signals."""
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._signals, selectors.EVENT_READ)
                selector.register(self._channel, selectors.EVENT_READ)
                while self._process.poll() is None:
                    # The end of the child is a SIGCHLD.
                    for key, _ in selector.select():
                        if key.fileobj is self._signals:
                            self._pass_on(self._signals.asked())
                        elif not self._take_reports():
                            selector.unregister(self._channel)
            self._take_reports()
            self.state = self._recording.state()
            self._policy.moved(self.state.committed)
        finally:
            self._channel.close()
            self._recording.close()
        if self._killed_for is not None:
            return end_of(-self._killed_for, broker=False)
        code = self._process.returncode
        return end_of(code, broker=self._broker, announced=self._announced == code)

    def _pass_on(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            if self._asked:
                self._killed_for = number
                self._process.kill()
            else:
                self._asked = True
                self._process.send_signal(number)
            _log.info("signal_forwarded", signal=signal.Signals(number).name)

    def _take_reports(self) -> bool:
        """Take the reports of the child; `False` if no more can come."""
        reports, more = self._channel.read()
        for report in reports:
            self._broker = self._broker or report.broker
            self.again = self.again or report.again
            if report.exit is not None:
                self._announced = report.exit
            if report.positions:
                self._policy.moved(report.positions)
        return more


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
        f"the flow ended {len(ends)} times without advancing ({', '.join(ends)}), and streaming.supervision.restarts is "
        f"{restarts}: it stays down. {where}"
    )


def _named(positions: Mapping[str, int]) -> str:
    named = [f"{partition}@{offset}" for partition, offset in sorted(positions.items())]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + more


def _noted_elsewhere(number: int, frame: FrameType | None) -> None:
    """A signal is written to the socket only if it has a handler."""
