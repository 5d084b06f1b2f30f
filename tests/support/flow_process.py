"""A flow as its users run it: a process of its own, started by the real command line, stopped or killed from outside.

flow = FlowProcess("orders_flow:flow", config=tmp_path / "loom.yaml", directory=tmp_path)
with flow:  # whatever the test does, nothing is left behind
    flow.start()
    flow.await_positions(kafka.bootstrap, "orders", "orders.raw", 1)
    flow.sigkill()
    flow.start()  # again, as an operator would
    flow.sigterm()
    assert flow.wait(30) == 0, flow.output()
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tests.support.die_with_parent import die_with_parent
from tests.support.fork_server import ForkedProcess, ForkServer
from tests.support.kafka_io import group_positions
from tests.support.processes import children_of
from tests.support.waiting import LONG_S, until

SOURCES = Path(__file__).resolve().parents[2] / "src"

T = TypeVar("T")


class FlowProcess:
    """`loom run TARGET --config FILE` in a process, and the session, of its own; every `start()` is a new one.

    `directory` is where it runs and where its module is looked up; its output, standard error included, is appended to
    the file `output` there, over all starts. `program` is what Python runs in the place of the command line.

    With a `server` each start is a fork of one that has done the imports, after `setup` (a `module:function`); without one it
    is a new interpreter, to be started from the main thread (see `die_with_parent`).
    """

    def __init__(
        self,
        target: str,
        *,
        config: Path,
        directory: Path,
        output: str = "flow.log",
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        pythonpath: Sequence[Path] = (),
        program: Sequence[str] = ("-m", "loom.cli.main", "run"),
        server: ForkServer | None = None,
        setup: str | None = None,
    ) -> None:
        self._host: tuple[str, ...] = ()
        self._command = [*program, target, "--config", str(config), *arguments]
        self._server = server
        self._setup = setup
        self._directory = directory
        self._log = directory / output
        self._environment = dict(environment or {})
        self._pythonpath = [directory, *pythonpath, SOURCES]
        self._process: subprocess.Popen[bytes] | ForkedProcess | None = None
        self._log_start = 0

    def twin(self, output: str) -> FlowProcess:
        """Another instance of the same flow with the same config, which writes its output elsewhere."""
        other = copy(self)
        other._log, other._process, other._log_start = self._directory / output, None, 0
        return other

    def on(self, host: Sequence[str]) -> FlowProcess:
        """The same flow on another host: as a new interpreter that this command starts there."""
        other = copy(self)
        other._host, other._process, other._server = tuple(host), None, None
        return other

    def variant(self, *arguments: str, **environment: str) -> FlowProcess:
        """The same flow with further arguments and variables, as its next start."""
        other = copy(self)
        other._command = [*self._command, *arguments]
        other._environment = {**self._environment, **environment}
        other._process = None
        return other

    def children(self) -> list[int]:
        """The processes that this one has started and that still run."""
        return children_of(self.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill_all()

    @property
    def pid(self) -> int:
        """The process id of the last start; it stays known after the process has ended."""
        return self._started().pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self, **environment: str) -> Self:
        """Start the flow and return at once; `environment` is added to this start's only."""
        if self.alive:
            raise RuntimeError("the flow is running already")
        self.kill_all()  # children that a killed supervisor has left
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        inherited = os.environ.get("PYTHONPATH")
        paths = [*map(str, self._pythonpath), *([inherited] if inherited else [])]
        env = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            **self._environment,
            **environment,
            "PYTHONPATH": os.pathsep.join(paths),
        }
        with self._log.open("ab") as log:
            if self._server is not None:
                self._process = self._server.start(
                    self._command[1:], cwd=self._directory, env=env, output=log, setup=self._setup
                )
                return self
            self._process = subprocess.Popen(
                die_with_parent([*self._host, sys.executable, *self._command]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                start_new_session=True,
                env=env,
            )
        return self

    def sigterm(self) -> None:
        """Ask the flow to stop; returns at once, `wait` tells how it went."""
        self._started().send_signal(signal.SIGTERM)

    def sigterm_again(self) -> int:
        """Ask once more, and again until it has ended: two signals that reach it at once are one. Returns the exit code."""
        process = self._started()

        def ended() -> bool:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(0.5)
            except subprocess.TimeoutExpired:
                return False
            return True

        until(ended, self.tail)
        return self.wait(LONG_S)

    def send(self, signal_: signal.Signals) -> None:
        """Send a signal to the process; it may have ended already."""
        self._started().send_signal(signal_)

    def sigkill(self, timeout: float = LONG_S) -> None:
        """Kill the process itself, not what it may have started, and wait until it is gone."""
        process = self._started()
        process.kill()
        process.wait(timeout)

    def kill_all(self) -> None:
        """Kill the process and everything in its session that it started; harmless when all of it is gone."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(LONG_S)

    def wait(self, timeout: float) -> int:
        """The exit code, negative for a signal; `TimeoutError` with the end of the output when it does not end."""
        try:
            return self._started().wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the flow has not ended after {timeout} s:\n{self.tail()}") from None

    def output(self) -> str:
        """What the last start has written so far, standard error included."""
        if not self._log.exists():
            return ""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def tail(self, lines: int = 40) -> str:
        """The last lines of `output()`."""
        return "\n".join(self.output().splitlines()[-lines:])

    def await_line(self, pattern: str, timeout: float = LONG_S) -> str:
        """The first line of this start's output that a regular expression is found in."""
        expression = re.compile(pattern)

        def found() -> str | None:
            ended = not self.alive
            # The last line may still be written.
            whole = [line for line in self.output().splitlines(keepends=True) if ended or line.endswith("\n")]
            return next((line.rstrip("\n") for line in whole if expression.search(line)), None)

        return self._await(found, f"no line matches {pattern!r}", timeout)

    def await_starts(self, count: int, timeout: float = LONG_S) -> None:
        """Wait until the flow has started so many times."""

        def started() -> bool | None:
            return True if self.output().count("flow_started") >= count else None

        self._await(started, f"the flow has not started {count} times", timeout)

    def await_positions(
        self, bootstrap: str, group: str, topic: str, at_least: int | Mapping[int, int], timeout: float = LONG_S
    ) -> dict[int, int]:
        """The positions that a group has confirmed, once they are far enough.

        `at_least` is the sum over all partitions, or a position for each partition that matters.
        """

        def far_enough() -> dict[int, int] | None:
            positions = group_positions(bootstrap, group, topic)
            if isinstance(at_least, int):
                return positions if sum(positions.values()) >= at_least else None
            return positions if all(positions.get(part, -1) >= least for part, least in at_least.items()) else None

        return self._await(far_enough, f"group {group} has not reached {at_least} in {topic}", timeout, pause=0.1)

    def _await(self, look: Callable[[], T | None], otherwise: str, timeout: float, pause: float = 0.02) -> T:
        """What `look` finds in the end; looks once more when the process has ended, and then no longer."""
        deadline = time.monotonic() + timeout
        while True:
            ended = not self.alive
            if (found := look()) is not None:
                return found
            if ended:
                raise RuntimeError(f"{otherwise}, and the flow ended with {self._started().poll()}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{otherwise} after {timeout} s:\n{self.tail()}")
            time.sleep(pause)

    def _started(self) -> subprocess.Popen[bytes] | ForkedProcess:
        if self._process is None:
            raise RuntimeError("the flow has not been started")
        return self._process
