"""The arguments and options that several commands take, and how a command ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from loom.cli.program import guarded

__all__ = [
    "AsJson",
    "Brokers",
    "Config",
    "Debug",
    "ProjectConfig",
    "ProjectFlow",
    "Sinks",
    "Target",
    "end",
    "end_guarded",
]

Target: TypeAlias = Annotated[
    str, typer.Argument(metavar="MODULE:FLOW", help="the flow to take, as module:name or file.py:name")
]
Config: TypeAlias = Annotated[Path, typer.Option("--config", "-c", help="the YAML file with its settings")]
#: the same, where `[tool.loom]` in `pyproject.toml` may say it; see `project.py`
ProjectFlow: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODULE:FLOW]",
        help="the flow, as module:name or file.py:name; by default the project's",
        show_default=False,
    ),
]
ProjectConfig: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="the YAML file with its settings; by default the project's", show_default=False
    ),
]
Brokers: TypeAlias = Annotated[
    str | None, typer.Option("--brokers", "-b", metavar="HOST:PORT", help="the cluster, instead of that of the config")
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="print JSON, for a script")]
Debug: TypeAlias = Annotated[
    bool, typer.Option("--debug", envvar="LOOM_DEBUG", help="show tracebacks and the client's own log lines")
]
Sinks: TypeAlias = Annotated[
    list[str] | None, typer.Option("--sink", metavar="MODULE:CLASS", help="let the config name this sink class")
]


def end_guarded(work: Callable[[], None], debug: bool) -> None:
    """Do the work of a command, and end with its exit code; what goes wrong becomes one message on standard error.

    Raises:
        typer.Exit: with the exit code, unless it is 0.
    """
    end(guarded(work, debug))


def end(code: int) -> None:
    """End a command. Raises `typer.Exit` with the code, unless it is 0."""
    if code:
        raise typer.Exit(code)
