"""`loom dev`: the session in a process of its own, started again when a file changes.

A fresh process sees every change, in whatever module it is, and a broker that is new sees the input from its beginning.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import typer

from loom.cli.dev_session import DevOptions, generated_lines, run_session
from loom.cli.exit_codes import InputError
from loom.cli.generate import payload_maker
from loom.cli.load_flow import load_flow
from loom.cli.project import find_project, project_config, project_flow
from loom.cli.record_lines import InputLine, input_lines, jsonl_lines
from loom.core.config import ConfigContext
from loom.streaming.compiler.model import Reads
from loom.streaming.compiler.plan import CompiledPlan

__all__ = ["CHILD", "DevCommand", "run_dev"]

#: says to a process that it is the session, and where the lines of standard input are kept
CHILD = "LOOM_DEV_SESSION"
#: what a change of these files starts again
_WATCHED = (".py", ".yaml", ".yml", ".toml", ".json", ".jsonl", ".csv", ".env")
#: seconds in which a session must stop
_STOP = 10.0
#: payloads a second that are made up
_RATE = 5.0


class DevCommand:
    """The arguments of `loom dev`."""

    def __init__(
        self,
        flow: str | None,
        config: Path | None,
        *,
        file: str | None,
        generate: bool,
        count: int | None,
        rate: float | None,
        seed: int,
        key: str | None,
        records: bool,
        once: bool,
        sinks: list[str],
    ) -> None:
        self.flow, self.config = flow, config
        self.input = None if generate else file or find_project().input
        self.generate = generate or self.input is None
        self.count, self.seed, self.key, self.records, self.once = count, seed, key, records, once
        self.rate = rate or (_RATE if self.generate and count is None else None)
        self.sinks = sinks
        if generate and file is not None:
            raise InputError("--generate and --input exclude each other")
        if once and self.generate and count is None:
            raise InputError("--once needs input that ends: --input FILE, or --count N for made-up payloads")

    def session(self) -> None:
        """Run the flow here, once."""
        if self.input is not None and self.input != "-":
            next(input_lines(self.input), None)  # a file that cannot be read is found before anything runs
        options = DevOptions(
            self._lines,
            self.once,
            self.rate,
            self.key,
            self.records,
            sinks=tuple(self.sinks),
            parent=os.getppid() if CHILD in os.environ else None,
        )
        run_session(load_flow(project_flow(self.flow)), ConfigContext.from_yaml(project_config(self.config)), options)

    def _lines(self, plan: CompiledPlan, over: Callable[[], bool]) -> Iterator[InputLine]:
        if self.generate:
            source = plan.source
            if source.reads is not Reads.PAYLOAD:
                raise InputError(
                    "payloads are made up for a source of one payload type; give the flow input: --input FILE"
                )
            return generated_lines(payload_maker(source.payload, self.seed), self.count, over)
        assert self.input is not None
        kept = os.environ.get(CHILD)
        if self.input == "-" and kept:
            return jsonl_lines(_growing(Path(kept), over), "standard input")
        return input_lines(self.input)


def run_dev(command: DevCommand, *, reload: bool) -> None:
    """Run a session; with `reload` again and again, each time that a file of the working directory changes."""
    if command.once or not reload or CHILD in os.environ:
        command.session()
        return
    try:
        import watchfiles
    except ImportError:
        typer.echo("files are not watched: pip install 'loom-streaming[dev-server]'", err=True)
        command.session()
        return
    # What names neither flow nor config is no project to watch: no change of a file would help.
    project_flow(command.flow)
    project_config(command.config)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "input.jsonl"
        kept.touch()
        if command.input == "-":
            threading.Thread(target=_keep, args=(kept,), daemon=True).start()
        # The session is stopped first, by whatever signal we end.
        signal.signal(signal.SIGTERM, _end)
        session = _start(kept)
        try:
            for changes in watchfiles.watch(Path.cwd(), watch_filter=_Watched(watchfiles.DefaultFilter())):
                names = sorted({os.path.relpath(path) for _, path in changes})
                typer.echo(
                    f"changed: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}; the flow starts again", err=True
                )
                _stop(session)
                session = _start(kept)
        finally:
            _stop(session)


def _end(number: int, *_: object) -> NoReturn:
    raise SystemExit(128 + number)


class _Watched:
    """Which changes matter: of source, config and input, outside of what tools keep (`.git`, `.venv`, caches)."""

    def __init__(self, usual: Callable[[Any, str], bool]) -> None:
        self._usual = usual

    def __call__(self, change: Any, path: str) -> bool:
        return self._usual(change, path) and path.endswith(_WATCHED)


def _start(kept: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "loom.cli.main", *sys.argv[1:]],
        stdin=subprocess.DEVNULL,
        env={**os.environ, CHILD: str(kept)},
    )


def _stop(session: subprocess.Popen[bytes]) -> None:
    """Stop in order; Ctrl+C has reached the session already."""
    if session.poll() is None:
        session.terminate()
    try:
        session.wait(_STOP)
    except subprocess.TimeoutExpired:
        session.kill()
        session.wait()


def _keep(kept: Path) -> None:
    """Keep the lines of standard input for the sessions, which read them from their beginning."""
    with kept.open("ab", buffering=0) as file:
        # Not the buffered reader: a thread that holds its lock when the interpreter ends makes that crash.
        while part := os.read(sys.stdin.fileno(), 65_536):
            file.write(part)


def _growing(path: Path, over: Callable[[], bool]) -> Iterator[bytes]:
    """The lines of a file that grows, until the session is over."""
    pause = threading.Event()
    with path.open("rb") as file:
        left = b""
        while not over():
            left += file.readline()
            if left.endswith(b"\n"):
                yield left
                left = b""
            else:
                pause.wait(0.05)
