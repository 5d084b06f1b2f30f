"""One run of a supervised flow: a child process, from its start to its end. Created by `member`."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence

from loom.cli.supervisor.channel import MARK, SupervisorEnd
from loom.cli.supervisor.prefixed_output import PrefixedOutput
from loom.cli.supervisor.recorder import Recording, RunState
from loom.cli.supervisor.restart_policy import End, end_of
from loom.core.logger import get_logger
from loom.streaming.runtime.supervised import Isolation

__all__ = ["Child"]

_log = get_logger(__name__)


class Child:
    """A fresh interpreter with the same command line. Registers what it wants to be called for with a selector.

    `moved` is called with committed offsets. With a `prefix`, each line of its output is written behind it.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        isolation: Isolation | None,
        moved: Callable[[Mapping[str, int]], None],
        selector: selectors.BaseSelector,
        prefix: str | None = None,
    ) -> None:
        self._moved = moved
        self._selector = selector
        self._broker = False
        self._announced: int | None = None
        #: it ended in order, to be followed by another run
        self.again = False
        #: where it was when it ended
        self.state = RunState()
        #: a stop was asked for
        self.asked = False
        self._killed_for: int | None = None
        self._recording = Recording(isolation)
        self._outputs = [] if prefix is None else [PrefixedOutput(prefix, target) for target in (1, 2)]
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = self._start(command, environment, theirs)
        self._channel = SupervisorEnd(ours)
        selector.register(self._channel, selectors.EVENT_READ, self._take_reports)
        for output in self._outputs:
            selector.register(output, selectors.EVENT_READ, output.pass_on)

    def _start(
        self, command: Sequence[str], environment: Mapping[str, str], theirs: socket.socket
    ) -> subprocess.Popen[bytes]:
        passed = [theirs.fileno(), self._recording.descriptor]
        if not self._outputs:
            mark = ",".join(map(str, passed))
            return subprocess.Popen(command, env={**os.environ, **environment, MARK: mark}, pass_fds=passed)
        streams = [output.write_end for output in self._outputs]
        ours = [os.dup(1), os.dup(2)]
        passed += [*ours, *(output.read_end for output in self._outputs)]
        env = {**os.environ, **environment, MARK: ",".join(map(str, passed))}
        try:
            return subprocess.Popen(command, env=env, pass_fds=passed, stdout=streams[0], stderr=streams[1])
        finally:
            for descriptor in ours:
                os.close(descriptor)
            for output in self._outputs:
                output.started()

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def stop(self, number: int) -> None:
        """Pass a signal on; the second one kills the process."""
        if self.asked:
            self._killed_for = number
            self._process.kill()
        else:
            self.asked = True
            self._process.send_signal(number)
        _log.info("signal_forwarded", signal=signal.Signals(number).name)

    def finish(self) -> End:
        """How it ended; releases what it held."""
        try:
            self._take_reports()
            self.state = self._recording.state()
            self._moved(self.state.committed)
        finally:
            self._forget(self._channel)
            self._channel.close()
            self._recording.close()
            for output in self._outputs:
                self._forget(output)
                output.close()
        if self._killed_for is not None:
            return end_of(-self._killed_for, broker=False)
        code = self._process.returncode
        return end_of(code, broker=self._broker, announced=self._announced == code)

    def _take_reports(self) -> None:
        reports, more = self._channel.read()
        for report in reports:
            self._broker = self._broker or report.broker
            self.again = self.again or report.again
            if report.exit is not None:
                self._announced = report.exit
            if report.positions:
                self._moved(report.positions)
        if not more:
            self._forget(self._channel)

    def _forget(self, thing: SupervisorEnd | PrefixedOutput) -> None:
        try:
            self._selector.unregister(thing)
        except KeyError:
            pass  # it has said its last before
