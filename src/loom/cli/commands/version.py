"""`loom version`: the versions of Loom, its engine, its client and Python."""

from __future__ import annotations

import typer

from loom.cli.options import AsJson
from loom.cli.show import print_json
from loom.cli.versions import version_line, versions

__all__ = ["command"]


def command(as_json: AsJson = False) -> None:
    """Print the versions of Loom, its engine, its Kafka client and Python."""
    found = versions()
    if as_json:
        print_json(found)
    else:
        typer.echo(version_line(found))
