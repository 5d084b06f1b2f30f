"""Transcripts of a page (` ```console `): the commands are run as they stand, and what they print is compared with the page.

A line of `…` stands for any lines, `…` within a line for any text; a moment and the id of a run are of their day. `^C` as the
last line of a transcript stops the last command in order, once the page's flow has nothing left to read.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple

from tests.support.flow_process import SOURCES
from tests.support.fork_server import ForkedProcess, ForkServer
from tests.support.waiting import LONG_S

_BLOCK = re.compile(r"^```console[ \t]*([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_STOP = "^C"
#: what pytest adds to seconds that are more than a minute
_MINUTES = re.compile(r"(?<=\ds) \(\d+:\d\d:\d\d\)$")
#: what differs each time and is shown all the same: a moment, milliseconds since 1970, the id of a run
_OF_THE_DAY = (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), re.compile(r"\b1[78]\d{11}\b"), re.compile(r"\b[0-9a-f]{16}\b"))


#: a file that the reader saves under the name in its first line, between the commands
_FILE = re.compile(r"^```(?:python|yaml)\n(# ([\w./-]+\.\w+)\n.*?)^```$", re.MULTILINE | re.DOTALL)


class SavedFile(NamedTuple):
    """A file that a page shows whole, for the reader to save in the folder where he is."""

    line: int
    name: str
    text: str


class Command(NamedTuple):
    """One command of a page, and what it printed there."""

    line: int
    text: str
    printed: list[str]

    @property
    def is_stopped(self) -> bool:
        """Whether the reader stopped it."""
        return bool(self.printed) and self.printed[-1] == _STOP


def transcripts(page: Path, info: str) -> Iterator[Command]:
    """The commands of the blocks of a page that are marked so, in order."""
    text = page.read_text()
    for block in _BLOCK.finditer(text):
        if block[1].strip() != info:
            continue
        first = text.count("\n", 0, block.start()) + 2
        commands: list[Command] = []
        for number, line in enumerate(block[2].splitlines(), first):
            if line.startswith("$ "):
                commands.append(Command(number, line[2:], []))
            else:
                assert commands, f"{page.name}:{number}: a transcript begins with a command"
                commands[-1].printed.append(line)
        yield from commands


def walk(page: Path, *infos: str) -> Iterator[Command | SavedFile]:
    """All that the reader of a page does, in order: the files and the commands of the blocks that are marked so."""
    text = page.read_text()
    files = [
        SavedFile(text.count("\n", 0, block.start()) + 2, block[2], block[1].partition("\n")[2])
        for block in _FILE.finditer(text)
    ]
    yield from sorted([*files, *(command for info in infos for command in transcripts(page, info))])


class Reader:
    """Somebody who types the commands of a page in a folder."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        read_all: Callable[[], object] = lambda: None,
        server: ForkServer | None = None,
    ) -> None:
        self._folder = folder
        self._server = server
        self._environment = {**os.environ, "PYTHONPATH": str(SOURCES), "COLUMNS": "130", **environment}
        self._read_all = read_all
        self._code = 0

    def saves(self, file: SavedFile) -> None:
        """Save a file, over the one of that name."""
        path = self._folder / file.name
        assert path.parent.is_dir(), f"line {file.line} saves into {path.parent}, which there is not"
        path.write_text(file.text)

    def follows(self, page: Path, *infos: str) -> None:
        """Do all that a page says, and compare what is printed with what it shows."""
        for action in walk(page, *infos):
            if isinstance(action, SavedFile):
                self.saves(action)
                continue
            printed = self.types(action)
            assert is_true(action, printed), f"{page.name}:{action.line}: {action.text}\n" + "\n".join(printed)

    def types(self, command: Command) -> list[str]:
        """Run a command and return the lines that it printed."""
        words = shlex.split(command.text)
        if words[0] == "cd":
            self._folder = (self._folder / words[1]).resolve()
            return []
        if words[0] == "cat":
            return [line for name in words[1:] for line in (self._folder / name).read_text().splitlines()]
        if words == ["echo", "$?"]:
            return [str(self._code)]
        program = {"loom": "loom.cli.main", "pytest": "pytest"}[words[0]]
        with TemporaryFile() as output:
            process = self._start([program, *words[1:]], output)
            if command.is_stopped:
                self._read_all()
                os.kill(process.pid, signal.SIGINT)
            self._code = process.wait(LONG_S)
            output.seek(0)
            printed = [line.rstrip() for line in output.read().decode().splitlines()]
        return [*printed, _STOP] if command.is_stopped else printed

    def _start(self, arguments: list[str], output: IO[bytes]) -> subprocess.Popen[bytes] | ForkedProcess:
        if self._server is not None and arguments[0] != "pytest":
            return self._server.start(arguments, cwd=self._folder, env=self._environment, output=output)
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def is_true(command: Command, printed: list[str]) -> bool:
    """Whether a page tells what a command printed. What comes from several topics comes in any order."""
    if not command.text.startswith("loom dev"):
        return agrees(command.printed, printed)
    left = list(printed)
    told = [line for line in command.printed if line.strip() != "…"]
    for line in told:
        found = next((one for one in left if agrees([line], [one])), None)
        if found is None:
            return False
        left.remove(found)
    return not left or len(told) < len(command.printed)


def agrees(told: list[str], printed: list[str]) -> bool:
    """Whether these lines are those, in order.

    >>> agrees(["a … c", "…"], ["a b c", "d", "e"]), agrees(["a"], ["a", "b"])
    (True, False)
    >>> agrees(["4 passed in …s"], ["4 passed in 68.99s (0:01:08)"])
    True
    """
    told, printed = ([_any_day(_MINUTES.sub("", line)) for line in lines] for lines in (told, printed))
    pattern = "".join(
        "(?:.*\n)*" if line.strip() == "…" else ".*".join(map(re.escape, line.rstrip().split("…"))) + "\n"
        for line in told
    )
    return re.fullmatch(pattern, "".join(line + "\n" for line in printed)) is not None


def _any_day(line: str) -> str:
    for expression in _OF_THE_DAY:
        line = expression.sub("<then>", line)
    return line
