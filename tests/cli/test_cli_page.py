"""What the pages with transcripts show is what a reader sees; those that need a broker are typed in `tests/kafka`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from loom.cli.app import app
from tests.support.fork_server import ForkServer
from tests.support.transcripts import Reader, transcripts

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "cli.md"


@pytest.mark.bytewax
@pytest.mark.parametrize("name", ["cli.md", "tutorial.md", "diagnostics.md", "../README.md"])
def test_a_page_that_needs_no_broker_is_true(name: str, tmp_path: Path, fork_server: ForkServer) -> None:
    Reader(tmp_path, {"PYTHONUNBUFFERED": "1"}, server=fork_server).follows(DOCS / name, "")


def test_every_command_has_a_transcript_on_the_page() -> None:
    group = typer.main.get_group(app)
    context = typer.Context(group)
    names = []
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        inner = found.list_commands(context) if hasattr(found, "list_commands") else []
        names += [f"{name} {one}" for one in inner] or [name]
    shown = {command.text for info in ("", "kafka") for command in transcripts(PAGE, info)}
    without = [name for name in names if not any(re.match(rf"loom {name}\b", text) for text in shown)]
    assert without == []
