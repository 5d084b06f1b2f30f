"""A mistake of the table in `tests/cli/mistakes.py` as somebody makes it: the files, the command, and what it prints."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from tests.cli.mistakes import BROKER, Mistake
from tests.support.fork_server import ForkServer
from tests.support.mistakes_page import HOME, PAGE, printed_on, write, writes
from tests.support.waiting import LONG_S


class Mistaken:
    """A mistake under way."""

    def __init__(
        self, mistake: Mistake, folder: Path, server: ForkServer, environment: dict[str, str], bootstrap: str = BROKER
    ) -> None:
        self.mistake = mistake
        self._folder = folder
        self._bootstrap = bootstrap
        for name, text in mistake.files().items():
            (folder / name).write_text(text.replace(BROKER, bootstrap))
        program, *arguments = shlex.split(mistake.command)
        assert program == "loom"
        # A supervisor's runs are forked too: here the imports of many interpreters would be most of the time.
        setup = "tests.support.fork_server:fork_runs" if "--processes" in arguments else None
        if mistake.beside.startswith("without"):
            setup = f"{__name__}:without_prometheus"
        self._process = server.start(
            ["loom.cli.main", *arguments],
            cwd=folder,
            env={**environment, "COLUMNS": "120", "TERM": "dumb"},
            setup=setup,
        )

    def told(self) -> str:
        """What it prints, as on the page: without log lines, with the folder and the broker of the page."""
        try:
            out, err = self._process.communicate(timeout=LONG_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            out, err = self._process.communicate()
            raise AssertionError(f"nothing told within {LONG_S} s:\n{out}\n{err}") from None
        text = out + err
        assert self._process.returncode == self.mistake.code, text
        if self.mistake.command.startswith("loom run"):
            # The lines of the log come first. What a step of the author's raises stands there with its traceback.
            text = text[text.index("loom: ") :]
        assert "Traceback" not in text
        text = text.replace(str(self._folder), HOME).replace(self._bootstrap, BROKER)
        lines = [f"{line.rstrip()}\n" for line in text.splitlines()]
        if "--processes" in self.mistake.command:
            # Each of them may say the same, between lines of the log of the others.
            lines = lines[:1]
        return "".join(lines)

    def check(self) -> None:
        """What it prints is what the page says."""
        told = self.told()
        if writes():
            write(self.mistake.title, told)
        assert told == printed_on(PAGE.read_text())[self.mistake.title]


def without_prometheus() -> None:
    """A `setup`: the extra is not installed."""
    for name in [name for name in sys.modules if name.split(".")[0] == "prometheus_client"]:
        del sys.modules[name]
    sys.modules["prometheus_client"] = None  # type: ignore[assignment]
