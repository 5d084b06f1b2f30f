"""`loom new`: the folder of a new project."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from loom.cli.new import create_project
from loom.cli.options import Debug, end_guarded

__all__ = ["command"]


class _Template(Enum):
    BASIC = "basic"
    ROUTING = "routing"
    ENRICHMENT = "enrichment"


def command(
    name: Annotated[str, typer.Argument(help="the name of the project and of its folder")],
    template: Annotated[
        _Template,
        typer.Option(
            "--template",
            "-t",
            help="basic: check and price; routing: branches and dead letters; enrichment: reference data and a split",
        ),
    ] = _Template.BASIC,
    debug: Debug = False,
) -> None:
    """Make a project: flow, steps, config, tests, sample input, Dockerfile and CI. It runs at once."""

    def work() -> None:
        for path in create_project(name, template.value, Path.cwd()):
            typer.echo(path.as_posix())
        typer.echo(f"\nNext: cd {name}, then `loom dev`, and `pytest` for its tests")

    end_guarded(work, debug)
