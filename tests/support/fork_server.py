"""Python programs that begin with their imports done: processes forked from one that has loaded everything already.

A command of ours spends nearly all of its time on imports. `ForkServer` starts one interpreter, which imports the package and
starts no thread; each `start` is a fork of it with a working directory, an environment, descriptors and signals of its own,
that runs a module as `python -m` does and ends like any other process. It is a real process in every respect but the time it
takes to start. What an interpreter does before the program begins is covered by tests that start one (`FlowProcess` without
a server).

Started as `python -m tests.support.fork_server DESCRIPTOR`.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn, Self

from tests.support import event_loops
from tests.support.die_with_parent import PR_SET_PDEATHSIG, die_with_parent
from tests.support.engines import VARIABLE, importable, take_engine
from tests.support.waiting import LONG_S

ROOT = Path(__file__).resolve().parents[2]
#: not imported ahead: programs
_PROGRAMS = ("loom.cli.main", "loom.examples")
_LARGEST = 1 << 20
_HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


class ForkServer:
    """The interpreter that is forked. `close` ends it, and with it every process that it has started."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                die_with_parent([sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())]),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
            )

    def start(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        output: IO[bytes] | None = None,
        setup: str | None = None,
    ) -> ForkedProcess:
        """Run `python -m ARGUMENTS` in a session of its own.

        What it writes goes to the file `output`, or is read by `communicate`. `setup` is a `module:function` that is
        called before the program begins.
        """
        status, told = os.pipe()
        streams: tuple[int, ...] = ()
        if output is None:
            (out, theirs), (err, errors) = os.pipe(), os.pipe()
            streams, passed = (out, err), [theirs, errors, told]
        else:
            passed = [output.fileno(), output.fileno(), told]
        request = {"arguments": list(arguments), "cwd": str(cwd), "env": dict(env), "setup": setup}
        try:
            socket.send_fds(self._requests, [json.dumps(request).encode()], passed)
        finally:
            for descriptor in passed if output is None else (told,):
                os.close(descriptor)
        return ForkedProcess(status, streams)

    def close(self) -> None:
        """End the interpreter."""
        self._requests.close()
        self._process.wait(LONG_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ForkedProcess:
    """A process that a `ForkServer` has started, with the methods of `subprocess.Popen` that tests need."""

    def __init__(self, status: int, streams: tuple[int, ...]) -> None:
        self._status = status
        self._streams = streams
        self.returncode: int | None = None
        told = self._told()
        if not told:
            raise RuntimeError("the fork server has ended")
        self.pid = int(told)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; `None` while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended. Raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._status, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired("python", timeout or 0)
            told = self._told()
            # Without an answer the server is gone, and took everything with it.
            self.returncode = int(told) if told else -signal.SIGKILL
            os.close(self._status)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it writes until it ends: standard output and standard error. Raises `subprocess.TimeoutExpired`."""
        until = None if timeout is None else time.monotonic() + timeout
        found = dict.fromkeys(self._streams, b"")
        with selectors.DefaultSelector() as selector:
            for stream in self._streams:
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                left = None if until is None else until - time.monotonic()
                ready = selector.select(left) if left is None or left > 0 else []
                if not ready:
                    raise subprocess.TimeoutExpired("python", timeout or 0)
                for key, _ in ready:
                    read = os.read(key.fd, 1 << 16)
                    found[key.fd] += read
                    if not read:
                        selector.unregister(key.fd)
                        os.close(key.fd)
        self._streams = ()
        self.wait(None if until is None else max(0.0, until - time.monotonic()))
        out, err = (text.decode() for text in found.values())
        return out, err

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def _told(self) -> bytes:
        """The next line of the server: the process id, then how the process ended."""
        line = b""
        while not line.endswith(b"\n"):
            read = os.read(self._status, 1)
            if not read:
                return b""
            line += read
        return line


# ---- in the interpreter that is forked


def fork_runs() -> None:
    """A `setup`: let a supervisor fork its runs from itself, for it has loaded all that they need and has no threads."""
    from loom.cli.supervisor import child

    child.subprocess = _Forking()  # type: ignore[assignment]


class _Forking:
    """In the place of the module `subprocess` where a supervisor starts its runs."""

    @staticmethod
    def Popen(
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        pass_fds: Sequence[int],
        stdout: int = 1,
        stderr: int = 2,
    ) -> _ForkedRun:
        return _ForkedRun(command, env, pass_fds, stdout, stderr)


class _ForkedRun:
    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], pass_fds: Sequence[int], stdout: int, stderr: int
    ) -> None:
        self.returncode: int | None = None
        _refuse_threads()
        self._pid = os.fork()
        if not self._pid:
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            _close_all_but({0, 1, 2, *pass_fds})
            _run(list(command[command.index("-m") + 1 :]), env)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self._pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def main(descriptor: int) -> None:
    import loom

    for module in pkgutil.walk_packages(loom.__path__, "loom."):
        if not module.name.startswith(_PROGRAMS) and importable(module.name):
            importlib.import_module(module.name)
    for name in ("confluent_kafka.admin", "structlog", "omegaconf", "yaml", "anyio"):
        importlib.import_module(name)
    _refuse_threads()
    gc.freeze()
    _serve(socket.socket(fileno=descriptor))


def _refuse_threads() -> None:
    """A fork takes one thread along and whatever the others held."""
    threads = os.listdir("/proc/self/task")
    if len(threads) > 1:
        raise RuntimeError(f"{len(threads)} threads run: this process may not be forked")


def _serve(requests: socket.socket) -> None:
    running: dict[int, int] = {}
    woken, wakes = socket.socketpair()
    for end in (woken, wakes):
        end.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Ctrl-C reaches everybody in the terminal; whoever started this server ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is woken:
                    woken.recv(4096)
                    _reap(running)
                elif not _start(requests, running):
                    return


def _reap(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        told = running.pop(pid)
        with contextlib.suppress(BrokenPipeError):
            os.write(told, b"%d\n" % os.waitstatus_to_exitcode(status))
        os.close(told)


def _start(requests: socket.socket, running: dict[int, int]) -> bool:
    """Fork one process; `False` when nobody asks any more."""
    text, descriptors, _, _ = socket.recv_fds(requests, _LARGEST, 3)
    if not text:
        return False
    request: dict[str, Any] = json.loads(text)
    out, err, told = descriptors
    server = os.getpid()
    pid = os.fork()
    if not pid:
        os.setsid()
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            os._exit(1)
        os.dup2(out, 1)
        os.dup2(err, 2)
        _close_all_but({0, 1, 2})
        take_engine(request["env"].get(VARIABLE))
        event_loops.take_event_loop(request["env"].get(event_loops.VARIABLE))
        if request["setup"]:
            module, _, function = request["setup"].partition(":")
            getattr(importlib.import_module(module), function)()
        os.chdir(request["cwd"])
        sys.path[0] = request["cwd"]
        _run(request["arguments"], request["env"])
    running[pid] = told
    os.write(told, b"%d\n" % pid)
    for descriptor in (out, err):
        os.close(descriptor)
    return True


def _close_all_but(kept: set[int]) -> None:
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor not in kept:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _run(arguments: list[str], env: Mapping[str, str]) -> NoReturn:
    """Be `python -m ARGUMENTS` in this environment, and end as an interpreter does."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in _HEARD:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(env)
        more = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
        sys.path[1:] = [*more, *(path for path in sys.path[1:] if path not in more)]
        sys.orig_argv = [sys.executable, "-m", *arguments]
        sys.argv = list(arguments)
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]))
